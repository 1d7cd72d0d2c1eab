"""May this problem be told on this channel now: a verdict with its reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from engine.notify.inputs import Silence
from engine.notify.policy import NEVER, RollUp, Route, Rule, quiet_until
from engine.notify.shelf import Shelf
from engine.notify.state import Alert, Flight, Group, Lane, Told
from engine.notify.types import NOTICES, Reason


@dataclass(frozen=True, slots=True)
class Verdict:
    """`go` is subject to the group's pace still; `until` is set on `hold`."""

    action: Literal["go", "hold", "suppress"]
    reason: Reason
    until: datetime | None = None


GO = Verdict("go", Reason.NEW)
#: How long the end of a problem waits to see whether its beginning arrived.
FLIGHT_WAIT = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Now:
    """The moment, and what holds at it for everybody."""

    at: datetime
    silences: tuple[Silence, ...]
    flights: Shelf[Flight]
    roll_up: RollUp
    run_link: str | None


def suppress(reason: Reason) -> Verdict:
    """Not at all."""
    return Verdict("suppress", reason)


def may_tell(group: Group, alert: Alert, lane: Lane, route: Route, rule: Rule, now: Now) -> Verdict:
    """Whether a problem that lasts may be told."""
    if alert.severity < route.minimum:
        return suppress(Reason.BELOW_SEVERITY)
    if group.roll_up and _few(alert, now.roll_up):
        return suppress(Reason.FEW_ORGANISATIONS)
    if silenced_until(alert, now.silences, now.at):
        return suppress(Reason.SILENCED)
    if alert.acked is not None and alert.severity <= alert.acked:
        return suppress(Reason.ACKNOWLEDGED)
    told = lane.told.get(alert.fingerprint)
    if told and told.resolved and now.at < told.at + rule.cooldown:
        # They believe that it is over, so this is news; but a problem that comes and goes waits.
        return Verdict("hold", Reason.COOLDOWN, told.at + rule.cooldown)
    if told and not told.resolved and alert.severity <= told.severity and now.at < again(alert, told, rule):
        return suppress(Reason.COOLDOWN)
    return _unless_quiet(alert, route, now)


def may_tell_end(alert: Alert, lane: Lane, route: Route, now: Now) -> Verdict:
    """Whether the end of a problem may be told: only to who was told that it began."""
    told = lane.told.get(alert.fingerprint)
    if told is None or told.resolved:
        return suppress(Reason.UNTOLD)
    if any(f.channel_id == route.channel_id and alert.fingerprint in f.settles for f in now.flights.values()):
        # Should the beginning not arrive, nobody is to hear of the end.
        return Verdict("hold", Reason.IN_FLIGHT, now.at + FLIGHT_WAIT)
    if not route.send_resolved:
        return suppress(Reason.NOT_WANTED)
    if until := silenced_until(alert, now.silences, now.at):
        return Verdict("hold", Reason.SILENCED, until)
    return _unless_quiet(alert, route, now)


def again(alert: Alert, told: Told, rule: Rule) -> datetime:
    """When a problem that lasts may be told again."""
    repeat = NEVER if alert.event.event in NOTICES else rule.repeat or NEVER
    return told.at + max(rule.cooldown, repeat)


def silenced_until(alert: Alert, silences: Iterable[Silence], at: datetime) -> datetime | None:
    """When the last silence ends that is about a problem, or None."""
    meant = (s.until for s in silences if s.until > at and s.matches(alert.event, alert.fingerprint))
    return max(meant, default=None)


def _unless_quiet(alert: Alert, route: Route, now: Now) -> Verdict:
    if route.quiet and alert.severity < route.quiet.passes and (until := quiet_until(route.quiet, now.at)):
        return Verdict("hold", Reason.QUIET_HOURS, until)
    return GO


def _few(alert: Alert, roll_up: RollUp) -> bool:
    shared = any(part.shared for part in alert.parts.values())
    return not shared and len(alert.organisations) < roll_up.organisations

"""What the rules need to know of the configuration: routes, rules and the operator's roll-up.

Files, warehouse tables and defaults are made into these; the rules see nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from engine.notify.types import EventName, Severity

NEVER = timedelta()


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Local times between which only `passes` and worse is sent; `end` before `start` is the next morning."""

    start: time
    end: time
    timezone: str = "UTC"
    passes: Severity = Severity.CRITICAL


def quiet_until(hours: QuietHours, now: datetime) -> datetime | None:
    """When the quiet hours end that `now` is in, or None outside of them.

    Both ends are looked up in the zone on their own day, so that a night is an hour longer or shorter when
    the clocks change. A time that the clocks skip is as long after midnight as the old offset has it; one
    that comes twice is the first of both.
    """
    zone = ZoneInfo(hours.timezone)
    today = now.astimezone(zone).date()
    overnight = hours.end <= hours.start
    for day in (today - timedelta(days=1), today):
        begin = _instant(day, hours.start, zone)
        end = _instant(day + timedelta(days=overnight), hours.end, zone)
        if begin <= now < end:
            return end
    return None


def _instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, at, zone).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Route:
    """One channel as the rules see it.

    `shared` says that it is the operator's, and that many organisations without one of their own write to it.
    """

    channel_id: str
    shared: bool = False
    minimum: Severity = Severity.INFO
    quiet: QuietHours | None = None
    send_resolved: bool = True


@dataclass(frozen=True, slots=True)
class Rule:
    """How one event is announced.

    The same problem is not announced again for `cooldown`, nor for `repeat` where it is set; with `repeat` a
    problem that lasts is brought to mind again that often. A group's first message waits `wait` for company;
    two messages of a group are `interval` apart.
    """

    enabled: bool = True
    routes: tuple[Route, ...] = ()
    cooldown: timedelta = timedelta(minutes=5)
    repeat: timedelta | None = None
    wait: timedelta = NEVER
    interval: timedelta = NEVER

    def route(self, channel_id: str) -> Route | None:
        """The route to a channel, if events still go there."""
        if not self.enabled:
            return None
        return next((route for route in self.routes if route.channel_id == channel_id), None)


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one organisation, or of the operator; an event without a rule is not announced."""

    rules: Mapping[EventName, Rule]

    def rule(self, event: EventName) -> Rule:
        """The rule of an event."""
        return self.rules.get(event, OFF)


OFF = Rule(enabled=False)
NOTHING = Policy({})


@dataclass(frozen=True, slots=True)
class RollUp:
    """What many organisations have in common is one message to the operator.

    Applies to `events` that name a provider, or that would go to a shared channel. The operator hears of
    organisations with channels of their own from `organisations` on; of the others at once.
    """

    events: frozenset[EventName] = frozenset()
    organisations: int = 2
    wait: timedelta = NEVER


@dataclass(frozen=True, slots=True)
class Policies:
    """Everybody's rules. An organisation without rules of its own has those of `default`.

    `run_link` is the address of a run, with `{run_id}` in it.
    """

    operator: Policy = NOTHING
    default: Policy = NOTHING
    orgs: Mapping[str, Policy] = field(default_factory=dict)
    roll_up: RollUp = RollUp()
    run_link: str | None = None

    def of(self, org: str | None) -> Policy:
        """The rules for an organisation, or the operator's for None."""
        return self.operator if org is None else self.orgs.get(org, self.default)

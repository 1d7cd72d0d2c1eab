"""What an event does to the problems that are known: it begins one, adds to it, or ends it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from engine.notify.state import Alert, Group, Part, State
from engine.notify.types import NOTICES, Event, Reason, as_key, fingerprint

#: In the place of an organisation's slug, which it cannot be.
EVERYBODY = "*"


@dataclass(frozen=True, slots=True)
class Change:
    """A problem that an event began, added to or ended."""

    fingerprint: str
    event_id: str
    at: datetime
    resolved: bool


def group_key(event: Event) -> str:
    """What an event is announced with: others of its organisation, event and pipeline."""
    return as_key(event.org, event.event, event.pipeline_id)


def roll_up_key(event: Event) -> str:
    """What an event is told to the operator with: the same event of its provider, of everybody."""
    return as_key(EVERYBODY, event.event, event.provider)


def rolled(event: Event) -> Event:
    """The event as everybody's, which is another problem than one of the operator's own."""
    return replace(event, org=EVERYBODY)


def register(
    state: State, event: Event, *, parted: bool, shared: bool
) -> tuple[State, dict[str, list[Change]]]:
    """The state with the event in it, and what changed by group; nothing has changed for a stale event.

    `parted` counts a new problem into the roll-up, `shared` says that its organisation has no channel for it.
    """
    if event.resolved:
        return _end(state, event)
    key = group_key(event)
    group = state.groups.get(key) or Group(key, event.org, event.event)
    if _stale(group.alerts.get(fingerprint(event)), event):
        return state, {}
    group, change = _begin(group, event, {})
    state, changes = state.with_group(group), {key: [change]}
    if parted and event.org is not None:
        key = roll_up_key(event)
        roll_up = state.groups.get(key) or Group(key, None, event.event, roll_up=True)
        roll_up, told = _begin(roll_up, rolled(event), {fingerprint(event): Part(event.org, shared)})
        state, changes = state.with_group(roll_up), changes | {key: [told]}
    return state, changes


def unknown(state: State, event: Event) -> Reason:
    """Why an event changed nothing: older than what is known, or the end of what nobody knows."""
    group: Group | None = state.groups.get(group_key(event))
    if not event.resolved:
        return Reason.STALE
    return Reason.STALE if group and any(a.firing for a in _meant(group, event)) else Reason.UNTOLD


def _begin(group: Group, event: Event, parts: Mapping[str, Part]) -> tuple[Group, Change]:
    mark = fingerprint(event)
    old = group.alerts.get(mark)
    if old is None or not old.firing:
        alert = Alert(mark, event, event.severity, event.at, event.at, parts=dict(parts))
    else:
        alert = replace(
            old,
            event=event if event.at >= old.last_at else old.event,
            severity=max(old.severity, event.severity, key=lambda severity: severity.rank),
            first_at=min(old.first_at, event.at),
            last_at=max(old.last_at, event.at),
            count=old.count + 1,
            parts={**old.parts, **parts} if parts else old.parts,
        )
    return _with(group, [alert]), Change(mark, event.id, event.at, resolved=False)


def _end(state: State, event: Event) -> tuple[State, dict[str, list[Change]]]:
    key = group_key(event)
    group: Group | None = state.groups.get(key)
    ended = [alert for alert in _meant(group, event) if alert.firing] if group else []
    ended = [alert for alert in ended if event.at >= alert.last_at]
    if not group or not ended:
        return state, {}
    over = [replace(alert, firing=False, recovery=event, acked=None, acked_by="") for alert in ended]
    state = state.with_group(_with(group, over))
    changes = {key: [Change(alert.fingerprint, event.id, event.at, resolved=True) for alert in ended]}
    for roll_up in sorted({roll_up_key(alert.event) for alert in ended}):
        if parent := state.groups.get(roll_up):
            parent, told = _part(parent, {alert.fingerprint for alert in ended}, event)
            state = state.with_group(parent)
            if told:
                changes[roll_up] = told
    return state, changes


def _part(group: Group, ended: set[str], event: Event) -> tuple[Group, list[Change]]:
    """The roll-up without these problems; it is over where no organisation has one left."""
    changed, changes = [], []
    for known in group.alerts.values():
        alert = known
        if not alert.firing or ended.isdisjoint(alert.parts):
            continue
        over = {mark: replace(part, over=True) for mark, part in alert.parts.items() if mark in ended}
        alert = replace(alert, parts={**alert.parts, **over})
        if all(part.over for part in alert.parts.values()):
            alert = replace(alert, firing=False, recovery=rolled(event), acked=None, acked_by="")
            changes.append(Change(alert.fingerprint, event.id, event.at, resolved=True))
        changed.append(alert)
    return _with(group, changed), changes


def _meant(group: Group, event: Event) -> list[Alert]:
    """The problems that a recovery is about: its own, or all of its group where it names no cause."""
    if event.event in NOTICES:
        return []
    if event.cause:
        alert = group.alerts.get(fingerprint(event))
        return [alert] if alert else []
    same = (a for a in group.alerts.values() if event.provider in (None, a.event.provider))
    return sorted(same, key=lambda alert: alert.fingerprint)


def _stale(alert: Alert | None, event: Event) -> bool:
    """A problem from before its own recovery does not begin it again."""
    return bool(alert and alert.recovery and not alert.firing and event.at < alert.recovery.at)


def _with(group: Group, alerts: Iterable[Alert]) -> Group:
    return replace(group, alerts={**group.alerts, **{alert.fingerprint: alert for alert in alerts}})

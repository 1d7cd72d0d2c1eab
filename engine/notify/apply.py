"""What decisions do to the state: the same while deciding and when the state is rebuilt from its history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from engine.notify.inputs import Ack, Delivered, Failed, Input, Silence, Unsilence
from engine.notify.register import register
from engine.notify.shelf import Shelf
from engine.notify.state import COUNTED, Alert, Counted, Flight, Group, Held, Lane, State, Told
from engine.notify.types import NOTICES, Decision, Event, Reason

#: How long an event's id is known, how many of them are, and how long a problem is that is over, or goes on.
SEEN, SEEN_MOST = timedelta(days=1), 200_000
KEPT_OVER, KEPT_FIRING = timedelta(days=8), timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Entry:
    """One step as it goes on record: what came in when, and what was decided.

    `parted` and `shared` say how a new problem counts into the operator's roll-up; see `register`.
    """

    at: datetime
    input: Input
    decisions: tuple[Decision, ...] = ()
    parted: bool = False
    shared: bool = False


def apply(state: State, entry: Entry) -> State:
    """The state after a step. Knows no configuration, so that changing it does not rewrite the past."""
    state = took(state, entry)
    for decision in entry.decisions:
        if decision.channel_id and (group := state.groups.get(decision.group)):
            state = _decided(state, group, decision, entry.at)
    return state


def rebuild(entries: Iterable[Entry]) -> State:
    """The state that these steps led to, in the order in which they were decided."""
    state = State()
    for entry in entries:
        state = apply(state, entry)
    return state


def took(state: State, entry: Entry) -> State:
    """The state with the input in it, before anything is decided about it."""
    match entry.input:
        case Event() as event:
            if event.id in state.seen:
                return state
            state = replace(state, seen=state.seen.put(event.id, entry.at))
            return register(state, event, parted=entry.parted, shared=entry.shared)[0]
        case Ack(mark, by):
            return _acknowledged(state, mark, by)
        case Silence() as silence:
            return replace(state, silences={**state.silences, silence.id: silence})
        case Unsilence(name):
            return replace(state, silences={k: v for k, v in state.silences.items() if k != name})
        case Delivered(message_id):
            return replace(state, flights=state.flights.drop(message_id))
        case Failed(message_id):
            flight: Flight | None = state.flights.get(message_id)
            return _untold(state, flight) if flight else state
    return state


def forget(state: State, now: datetime) -> State:
    """Without what can no longer matter: old events' ids, ended silences, problems that are long over."""
    recent = sorted(((at, event) for event, at in state.seen.items() if at >= now - SEEN), reverse=True)
    if len(recent[:SEEN_MOST]) < len(state.seen):
        state = replace(state, seen=Shelf({event: at for at, event in recent[:SEEN_MOST]}))
    flying = {(flight.group, mark) for flight in state.flights.values() for mark in flight.settles}
    for key, group in list(state.groups.items()):
        old = {
            mark
            for mark, alert in group.alerts.items()
            if (key, mark) not in flying and _past(group, alert, now)
        }
        if old == group.alerts.keys():
            state = replace(state, groups=state.groups.drop(key))
        elif old:
            lanes = {name: _cleared(lane, old) for name, lane in group.lanes.items()}
            state = state.with_group(replace(group, alerts=_without(group.alerts, old), lanes=lanes))
    lasting = {name: silence for name, silence in state.silences.items() if silence.until > now}
    return replace(state, silences=lasting)


def _past(group: Group, alert: Alert, now: datetime) -> bool:
    mark = alert.fingerprint
    if any(mark in lane.held for lane in group.lanes.values()):
        return False
    over = not alert.firing or group.event in NOTICES
    told = [lane.told[mark].at for lane in group.lanes.values() if mark in lane.told]
    latest = max([alert.last_at, *told, *([alert.recovery.at] if alert.recovery else [])])
    return latest < now - (KEPT_OVER if over else KEPT_FIRING)


def _cleared(lane: Lane, old: set[str]) -> Lane:
    return replace(lane, told=_without(lane.told, old), counted=_without(lane.counted, old))


def _without[V](items: Mapping[str, V], keys: set[str]) -> Mapping[str, V]:
    return {key: value for key, value in items.items() if key not in keys}


def _acknowledged(state: State, mark: str, by: str) -> State:
    for group, alert in state.find(mark):
        if alert.firing:
            alerts = {**group.alerts, mark: replace(alert, acked=alert.severity, acked_by=by)}
            state = state.with_group(replace(group, alerts=alerts))
    return state


def _decided(state: State, group: Group, decision: Decision, at: datetime) -> State:
    lane = group.lane(decision.channel_id)
    if decision.message:
        flight = _flight(group, lane, decision, at)
        state = replace(state, flights=state.flights.put(flight.message_id, flight))
        lane = _sent(lane, flight, at)
    elif decision.action == "hold":
        lane = _held(group, lane, decision)
    else:
        lane = _suppressed(lane, decision)
    return state.with_group(replace(group, lanes={**group.lanes, decision.channel_id: lane}))


def _flight(group: Group, lane: Lane, decision: Decision, at: datetime) -> Flight:
    alerts = [group.alerts[mark] for mark in decision.settles]
    return Flight(
        decision.message.id if decision.message else "",
        group.key,
        decision.channel_id,
        decision.settles,
        told={alert.fingerprint: _telling(lane, alert, at) for alert in alerts},
        before={mark: lane.told[mark] for mark in decision.settles if mark in lane.told},
        counted={mark: lane.counted[mark] for mark in decision.settles if mark in lane.counted},
        first_at=decision.first_at,
        last_at=decision.last_at,
    )


def _telling(lane: Lane, alert: Alert, at: datetime) -> Told:
    if alert.firing:
        return Told(at, alert.severity)
    # The end of a problem opens no window: how long it may not come back counts from its beginning.
    return replace(lane.told[alert.fingerprint], resolved=True)


def _sent(lane: Lane, flight: Flight, at: datetime) -> Lane:
    marks = set(flight.settles)
    return Lane(
        told={**lane.told, **flight.told},
        held=_without(lane.held, marks),
        counted=_without(lane.counted, marks),
        sent=lane.sent + 1,
        sent_at=at,
    )


def _held(group: Group, lane: Lane, decision: Decision) -> Lane:
    mark, ids = decision.fingerprint, decision.event_ids
    held = Held(
        ids,
        decision.reason,
        decision.not_before or decision.last_at,
        decision.first_at,
        decision.last_at,
        resolved=not group.alerts[mark].firing,
    )
    return replace(lane, held={**lane.held, mark: held})


def _suppressed(lane: Lane, decision: Decision) -> Lane:
    mark, ids = decision.fingerprint, decision.event_ids
    held = lane.held.get(mark)
    if held and held.event_ids == ids:
        lane = replace(lane, held=_without(lane.held, {mark}))
    if decision.reason in COUNTED and ids:
        more = Counted(len(ids), decision.first_at, decision.last_at).plus(lane.counted.get(mark))
        lane = replace(lane, counted={**lane.counted, mark: more})
    if decision.reason is Reason.NOT_WANTED and mark in lane.told:
        # Not to be told of the end is no reason to take the next beginning for the same problem.
        lane = replace(lane, told={**lane.told, mark: replace(lane.told[mark], resolved=True)})
    return lane


def _untold(state: State, flight: Flight) -> State:
    """Without the flight and what it told, unless something was told since."""
    state = replace(state, flights=state.flights.drop(flight.message_id))
    group: Group | None = state.groups.get(flight.group)
    if group is None:
        return state
    lane = group.lane(flight.channel_id)
    told, counted = dict(lane.told), dict(lane.counted)
    for mark, mine in flight.told.items():
        if mark in told and told[mark].at == mine.at:
            del told[mark]
            told |= {mark: flight.before[mark]} if mark in flight.before else {}
        if mark in flight.counted:
            counted[mark] = flight.counted[mark].plus(counted.get(mark))
    lane = replace(lane, told=told, counted=counted)
    return state.with_group(replace(group, lanes={**group.lanes, flight.channel_id: lane}))

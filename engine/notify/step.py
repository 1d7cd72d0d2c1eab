"""The rules of notifications: (state, what came in, policies, now) to (state, decisions). No I/O, no clock.

Whoever keeps the state calls `advance`, writes the entry down (reserve), applies it and sends the messages in
it; what became of each comes back in as `Delivered` or `Failed`. After a crash `rebuild` makes the state of
the entries again, and `State.flights` are the messages whose fate nobody knows: they are sent again as they
are, under the same id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from engine.notify.apply import Entry, apply, took
from engine.notify.decide import Desk
from engine.notify.gate import Now
from engine.notify.inputs import Failed, Input, Tick
from engine.notify.policy import Policies, Route, Rule
from engine.notify.register import Change, group_key, register, unknown
from engine.notify.state import Flight, Group, Held, State
from engine.notify.types import Decision, Event, EventName, Reason, fingerprint

#: How long a message that a channel did not take waits at least.
FAILED_WAIT = timedelta(minutes=5)


def step(state: State, given: Input, policies: Policies, now: datetime) -> tuple[State, tuple[Decision, ...]]:
    """The state after the input, and what is to be done about each event on each of its channels."""
    entry = advance(state, given, policies, now)
    return apply(state, entry), entry.decisions


def advance(state: State, given: Input, policies: Policies, now: datetime) -> Entry:
    """The step as an entry that `apply` carries out, so that it can be put on record first."""
    moment = Now(now, tuple(state.silences.values()), state.flights, policies.roll_up, policies.run_link)
    match given:
        case Event() as event:
            return _event(state, event, policies, moment)
        case Tick():
            return Entry(now, given, tuple(_tick(state, policies, moment)))
        case Failed():
            return Entry(now, given, tuple(_failed(state, given, policies, moment)))
    return Entry(now, given)


def _event(state: State, event: Event, policies: Policies, now: Now) -> Entry:
    if event.id in state.seen:
        return Entry(now.at, event, (_nowhere(event, Reason.DUPLICATE),))
    rule = policies.of(event.org).rule(event.event)
    parted, shared = _parted(event, rule, policies)
    after, changes = register(state, event, parted=parted, shared=shared)
    if not changes:
        return Entry(now.at, event, (_nowhere(event, unknown(state, event)),), parted, shared)
    decisions: list[Decision] = []
    for key, changed in changes.items():
        group: Group = after.groups[key]
        covered = _covered(event.event, policies) if parted or event.resolved else frozenset()
        decisions += _group(group, changed, event, policies, now, frozenset() if group.roll_up else covered)
    return Entry(now.at, event, tuple(decisions) or (_nowhere(event, Reason.NO_CHANNEL),), parted, shared)


def _group(
    group: Group,
    changes: Sequence[Change],
    event: Event,
    policies: Policies,
    now: Now,
    covered: frozenset[str],
) -> list[Decision]:
    """The decisions of one group: on the channels of its rule, and on those it has spoken on before."""
    rule = policies.of(group.org).rule(group.event)
    routes = _routes(rule, event)
    decisions: list[Decision] = []
    for route in routes:
        desk = Desk(group, route.channel_id, group.lane(route.channel_id), route, rule, now)
        rolled = [c for c in changes if route.shared and _rolled(group, route, c, covered)]
        decisions += [_dropped(group, route.channel_id, change, Reason.ROLLED_UP) for change in rolled]
        decisions += desk.changed([change for change in changes if change not in rolled])
    named = {route.channel_id for route in routes}
    gone = sorted(set(group.lanes) - named)
    for change in changes:
        if change.resolved:
            for channel_id in gone:
                decisions += _ended_off(group, channel_id, change)
        if not routes and not (change.resolved and gone):
            reason = Reason.NO_CHANNEL if rule.enabled else Reason.DISABLED
            decisions.append(_dropped(group, "", change, reason))
    return decisions


def _routes(rule: Rule, event: Event) -> tuple[Route, ...]:
    """Where the event goes; that a channel fails is not told over the same channel."""
    if not rule.enabled:
        return ()
    failing = event.data.get("channel_id") if event.event is EventName.CHANNEL_FAILING else None
    return tuple(route for route in rule.routes if route.channel_id != failing)


def _parted(event: Event, rule: Rule, policies: Policies) -> tuple[bool, bool]:
    """Whether the event counts into a roll-up, and whether the operator alone hears of it."""
    if event.org is None or event.resolved or event.event not in policies.roll_up.events:
        return False, False
    covered = _covered(event.event, policies)
    shared = any(route.shared and route.channel_id in covered for route in _routes(rule, event))
    return bool(covered) and (shared or event.provider is not None), shared


def _covered(event: EventName, policies: Policies) -> frozenset[str]:
    """The channels on which the operator's roll-up of this event is told."""
    if event not in policies.roll_up.events:
        return frozenset()
    rule = policies.operator.rule(event)
    return frozenset(route.channel_id for route in rule.routes) if rule.enabled else frozenset()


def _rolled(group: Group, route: Route, change: Change, covered: frozenset[str]) -> bool:
    """Whether the operator's roll-up tells it; a lane that was told of the problem itself hears its end."""
    lane = group.lane(route.channel_id)
    known = change.fingerprint in lane.told or change.fingerprint in lane.held
    return route.channel_id in covered and not (change.resolved and known)


def _tick(state: State, policies: Policies, now: Now) -> Iterable[Decision]:
    for key in sorted(state.groups):
        group: Group = state.groups[key]
        rule = policies.of(group.org).rule(group.event)
        for channel_id, lane in group.lanes.items():
            if not rule.repeat and not any(held.not_before <= now.at for held in lane.held.values()):
                continue
            if route := rule.route(channel_id):
                yield from Desk(group, channel_id, lane, route, rule, now).due()
                continue
            reason = Reason.NO_CHANNEL if rule.enabled else Reason.DISABLED
            for mark, held in sorted(lane.held.items()):
                if held.not_before <= now.at:
                    yield _of_held(group, channel_id, mark, held, reason)


def _failed(state: State, failed: Failed, policies: Policies, now: Now) -> Iterable[Decision]:
    """What becomes of each problem of a message that was not taken: it waits, unless it is over by now."""
    flight: Flight | None = state.flights.get(failed.message_id)
    group: Group | None = took(state, Entry(now.at, failed)).groups.get(flight.group) if flight else None
    if not flight or not group:
        return
    lane = group.lane(flight.channel_id)
    cooldown = policies.of(group.org).rule(group.event).cooldown
    retry_at = failed.retry_at or now.at + max(cooldown, FAILED_WAIT)
    for mark, ids in flight.settles.items():
        alert, mine = group.alerts[mark], flight.told[mark]
        held = lane.held.get(mark)
        waiting = Held(ids, Reason.CHANNEL_FAILED, retry_at, flight.first_at, flight.last_at)
        told = lane.told.get(mark)
        if told and told.at > mine.at:
            yield _of_held(group, flight.channel_id, mark, waiting, Reason.JOINED)
        elif mine.resolved is alert.firing:
            over = Reason.REFIRED if alert.firing else Reason.RECOVERED
            yield _of_held(group, flight.channel_id, mark, waiting, over)
        else:
            merged = replace(waiting, event_ids=ids + (held.event_ids if held else ()))
            decision = _of_held(group, flight.channel_id, mark, merged, Reason.CHANNEL_FAILED)
            yield replace(decision, action="hold", not_before=retry_at)


def _ended_off(group: Group, channel_id: str, change: Change) -> Iterable[Decision]:
    """The end of a problem on a channel that its event does not go to any more."""
    lane, mark = group.lane(channel_id), change.fingerprint
    if held := lane.held.get(mark):
        yield _of_held(group, channel_id, mark, held, Reason.RECOVERED)
    known = mark in lane.told and not lane.told[mark].resolved
    yield _dropped(group, channel_id, change, Reason.NOT_WANTED if known else Reason.UNTOLD)


def _of_held(group: Group, channel_id: str, mark: str, held: Held, reason: Reason) -> Decision:
    settles, first, last = {mark: held.event_ids}, held.first_at, held.last_at
    return Decision(group.key, mark, group.org, channel_id, "suppress", reason, settles, first, last)


def _dropped(group: Group, channel_id: str, change: Change, reason: Reason) -> Decision:
    mark, settles = change.fingerprint, {change.fingerprint: (change.event_id,)}
    return Decision(group.key, mark, group.org, channel_id, "suppress", reason, settles, change.at, change.at)


def _nowhere(event: Event, reason: Reason) -> Decision:
    """An event that comes to no channel at all."""
    mark, settles = fingerprint(event), {fingerprint(event): (event.id,)}
    key = group_key(event)
    return Decision(key, mark, event.org, "", "suppress", reason, settles, event.at, event.at)

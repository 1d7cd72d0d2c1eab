"""The rules of notifications under any order of events, time, people, failing channels and crashes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.notify.apply import Entry, apply, forget, rebuild
from engine.notify.codec import decode_entry, decode_state, encode_entry, encode_state
from engine.notify.inputs import Ack, Delivered, Failed, Input, Silence, Tick
from engine.notify.policy import OFF, Policies, Policy, QuietHours, RollUp, Route, Rule
from engine.notify.state import COUNTED, Alert, Flight, Group, State, Told
from engine.notify.step import advance
from engine.notify.types import Decision, Event, EventName, Reason, Severity, fingerprint

START = datetime(2026, 11, 24, 20, tzinfo=UTC)
LASTING = (EventName.PIPELINE_FAILURE, EventName.QUOTA_NEAR_END)
ORGS = ("acme", "globex")
often = st.sampled_from([True, True, True, True, True, False])


@st.composite
def policy(draw: st.DrawFn, org: str | None) -> Policy:
    """A policy; the organisation's own channels are named after it, the operator's are shared."""
    quiet = draw(st.sampled_from([None, None, QuietHours(time(22), time(6), passes=Severity.CRITICAL)]))
    own = org is None or draw(often)
    names = [f"{org or 'root'}/email" if own else "root/email", "root/slack"]
    routes = tuple(
        Route(
            name,
            shared=org is not None and name.startswith("root"),
            minimum=Severity.INFO if draw(often) else Severity.ERROR,
            quiet=quiet,
            send_resolved=draw(often),
        )
        for name in names[: draw(st.sampled_from([1, 1, 2, 2, 2, 0]))]
    )
    rule = Rule(
        enabled=draw(often),
        routes=routes,
        cooldown=timedelta(seconds=draw(st.sampled_from([300, 300, 60, 0]))),
        repeat=draw(st.sampled_from([None, timedelta(hours=1)])),
        wait=timedelta(seconds=draw(st.sampled_from([0, 5]))),
        interval=timedelta(seconds=draw(st.sampled_from([0, 60]))),
    )
    return Policy(dict.fromkeys((*LASTING, EventName.PIPELINE_SUCCESS), rule))


everybody = st.builds(
    lambda operator, orgs, few, wait: Policies(
        operator,
        orgs=dict(zip(ORGS, orgs, strict=True)),
        roll_up=RollUp(frozenset({EventName.PIPELINE_FAILURE}), few, timedelta(seconds=wait)),
    ),
    policy(None),
    st.tuples(*[policy(org) for org in ORGS]),
    st.integers(1, 3),
    st.sampled_from([0, 30]),
)
happening = st.builds(
    lambda org, event, pipeline, cause, severity, resolved: Event(
        "", org, event, severity, "title", "message", cause, START, pipeline, "openai", resolved=resolved
    ),
    st.sampled_from(["acme", "acme", "acme", "globex", None]),
    st.sampled_from(
        [EventName.PIPELINE_FAILURE] * 3 + [EventName.QUOTA_NEAR_END, EventName.PIPELINE_SUCCESS]
    ),
    st.sampled_from(["openai/usage", "openai/usage", "openai/cost"]),
    st.sampled_from(["transient", "transient", "data"]),
    st.sampled_from([Severity.ERROR, Severity.ERROR, Severity.WARNING, Severity.CRITICAL]),
    st.booleans(),
)
words = ["tick", "tick", "all over", "deliver", "deliver", "fail", "fail", "ack", "silence", "crash", "again"]
words += ["change", "same", "same"]
passing = st.sampled_from([1, 5, 60, 60, 240, 3600, 30_000]).map(lambda seconds: timedelta(seconds=seconds))
acts = st.lists(
    happening | happening | happening | st.sampled_from(words) | passing, min_size=15, max_size=40
)


class World:
    """Drives the rules as the actor does, and keeps a book of its own of all that was decided."""

    def __init__(self, policies: Policies) -> None:
        self.policies, self.now, self.state = policies, START, State()
        self.entries: list[Entry] = []
        self.events: dict[str, Event] = {}
        self.decisions: list[Decision] = []
        self.lasting: dict[str, Event] = {}
        self.sent: dict[str, Flight] = {}
        self.rules: dict[str, Rule] = {}
        self.undelivered: dict[str, Decision] = {}
        self.failed: set[str] = set()
        self.muted = self.changed = False

    def give(self, given: Input) -> tuple[Decision, ...]:
        entry = advance(self.state, given, self.policies, self.now)
        self.state = apply(self.state, entry)
        self.entries.append(entry)
        self.decisions += entry.decisions
        for decision in entry.decisions:
            assert (decision.message is not None) == (decision.action == "send")
            assert (decision.not_before is not None) == (decision.action == "hold")
            if decision.message:
                assert decision.message.id not in self.sent, "two messages have one id"
                self.undelivered[decision.message.id] = decision
                self.sent[decision.message.id] = self.state.flights[decision.message.id]
                self.rules[decision.message.id] = self.policies.of(decision.org).rule(self.event_of(decision))
                self._is_allowed(decision)
        return entry.decisions

    def _is_allowed(self, decision: Decision) -> None:
        """Nothing mild is sent at all, nor at night."""
        route = self.policies.of(decision.org).rule(self.event_of(decision)).route(decision.channel_id)
        assert route, "sent where nobody wants it"
        for told in self.sent[decision.message.id].told.values():
            night = not 6 <= self.now.hour < 22
            assert told.resolved or told.severity >= route.minimum
            assert not (route.quiet and night) or told.severity >= route.quiet.passes or told.resolved

    def event_of(self, decision: Decision) -> EventName:
        return self.state.groups[decision.group].event

    def happen(self, event: Event) -> None:
        event = replace(event, id=f"e{len(self.events)}", at=self.now)
        self.events[event.id] = event
        if not event.resolved:
            self.lasting[fingerprint(event)] = event
        elif event.event is not EventName.PIPELINE_SUCCESS:
            over = [mark for mark, known in self.lasting.items() if ends(event, known)]
            self.lasting = {mark: known for mark, known in self.lasting.items() if mark not in over}
        decisions = self.give(event)
        assert decisions, "an event without a decision"
        assert all(
            event.id in d.event_ids or d.reason in (Reason.RECOVERED, Reason.REFIRED) for d in decisions
        )

    def do(self, what: object) -> None:
        if isinstance(what, Event):
            self.happen(what)
        elif isinstance(what, timedelta):
            self.now += what
        elif what in ("deliver", "fail"):
            self.answer(failed=what == "fail")
        elif what in ("ack", "silence"):
            self.mute(acknowledge=what == "ack")
        elif what == "tick":
            self.give(Tick())
        elif what == "change":
            # The operator's settings for everybody: what was told and held on other channels is not.
            self.policies = replace(self.policies, orgs={}, default=self.policies.operator)
            self.changed = True
        elif what in ("same", "all over"):
            for event in [event for event in self.events.values() if not event.resolved][-1:]:
                self.happen(event if what == "same" else replace(event, cause="", resolved=True))
        elif what == "crash":
            self.state = rebuild(self.entries)
        elif what == "again":
            for event in self.events.values():
                (decision,) = self.give(event)
                assert decision.reason is Reason.DUPLICATE

    def answer(self, *, failed: bool) -> None:
        for message_id in list(self.undelivered)[:1]:
            del self.undelivered[message_id]
            self.failed |= {message_id} if failed else set()
            self.give(Failed(message_id) if failed else Delivered(message_id))

    def mute(self, *, acknowledge: bool) -> None:
        self.muted = True
        for event in list(self.events.values())[-1:]:
            if acknowledge:
                self.give(Ack(fingerprint(event), "ada"))
            else:
                until = self.now + timedelta(minutes=10)
                self.give(Silence(f"s{len(self.entries)}", {"cause": event.cause or "*"}, until, "ada"))

    def settle(self) -> None:
        """Let every silence, night and cooldown pass, with channels that work."""
        for _ in range(8):
            for message_id in list(self.undelivered):
                del self.undelivered[message_id]
                self.give(Delivered(message_id))
            self.now += timedelta(hours=5)
            self.give(Tick())
        for message_id in list(self.undelivered):
            self.give(Delivered(message_id))

    def told(self) -> dict[tuple[str, str], list[tuple[datetime, Told, Decision]]]:
        """What each channel was told of each problem, and when, but for messages that failed."""
        found = defaultdict(list)
        for entry in self.entries:
            for decision in entry.decisions:
                if decision.message and decision.message.id not in self.failed:
                    for mark, told in self.sent[decision.message.id].told.items():
                        found[mark, decision.channel_id].append((entry.at, told, decision))
        return found


def ends(event: Event, known: Event) -> bool:
    """Whether a recovery is about a problem."""
    if event.cause:
        return fingerprint(event) == fingerprint(known)
    same = (event.org, event.event, event.pipeline_id) == (known.org, known.event, known.pipeline_id)
    return same and event.provider in (None, known.provider)


def played(policies: Policies, what: list[object]) -> World:
    world = World(policies)
    for each in what:
        world.do(each)
    return world


@given(everybody, acts)
@settings(max_examples=100, deadline=None)
def test_nothing_is_lost(policies: Policies, what: list[object]) -> None:
    """Every event ends sent or suppressed on every channel; every one that is to be counted is counted."""
    world = played(policies, what)
    world.settle()
    last: dict[tuple[str, str, str, str], str] = {}
    for decision in world.decisions:
        for mark, ids in decision.settles.items():
            for event_id in ids:
                last[event_id, mark, decision.group, decision.channel_id] = decision.action
    assert {event_id for event_id, *_ in last} == set(world.events)
    assert set(last.values()) <= {"send", "suppress"}
    assert not world.state.flights
    waiting = [lane.held for group in world.state.groups.values() for lane in group.lanes.values()]
    assert not any(waiting)
    counted = sum(
        len(decision.event_ids)
        for decision in world.decisions
        if decision.action == "suppress" and decision.reason in COUNTED and decision.channel_id
    )
    told = sum(
        decision.suppressed_count
        for decision in world.decisions
        if decision.message and decision.message.id not in world.failed
    )
    left = sum(
        each.events
        for group in world.state.groups.values()
        for lane in group.lanes.values()
        for each in lane.counted.values()
    )
    assert counted == told + left


@given(everybody, acts)
@settings(max_examples=100, deadline=None)
def test_no_more_than_one_message_in_a_window(policies: Policies, what: list[object]) -> None:
    """The beginning of a problem is told once in a cooldown, on each channel, unless it got worse."""
    world = played(policies, what)
    for told in world.told().values():
        for (_, last, _), (at, next_, decision) in pairwise(told):
            rule = world.rules[decision.message.id] if decision.message else OFF
            worse = next_.severity > last.severity and not last.resolved
            assert next_.resolved or worse or at - last.at >= rule.cooldown


@given(everybody, acts)
@settings(max_examples=100, deadline=None)
def test_beginning_and_end_are_told_in_turns(policies: Policies, what: list[object]) -> None:
    """Who was told of a beginning is told of its end once, and nobody else; what lasts has been told."""
    world = played(policies, what)
    world.settle()
    heard = world.told()
    for told in heard.values():
        said = [last.resolved for _, last, _ in told]
        assert not said[0], "an end is the first thing that is told"
        assert (True, True) not in list(pairwise(said)), "an end is told twice"
    # What was told on a channel that is gone cannot be told to be over.
    for group in world.state.groups.values() if not world.changed else ():
        rule = policies.of(group.org).rule(group.event)
        for alert in group.alerts.values():
            assert group.roll_up or alert.firing == (alert.fingerprint in world.lasting)
            for route in rule.routes if rule.enabled else ():
                told = heard.get((alert.fingerprint, route.channel_id))
                if alert.firing and expected(world, group, alert, route):
                    assert told, "a beginning is never told"
                    assert not told[-1][1].resolved, "the last that was told is wrong"
                elif not alert.firing and told and route.send_resolved:
                    assert told[-1][1].resolved, "an end is never told"


def expected(world: World, group: Group, alert: Alert, route: Route) -> bool:
    """Whether what lasts should have been told in the end."""
    if world.muted or alert.severity < route.minimum:
        return False
    if group.roll_up:
        few = len(alert.organisations) < world.policies.roll_up.organisations
        return not few or any(part.shared for part in alert.parts.values())
    operators = world.policies.operator.rule(group.event).route(route.channel_id)
    return not (route.shared and operators and group.event in world.policies.roll_up.events)


@given(everybody, acts, st.randoms())
@settings(max_examples=40, deadline=None)
def test_a_second_delivery_in_any_order_changes_nothing(
    policies: Policies, what: list[object], rand: Random
) -> None:
    world = played(policies, what)
    again = list(world.events.values())
    rand.shuffle(again)
    before = world.state
    for event in again:
        (decision,) = world.give(event)
        assert decision.reason is Reason.DUPLICATE
    assert world.state == before


@given(everybody, acts)
@settings(max_examples=40, deadline=None)
def test_the_state_is_what_its_entries_say(policies: Policies, what: list[object]) -> None:
    world = played(policies, what)
    assert rebuild(decode_entry(encode_entry(entry)) for entry in world.entries) == world.state
    assert decode_state(encode_state(world.state)) == world.state
    later = forget(world.state, world.now + timedelta(days=200))
    held = [group for group in later.groups.values() if any(lane.held for lane in group.lanes.values())]
    flying = {flight.group for flight in later.flights.values()}
    assert set(later.groups) == {group.key for group in held} | flying
    assert not later.seen
    assert not later.silences

"""Whatever happens in whatever order, a run keeps its promises and comes to an end."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.flow import (
    AskSlots,
    Begin,
    CancelRequested,
    CancelUnit,
    EndRun,
    Event,
    Finished,
    Granted,
    Note,
    ReleaseSlots,
    RetryDue,
    RetryLater,
    RunState,
    StartUnit,
    UnitState,
    begin,
    step,
)
from engine.errors import ConfigurationError, CredentialError, InternalError, TransientError
from engine.types import Outcome, Unit

TERMINAL = {UnitState.PUBLISHED, UnitState.FAILED, UnitState.QUARANTINED, UnitState.CANCELLED}
UNITS = [Unit("acme", "openai/cost/usage_cost", (date(2025, 12, day),)) for day in range(1, 10)]
KEYS = st.sampled_from([str(unit) for unit in UNITS] + ["nobody"])
ENDINGS = st.sampled_from(
    [
        ("published", None),
        ("cancelled", None),
        ("failed", None),
        ("failed", ConfigurationError("wrong")),
        ("failed", CredentialError("revoked")),
        ("failed", InternalError("a bug")),
        ("failed", TransientError("away")),
        ("failed", TransientError("busy", retry_after=timedelta(hours=1))),
    ]
)


class Run(RuleBasedStateMachine):
    """A run between a coordinator that may tell twice or late, and attempts that may answer twice."""

    @initialize(count=st.integers(0, 9), window=st.integers(1, 4), max_attempts=st.integers(1, 3))
    def start(self, count: int, window: int, max_attempts: int) -> None:
        self.units = {str(unit): unit for unit in UNITS[:count]}
        self.state = begin(self.units.values(), window=window, max_attempts=max_attempts)
        self.queued: set[str] = set()  # asked for, as the coordinator sees it
        self.held: set[str] = set()  # slots that this run has, told of or not
        self.untold: list[str] = []
        self.crossed: set[str] = set()  # released while the grant was under way
        self.running: dict[str, int] = {}
        self.waiting: set[str] = set()
        self.attempts: dict[str, int] = {}
        self.ends: dict[str, UnitState] = {}
        self.unlucky: set[str] = set()
        self.told: list[Finished] = []
        self.ended: RunState | None = None
        self.cancelled = False

    def happens(self, event: Event, jitter: float = 1.0) -> None:
        was_ended = self.ended is not None
        actions = step(self.state, event, jitter=jitter)
        if was_ended:
            assert all(isinstance(action, ReleaseSlots) for action in actions)
        assert all(not isinstance(action, EndRun) for action in actions[:-1])
        for action in actions:
            self.carry_out(action)

    def carry_out(self, action: object) -> None:
        match action:
            case AskSlots(units):
                for key, unit in units:
                    self.asked(key, unit)
            case StartUnit(key, unit, attempt):
                self.started(key, unit, attempt)
            case ReleaseSlots(keys):
                for key in keys:
                    self.given_back(key)
            case RetryLater(key, delay):
                assert delay >= timedelta(0)
                assert key in self.unlucky
                assert self.attempts[key] < self.state.max_attempts
                self.waiting.add(key)
            case CancelUnit(key, _):
                assert self.cancelled
                assert key in self.running
            case Note():
                self.noted(action)
            case EndRun(state):
                assert self.ended is None
                self.ended = state

    def asked(self, key: str, unit: Unit) -> None:
        assert not self.cancelled
        assert self.units[key] == unit
        assert key not in self.queued | self.held | self.ends.keys()
        self.waiting.discard(key)
        self.queued.add(key)

    def started(self, key: str, unit: Unit, attempt: int) -> None:
        assert self.units[key] == unit
        assert key in self.held
        assert key not in self.running
        assert key not in self.ends
        assert attempt == self.attempts.get(key, 0) + 1 <= self.state.max_attempts
        self.attempts[key] = self.running[key] = attempt

    def noted(self, note: Note) -> None:
        assert str(note.unit) not in self.ends
        assert note.before not in TERMINAL
        if isinstance(note.error, ConfigurationError):
            assert note.after in (UnitState.FAILED, UnitState.CANCELLED)
        if note.after in TERMINAL:
            self.ends[str(note.unit)] = note.after
            self.waiting.discard(str(note.unit))

    def given_back(self, key: str) -> None:
        assert key not in self.running
        if key in self.held:
            self.held.remove(key)
            if key in self.untold:
                self.crossed.add(key)
            return
        # Only a cancel gives back what it does not hold: the grant may be on its way.
        assert self.cancelled
        assert key in self.queued | self.crossed

    @rule()
    def begins(self) -> None:
        self.happens(Begin())

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def coordinator_grants(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.queued)))
        self.queued.remove(key)
        self.held.add(key)
        self.untold.append(key)

    @precondition(lambda self: self.untold)
    @rule()
    def grants_arrive(self) -> None:
        keys, self.untold = tuple(self.untold), []
        self.happens(Granted(keys))

    @rule(key=KEYS)
    def a_grant_is_told_out_of_turn(self, key: str) -> None:
        if key in self.queued or key in self.untold:
            return
        self.held.add(key)
        self.happens(Granted((key, key) if key in self.running else (key,)))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), ending=ENDINGS, jitter=st.floats(0, 1))
    def an_attempt_ends(self, data: st.DataObject, ending: tuple, jitter: float) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        status, error = ending
        if status != "published":
            self.unlucky.add(key)
        event = Finished(key, Outcome(self.units[key], self.running.pop(key), status, error=error))
        self.told.append(event)
        self.happens(event, jitter)

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def an_outcome_is_told_again(self, data: st.DataObject) -> None:
        counts = dict(self.state.counts)
        self.happens(data.draw(st.sampled_from(self.told)))
        assert self.state.counts == counts

    @rule(key=KEYS)
    def an_alarm_rings(self, key: str) -> None:
        self.happens(RetryDue(key))

    @rule()
    def somebody_cancels(self) -> None:
        self.cancelled = self.cancelled or self.ended is None
        self.happens(CancelRequested())

    @invariant()
    def every_unit_is_somewhere(self) -> None:
        state = self.state
        assert sum(state.counts.values()) + len(state.live) + len(state.pending) == len(self.units)
        assert set(state.counts) <= TERMINAL
        runs = {key for key, live in state.live.items() if live.state is UnitState.RUNNING}
        assert set(self.running) == runs
        assert self.running.keys() <= self.held

    @invariant()
    def the_window_is_kept(self) -> None:
        waits = [live for live in self.state.live.values() if live.state is UnitState.WAITING]
        assert len(waits) == self.state.waiting
        assert len(self.state.live) - len(waits) <= self.state.window

    @invariant()
    def an_ended_run_is_complete(self) -> None:
        if self.ended is None:
            return
        published = self.state.counts.get(UnitState.PUBLISHED, 0)
        assert self.ended is self.state.run
        assert sum(self.state.counts.values()) == len(self.units)
        assert (self.ended is RunState.SUCCESS) == (published == len(self.units))

    def teardown(self) -> None:
        """From anywhere a run ends once everything that was begun is answered, and it keeps no slot."""
        if not hasattr(self, "state"):
            return
        self.begins()
        for _ in range(4 * len(UNITS)):
            self.untold += sorted(self.queued)
            self.held |= self.queued
            self.queued.clear()
            self.grants_arrive()
            for key, attempt in sorted(self.running.items()):
                del self.running[key]
                self.happens(Finished(key, Outcome(self.units[key], attempt, "published")))
            for key in sorted(self.waiting):
                self.happens(RetryDue(key))
        assert self.ended is not None
        assert self.held == set()
        self.an_ended_run_is_complete()
        if not self.cancelled:
            lucky = self.units.keys() - self.unlucky
            assert all(self.ends[key] is UnitState.PUBLISHED for key in lucky)


TestRun = Run.TestCase
TestRun.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

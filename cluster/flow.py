"""A run as a state machine without I/O: `step(state, event)` changes the state and answers with actions.

Units go PENDING -> ASKED -> RUNNING -> PUBLISHED, or after a failure worth another try -> WAITING -> ASKED
again, or -> FAILED (nothing will help) or QUARANTINED (attempts used up). The driver carries actions out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Literal

from engine.errors import ConfigurationError, MantaError, TransientError
from engine.types import Outcome, Unit


class UnitState(StrEnum):
    """Where a unit stands."""

    PENDING = "PENDING"
    ASKED = "ASKED"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    PUBLISHED = "PUBLISHED"
    FAILED = "FAILED"
    QUARANTINED = "QUARANTINED"
    CANCELLED = "CANCELLED"


class RunState(StrEnum):
    """Where a run stands; the last four are terminal."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCESS = "SUCCESS"
    PARTIAL = "PARTIAL"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def terminal(self) -> bool:
        """No event changes a terminal state."""
        return self in (RunState.SUCCESS, RunState.PARTIAL, RunState.FAILED, RunState.CANCELLED)


# Events: what happened.
@dataclass(frozen=True, slots=True)
class Begin:
    """The driver starts."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The coordinator gave slots for these unit keys."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """A unit's attempt ended."""

    key: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The wait before another attempt is over."""

    key: str


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody cancelled the run."""


Event = Begin | Granted | Finished | RetryDue | CancelRequested


# Actions: what the driver has to do.
@dataclass(frozen=True, slots=True)
class AskSlots:
    """Ask the coordinator for slots."""

    units: tuple[tuple[str, Unit], ...]


@dataclass(frozen=True, slots=True)
class StartUnit:
    """Start an attempt; its slot is held."""

    key: str
    unit: Unit
    attempt: int


@dataclass(frozen=True, slots=True)
class ReleaseSlots:
    """Give slots back."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Deliver RetryDue(key) after `delay`."""

    key: str
    delay: timedelta


@dataclass(frozen=True, slots=True)
class CancelUnit:
    """Stop a running attempt: soft, then by force."""

    key: str
    unit: Unit


@dataclass(frozen=True, slots=True)
class Note:
    """Put a transition on record."""

    unit: Unit
    attempt: int
    before: UnitState
    after: UnitState
    error: MantaError | None = None


@dataclass(frozen=True, slots=True)
class EndRun:
    """Nothing is left to do."""

    state: Literal[RunState.SUCCESS, RunState.PARTIAL, RunState.FAILED, RunState.CANCELLED]


Action = AskSlots | StartUnit | ReleaseSlots | RetryLater | CancelUnit | Note | EndRun


@dataclass(slots=True)
class _Live:
    unit: Unit
    state: UnitState
    attempt: int = 0


@dataclass(slots=True)
class FlowState:
    """A run in progress. Only units that are neither pending nor ended are held one by one."""

    pending: deque[Unit]
    window: int
    max_attempts: int
    base_delay: timedelta = timedelta(seconds=2)
    max_delay: timedelta = timedelta(minutes=2)
    run: RunState = RunState.PENDING
    live: dict[str, _Live] = field(default_factory=dict)
    total: int = 0
    waiting: int = 0
    # Waiting units whose wait is over, in that order; they still need room in the window.
    due: dict[str, None] = field(default_factory=dict)
    counts: dict[UnitState, int] = field(default_factory=dict)


def begin(
    units: Iterable[Unit], *, window: int, max_attempts: int, base_delay: timedelta = timedelta(seconds=2)
) -> FlowState:
    """The state before `Begin`; `window` bounds the units that are asked for or running at once."""
    pending = deque(units)
    return FlowState(
        pending=pending,
        window=window,
        max_attempts=max_attempts,
        base_delay=base_delay,
        total=len(pending),
    )


def step(state: FlowState, event: Event, *, jitter: float = 1.0) -> list[Action]:
    """Apply an event and say what to do.

    `jitter` in [0, 1] scales the wait before another attempt (full jitter). Events that no longer fit are
    ignored: a cancel may overtake a start, and an outcome may follow a cancel.
    """
    if state.run.terminal:
        return [ReleaseSlots(event.keys)] if isinstance(event, Granted) else []
    actions: list[Action] = []
    match event:
        case Begin():
            state.run = RunState.RUNNING if state.run is RunState.PENDING else state.run
        case Granted(keys):
            actions += _granted(state, keys)
        case Finished(key, outcome):
            actions += _finished(state, key, outcome, jitter)
        case RetryDue(key):
            _retry_due(state, key)
        case CancelRequested():
            actions += _cancel(state)
    if state.run is RunState.RUNNING:
        actions += _refill(state)
    if not state.live and not state.pending:
        state.run = _ending(state)
        actions.append(EndRun(state.run))
    return actions


def _refill(state: FlowState) -> list[Action]:
    asked: list[tuple[str, Unit]] = []
    # A unit that waits for its next attempt takes no place: one slow provider must not stop the others.
    while len(state.live) - state.waiting < state.window:
        if state.due:
            key = next(iter(state.due))
            del state.due[key]
            state.waiting -= 1
            state.live[key].state = UnitState.ASKED
        elif state.pending:
            unit = state.pending.popleft()
            key = str(unit)
            state.live[key] = _Live(unit, UnitState.ASKED)
        else:
            break
        asked.append((key, state.live[key].unit))
    return [AskSlots(tuple(asked))] if asked else []


def _granted(state: FlowState, keys: tuple[str, ...]) -> list[Action]:
    actions: list[Action] = []
    unused: list[str] = []
    for key in keys:
        live = state.live.get(key)
        if live is not None and live.state is UnitState.RUNNING:
            # Told twice: giving it back would take the slot from under the attempt.
            continue
        if live is None or live.state is not UnitState.ASKED:
            unused.append(key)
            continue
        live.attempt += 1
        actions.append(Note(live.unit, live.attempt, live.state, UnitState.RUNNING))
        live.state = UnitState.RUNNING
        actions.append(StartUnit(key, live.unit, live.attempt))
    return actions + ([ReleaseSlots(tuple(unused))] if unused else [])


def _finished(state: FlowState, key: str, outcome: Outcome, jitter: float) -> list[Action]:
    live = state.live.get(key)
    if live is None or live.state is not UnitState.RUNNING or outcome.attempt != live.attempt:
        return []
    actions: list[Action] = [ReleaseSlots((key,))]
    after = _after(state, live, outcome)
    actions.append(Note(live.unit, live.attempt, live.state, after, outcome.error))
    if after is UnitState.WAITING:
        live.state = after
        state.waiting += 1
        actions.append(RetryLater(key, _delay(state, live, outcome, jitter)))
        return actions
    _end(state, key, after)
    return actions


def _after(state: FlowState, live: _Live, outcome: Outcome) -> UnitState:
    if outcome.status == "published":
        return UnitState.PUBLISHED
    if state.run is RunState.CANCELLING or outcome.status == "cancelled":
        return UnitState.CANCELLED
    if isinstance(outcome.error, ConfigurationError):
        return UnitState.FAILED
    return UnitState.WAITING if live.attempt < state.max_attempts else UnitState.QUARANTINED


def _delay(state: FlowState, live: _Live, outcome: Outcome, jitter: float) -> timedelta:
    drawn: timedelta = min(state.max_delay, state.base_delay * 2 ** (live.attempt - 1)) * jitter
    wanted = outcome.error.retry_after if isinstance(outcome.error, TransientError) else None
    return drawn if wanted is None else max(drawn, wanted)


def _retry_due(state: FlowState, key: str) -> None:
    live = state.live.get(key)
    if live is not None and live.state is UnitState.WAITING:
        state.due[key] = None


def _cancel(state: FlowState) -> list[Action]:
    if state.run is RunState.CANCELLING:
        return []
    state.run = RunState.CANCELLING
    state.counts[UnitState.CANCELLED] = state.counts.get(UnitState.CANCELLED, 0) + len(state.pending)
    state.pending.clear()
    actions: list[Action] = []
    for key, live in list(state.live.items()):
        if live.state is UnitState.RUNNING:
            actions.append(CancelUnit(key, live.unit))
            continue
        actions.append(Note(live.unit, live.attempt, live.state, UnitState.CANCELLED))
        if live.state is UnitState.ASKED:
            actions.append(ReleaseSlots((key,)))
        _end(state, key, UnitState.CANCELLED)
    return actions


def _end(state: FlowState, key: str, after: UnitState) -> None:
    if state.live.pop(key).state is UnitState.WAITING:
        state.waiting -= 1
        state.due.pop(key, None)
    state.counts[after] = state.counts.get(after, 0) + 1


def _ending(
    state: FlowState,
) -> Literal[RunState.SUCCESS, RunState.PARTIAL, RunState.FAILED, RunState.CANCELLED]:
    if state.run is RunState.CANCELLING and state.counts.get(UnitState.CANCELLED, 0):
        return RunState.CANCELLED
    published = state.counts.get(UnitState.PUBLISHED, 0)
    # Not only failures count: a task that was cancelled in Ray's dashboard has published nothing either.
    if published == state.total:
        return RunState.SUCCESS
    return RunState.PARTIAL if published else RunState.FAILED

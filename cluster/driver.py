"""Carries a run out: feeds what happens into `flow.step` and does what it answers, for every way in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from cluster import flow
from cluster.slots import Ask
from engine.errors import InternalError, TransientError
from engine.runs import Run, Transition
from engine.types import Outcome, Plan, Unit


@dataclass(frozen=True, slots=True)
class Tempo:
    """How a run is driven; times in seconds.

    `force_after_s` lies between the soft and the hard stop of an attempt, `flush_s` between two calls of
    `record`.
    """

    # Twice the slots keeps every slot busy (facts/ray.md 4); more would only fill the queue.
    window: int = 64
    max_attempts: int = 3
    base_delay_s: float = 2.0
    force_after_s: float = 3.0
    flush_s: float = 1.0


class Attempt(Protocol):
    """A running attempt at a unit."""

    async def outcome(self) -> Outcome:
        """How it ended; never raises."""

    def cancel(self, *, force: bool) -> None:
        """Stop it."""


class SlotSource(Protocol):
    """The coordinator, as a driver sees it."""

    async def ask(self, asks: Sequence[Ask]) -> None: ...
    async def granted(self) -> list[str]: ...
    async def release(self, keys: Sequence[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Doors:
    """What a driver needs of the outside. `record` is called with what is new about once a second.

    `settle` ends the load jobs that stopped units of this unit's organisation and pipeline left open; it is
    called once, when all of them have stopped. TransientErrors of `record` and `settle` are waited out.
    """

    slots: SlotSource
    start: Callable[[Unit, int], Attempt]
    settle: Callable[[Unit], Awaitable[None]]
    record: Callable[[Run, Sequence[Transition], Sequence[Outcome]], Awaitable[None]]
    now: Callable[[], datetime]
    rand: Callable[[], float]


class Drive:
    """One run under way. `run` is its present state, for whoever follows it."""

    def __init__(
        self,
        run: Run,
        plan: Plan,
        doors: Doors,
        *,
        priority: int = 0,
        position: int = 0,
        tempo: Tempo = Tempo(),
    ) -> None:
        self.run = replace(run, plan_id=plan.id, tally=replace(run.tally, units_total=len(plan.units)))
        self.running: dict[str, Unit] = {}
        self._doors = doors
        self._priority = priority
        self._tempo = tempo
        self._state = flow.begin(
            plan.units,
            window=tempo.window,
            max_attempts=tempo.max_attempts,
            base_delay=timedelta(seconds=tempo.base_delay_s),
        )
        # An exception among the events is a helper task that broke: nothing may die unheard.
        self._events: asyncio.Queue[flow.Event | BaseException] = asyncio.Queue()
        self._attempts: dict[str, tuple[Attempt, asyncio.Task[None]]] = {}
        self._started: Unit | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._helpers: set[asyncio.Task[None]] = set()
        self._transitions: list[Transition] = []
        self._outcomes: list[Outcome] = []
        self._position = position

    def cancel(self) -> None:
        """Ask the run to stop."""
        self._events.put_nowait(flow.CancelRequested())

    async def finish(self) -> Run:
        """Drive to the end and return the run in its terminal state.

        Raises what a door raises, but for what it waits out; the attempts under way are then stopped.
        """
        self._events.put_nowait(flow.Begin())
        self._spawn(self._listen(), self._helpers)
        self._spawn(self._flush_regularly(), self._helpers)
        try:
            while not self._state.run.terminal:
                await self._advance()
            await asyncio.gather(*self._tasks)
        finally:
            for attempt, _ in self._attempts.values():
                attempt.cancel(force=False)
            leftover = [*self._helpers, *self._tasks]
            for task in leftover:
                task.cancel()
            await asyncio.gather(*leftover, return_exceptions=True)
        if self._state.run is flow.RunState.CANCELLED and self._started is not None:
            await self._patiently(self._doors.settle, self._started)
        await self._patiently(self._flush)
        self.run = replace(self.run, status=self._state.run.value)
        return self.run

    async def _advance(self) -> None:
        """Take in everything that has happened; what goes to the coordinator goes there once."""
        events = [await self._events.get()]
        while not self._events.empty():
            events.append(self._events.get_nowait())
        asks: list[Ask] = []
        released: list[str] = []
        for event in events:
            if isinstance(event, BaseException):
                raise event
            for action in flow.step(self._state, event, jitter=self._doors.rand()):
                match action:
                    case flow.AskSlots(units):
                        asks += [self._ask(key, unit) for key, unit in units]
                    case flow.ReleaseSlots(keys):
                        released += [self._slot(key) for key in keys]
                    case _:
                        self._do(action)
        # Released first: a unit that is asked for again has the same key.
        if released:
            await self._doors.slots.release(released)
        if asks:
            await self._doors.slots.ask(asks)
        self._follow()

    def _follow(self) -> None:
        counts = self._state.counts
        failed = counts.get(flow.UnitState.FAILED, 0) + counts.get(flow.UnitState.QUARANTINED, 0)
        # A terminal state is told by `finish`, when everything is settled and on record.
        status = self.run.status if self._state.run.terminal else self._state.run.value
        self.run = replace(self.run, status=status, tally=replace(self.run.tally, units_failed=failed))

    def _do(self, action: flow.Action) -> None:
        match action:
            case flow.StartUnit(key, unit, attempt):
                started = self._doors.start(unit, attempt)
                answer = self._spawn(self._await_outcome(key, unit, attempt, started), self._tasks)
                self._attempts[key] = started, answer
                self.running[key] = self._started = unit
            case flow.RetryLater(key, delay):
                self._spawn(self._retry(key, delay.total_seconds()), self._helpers)
            case flow.CancelUnit(key):
                self._spawn(self._stop(key), self._tasks)
            case flow.Note():
                self._note(action)
            case _:
                pass

    def _slot(self, key: str) -> str:
        return f"{self.run.id}|{key}"

    def _ask(self, key: str, unit: Unit) -> Ask:
        return Ask(self._slot(key), unit.org, unit.pipeline, unit.days, self._priority)

    def _spawn(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        def ended(task: asyncio.Task[None]) -> None:
            among.discard(task)
            if not task.cancelled() and (error := task.exception()):
                self._events.put_nowait(error)

        task = asyncio.create_task(work)
        among.add(task)
        task.add_done_callback(ended)
        return task

    async def _listen(self) -> None:
        prefix = len(self.run.id) + 1
        while True:
            keys = await self._doors.slots.granted()
            if keys:
                self._events.put_nowait(flow.Granted(tuple(key[prefix:] for key in keys)))

    async def _await_outcome(self, key: str, unit: Unit, number: int, attempt: Attempt) -> None:
        try:
            outcome = await attempt.outcome()
        except Exception as error:  # noqa: BLE001 - an answer that cannot even be read must not stop the others
            unread = InternalError(f"{unit}: its answer cannot be read: {type(error).__name__}: {error}")
            outcome = Outcome(unit=unit, attempt=number, status="failed", error=unread)
        del self._attempts[key], self.running[key]
        self._outcomes.append(outcome)
        self.run = replace(self.run, tally=self.run.tally.add(outcome))
        self._events.put_nowait(flow.Finished(key, outcome))

    async def _retry(self, key: str, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        self._events.put_nowait(flow.RetryDue(key))

    async def _stop(self, key: str) -> None:
        if key not in self._attempts:
            return
        attempt, answer = self._attempts[key]
        attempt.cancel(force=False)
        _, silent = await asyncio.wait({answer}, timeout=self._tempo.force_after_s)
        if silent:
            # A blocking call does not hear the soft cancel.
            attempt.cancel(force=True)

    async def _patiently[*Args](self, call: Callable[[*Args], Awaitable[None]], *args: *Args) -> None:
        """Call until the warehouse is there: without it a run cannot be ended on record either."""
        while True:
            try:
                return await call(*args)
            except TransientError:
                await asyncio.sleep(self._tempo.flush_s)

    def _note(self, note: flow.Note) -> None:
        self._position += 1
        if note.error and note.after in (flow.UnitState.FAILED, flow.UnitState.QUARANTINED):
            first = f"{note.unit}: {note.error}"
            self.run = replace(
                self.run,
                error_code=self.run.error_code or note.error.code,
                error_message=self.run.error_message or first,
            )
        self._transitions.append(
            Transition(
                unit=note.unit,
                position=self._position,
                attempt=note.attempt,
                before=note.before.value,
                after=note.after.value,
                at=self._doors.now(),
                error_code=note.error.code if note.error else None,
                error_message=str(note.error) if note.error else None,
            )
        )

    async def _flush_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._tempo.flush_s)
            await self._patiently(self._flush)

    async def _flush(self) -> None:
        transitions, self._transitions = self._transitions, []
        outcomes, self._outcomes = self._outcomes, []
        if not transitions and not outcomes:
            return
        try:
            await self._doors.record(self.run, transitions, outcomes)
        except BaseException:
            # Nothing is lost while the warehouse is away: the next flush brings it.
            self._transitions[:0], self._outcomes[:0] = transitions, outcomes
            raise

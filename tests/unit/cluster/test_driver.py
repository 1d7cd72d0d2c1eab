"""A run driven on a real event loop, with small doors that keep what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import pytest

from cluster.driver import Doors, Drive, Tempo
from cluster.slots import Ask, Slots
from engine.errors import ConfigurationError, InternalError, MantaError, TransientError
from engine.runs import Run, Transition
from engine.types import Outcome, Partition, Plan, Publication, RunRequest, Unit

DAY_ONE = date(2025, 12, 1)
AWAY = TransientError("The provider is away.")
TEMPO = Tempo(base_delay_s=0.002, force_after_s=0.02, flush_s=0.005)
Answer = Callable[[Unit, int], Awaitable[Outcome]]


def unit(n: int) -> Unit:
    return Unit("acme", "openai/cost/usage_cost", (DAY_ONE + timedelta(days=n),))


def run() -> Run:
    request = RunRequest("acme", "openai/cost/usage_cost", DAY_ONE, DAY_ONE)
    return Run(
        "r-1", request, "key", "acme-x", "PENDING", 1, 1, "cli", "me", datetime(2025, 12, 9, tzinfo=UTC)
    )


def plan(count: int) -> Plan:
    return Plan("plan-1", run().request, tuple(unit(n) for n in range(count)), {}, frozenset(), 0, 0)


async def publish(what: Unit, attempt: int) -> Outcome:
    partition = Partition(what.org, "t", what.days[0])
    return Outcome(
        what, attempt, "published", (Publication(partition, 1, "v1:0", 5, f"job-{what}", "loaded"),)
    )


def failing(error: MantaError, *, times: int = 99) -> Answer:
    async def answer(what: Unit, attempt: int) -> Outcome:
        if attempt > times:
            return await publish(what, attempt)
        return Outcome(what, attempt, "failed", error=error)

    return answer


class LocalSlots:
    """The coordinator's own bookkeeping, without an actor around it."""

    def __init__(self, capacity: int) -> None:
        self.pool = Slots(capacity, lease_s=60)
        self.most_held = 0
        self._given: list[str] = []
        self._woken = asyncio.Event()

    async def ask(self, asks: Sequence[Ask]) -> None:
        self.pool.ask("r-1", asks)
        self._deal()

    async def granted(self) -> list[str]:
        await self._woken.wait()
        self._woken.clear()
        given, self._given = self._given, []
        return given

    async def release(self, keys: Sequence[str]) -> None:
        self.pool.release(keys)
        self._deal()

    def _deal(self) -> None:
        given = [key for _, key in self.pool.grant(0)]
        self.most_held = max(self.most_held, self.pool.held)
        if given:
            self._given += given
            self._woken.set()


class LocalAttempt:
    """An attempt as a task of this loop; `deaf` to the soft cancel as a blocking call is."""

    def __init__(self, what: Unit, number: int, answer: Answer, *, deaf: bool) -> None:
        self._what, self._number, self._deaf = what, number, deaf
        self._work = asyncio.ensure_future(answer(what, number))
        self.cancels: list[bool] = []

    async def outcome(self) -> Outcome:
        await asyncio.wait({self._work})
        if self._work.cancelled():
            return Outcome(self._what, self._number, "cancelled")
        return self._work.result()

    def cancel(self, *, force: bool) -> None:
        self.cancels.append(force)
        if force or not self._deaf:
            self._work.cancel()


@dataclass
class World:
    """Everything outside of a driver; `answers` by day number, `deaf` days ignore the soft cancel."""

    answers: dict[int, Answer] = field(default_factory=dict)
    deaf: frozenset[int] = frozenset()
    capacity: int = 2
    records_fail: int = 0
    settles_fail: int = 0
    starts: list[tuple[Unit, int]] = field(default_factory=list)
    attempts: list[LocalAttempt] = field(default_factory=list)
    settled: list[Unit] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    busy: asyncio.Event = field(default_factory=asyncio.Event)

    def drive(self, count: int, *, tempo: Tempo = TEMPO) -> Drive:
        self.slots = LocalSlots(self.capacity)
        now = datetime(2025, 12, 9, tzinfo=UTC)
        doors = Doors(self.slots, self.start, self.settle, self.record, lambda: now, lambda: 1.0)
        return Drive(run(), plan(count), doors, tempo=tempo)

    def start(self, what: Unit, attempt: int) -> LocalAttempt:
        n = (what.days[0] - DAY_ONE).days
        self.starts.append((what, attempt))
        begun = LocalAttempt(what, attempt, self.answers.get(n, publish), deaf=n in self.deaf)
        self.attempts.append(begun)
        self.started.set()
        if len(self.attempts) == self.capacity:
            self.busy.set()
        return begun

    async def settle(self, what: Unit) -> None:
        if self.settles_fail:
            self.settles_fail -= 1
            raise TransientError("The warehouse is away.")
        self.settled.append(what)

    async def record(self, of: Run, transitions: Sequence[Transition], outcomes: Sequence[Outcome]) -> None:
        if self.records_fail:
            self.records_fail -= 1
            raise TransientError("The warehouse is away.")
        self.transitions += transitions
        self.outcomes += outcomes

    def story(self, n: int) -> list[str]:
        return [t.after for t in self.transitions if t.unit == unit(n)]


async def forever(what: Unit, attempt: int) -> Outcome:
    await asyncio.Event().wait()
    return await publish(what, attempt)


async def test_every_unit_is_published_within_the_slots():
    world = World(capacity=2)
    ended = await world.drive(7).finish()
    assert ended.status == "SUCCESS"
    assert ended.plan_id == "plan-1"
    assert world.slots.most_held == 2
    assert (world.slots.pool.held, world.slots.pool.waiting) == (0, 0)
    tally = ended.tally
    assert (tally.units_total, tally.units_published, tally.units_failed) == (7, 7, 0)
    assert (tally.row_count, tally.load_jobs, tally.partitions_loaded) == (35, 7, 7)
    assert [world.story(n) for n in range(7)] == [["RUNNING", "PUBLISHED"]] * 7
    assert [t.position for t in world.transitions] == list(range(1, 15))
    assert len(world.outcomes) == 7


async def test_a_plan_without_units_is_a_success():
    world = World()
    assert (await world.drive(0).finish()).status == "SUCCESS"
    assert world.transitions == []


async def test_attempts_are_repeated_then_the_unit_is_quarantined_and_the_rest_published():
    world = World({1: failing(AWAY), 2: failing(InternalError("a bug"), times=1)})
    ended = await world.drive(4).finish()
    assert ended.status == "PARTIAL"
    assert world.story(1) == ["RUNNING", "WAITING", "RUNNING", "WAITING", "RUNNING", "QUARANTINED"]
    assert world.story(2) == ["RUNNING", "WAITING", "RUNNING", "PUBLISHED"]
    assert [attempt for what, attempt in world.starts if what == unit(1)] == [1, 2, 3]
    assert (ended.tally.units_published, ended.tally.units_failed) == (3, 1)
    assert ended.error_code == "transient"
    assert ended.error_message == f"{unit(1)}: The provider is away."


async def test_a_configuration_error_is_not_tried_again():
    world = World({0: failing(ConfigurationError("The key is revoked."))})
    ended = await world.drive(1).finish()
    assert (ended.status, ended.error_code) == ("FAILED", "configuration")
    assert world.starts == [(unit(0), 1)]
    assert world.story(0) == ["RUNNING", "FAILED"]


async def test_an_answer_that_cannot_be_read_stops_nobody_else():
    async def unreadable(what: Unit, attempt: int) -> Outcome:
        raise AttributeError("no such class")

    world = World({0: unreadable})
    ended = await world.drive(2).finish()
    assert ended.status == "PARTIAL"
    assert world.story(0)[-1] == "QUARANTINED"
    assert ended.error_code == "internal"
    assert "no such class" in (ended.error_message or "")


async def test_cancel_stops_softly_then_by_force_and_settles_once():
    world = World({0: forever, 1: forever}, deaf=frozenset({1}))
    drive = world.drive(5)
    finishing = asyncio.create_task(drive.finish())
    await world.busy.wait()
    drive.cancel()
    drive.cancel()
    ended = await finishing
    assert ended.status == "CANCELLED"
    assert [attempt.cancels for attempt in world.attempts] == [[False], [False, True]]
    assert len(world.settled) == 1
    assert len(world.starts) == 2
    assert world.story(0) == world.story(1) == ["RUNNING", "CANCELLED"]
    assert world.slots.pool.held == 0
    assert drive.running == {}


async def test_a_run_is_not_cancelled_before_its_load_jobs_are_settled():
    world = World({0: forever}, settles_fail=3)
    drive = world.drive(1)
    seen: list[str] = []
    settle = world.settle

    async def watched(what: Unit) -> None:
        seen.append(drive.run.status)
        await settle(what)

    world.settle = watched
    drive = world.drive(1)
    finishing = asyncio.create_task(drive.finish())
    await world.started.wait()
    drive.cancel()
    assert (await finishing).status == "CANCELLED"
    assert seen == ["CANCELLING"] * 4
    assert world.settled == [unit(0)]


async def test_a_cancel_that_overtakes_the_start_ends_the_run_with_nothing_started():
    world = World()
    drive = world.drive(3)
    drive.cancel()
    assert (await drive.finish()).status == "CANCELLED"
    assert (world.starts, world.settled) == ([], [])


async def test_a_unit_that_wins_against_the_cancel_is_counted():
    async def deaf_winner(what: Unit, attempt: int) -> Outcome:
        await asyncio.sleep(0.01)
        return await publish(what, attempt)

    world = World({0: deaf_winner, 1: forever}, deaf=frozenset({0}))
    drive = world.drive(2, tempo=Tempo(force_after_s=1, flush_s=0.005))
    finishing = asyncio.create_task(drive.finish())
    await world.busy.wait()
    drive.cancel()
    ended = await finishing
    assert ended.status == "CANCELLED"
    assert ended.tally.units_published == 1
    assert (world.story(0)[-1], world.story(1)[-1]) == ("PUBLISHED", "CANCELLED")


@pytest.mark.parametrize("times", [1, 5])
async def test_a_warehouse_that_is_away_loses_nothing_and_keeps_the_order(times: int):
    async def slow(what: Unit, attempt: int) -> Outcome:
        await asyncio.sleep(0.008)
        return await publish(what, attempt)

    world = World(dict.fromkeys(range(6), slow), records_fail=times)
    ended = await world.drive(6).finish()
    assert ended.status == "SUCCESS"
    assert world.records_fail == 0
    assert [t.position for t in world.transitions] == list(range(1, 13))
    assert sorted(str(o.unit) for o in world.outcomes) == sorted(str(unit(n)) for n in range(6))


async def test_a_warehouse_that_is_away_at_the_very_end_is_waited_for():
    world = World(records_fail=3)
    ended = await world.drive(1, tempo=Tempo(flush_s=0.01)).finish()
    assert ended.status == "SUCCESS"
    assert world.story(0) == ["RUNNING", "PUBLISHED"]


async def test_a_record_that_is_refused_ends_the_drive_and_its_attempts():
    world = World({0: forever})

    async def refuse(*_: object) -> None:
        raise ConfigurationError("No right to write.")

    world.record = refuse
    with pytest.raises(ConfigurationError, match="No right"):
        await world.drive(1).finish()
    assert world.attempts[0].cancels == [False]


async def test_a_coordinator_that_breaks_ends_the_drive():
    world = World({0: forever})
    drive = world.drive(1)

    async def broken() -> list[str]:
        raise ConnectionError("The actor is gone.")

    world.slots.granted = broken
    with pytest.raises(ConnectionError, match="gone"):
        await drive.finish()


async def test_a_driver_keeps_counts_and_nothing_of_single_units():
    world = World({1: failing(AWAY)}, capacity=4)
    drive = world.drive(200)
    await drive.finish()
    kept = {name: value for name, value in vars(drive).items() if hasattr(value, "__len__")}
    assert {"running", "_attempts", "_tasks", "_helpers", "_transitions", "_outcomes"} <= kept.keys()
    assert [name for name, value in kept.items() if len(value)] == []
    state = drive._state
    assert (len(state.live), len(state.pending), len(state.due), state.waiting) == (0, 0, 0, 0)
    assert sum(state.counts.values()) == 200

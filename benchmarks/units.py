"""What a unit costs on top of Ray: 1,000 units driven as a run does it, against 1,000 bare Ray tasks.

    python -m benchmarks.units [--units 1000] [--many 10000] [--repeat 3] [--quick]

Both sides run the same trivial task in the same local Ray (2 CPUs), one after the other, `--repeat` times.
Bare: at most 64 tasks in flight, bounded by `ray.wait`. Driven: `cluster.driver.Drive` with the product's
`RayAttempt` and with the coordinator's own slot bookkeeping in an actor (its warehouse left out), so every
unit is asked for, granted, started, awaited, put on record and released. Then runs of `--many` units show
what the driver's process keeps: resident memory after a garbage collection, on the way and at the end, once
with all tasks under one name and once with a name per unit. The process runs as the supervisor does, without
Ray's metric series per task name; with `RAY_enable_metrics_collection=1` it shows what they cost.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import os
import pstats
import random
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import ray

from cluster.coordinator import LEASE_S, SLOTS_PER_CPU, SPARE_SLOTS, Coordinator
from cluster.driver import Doors, Drive, Tempo
from cluster.ray_attempt import RayAttempt
from cluster.slots import Ask, Slots
from cluster.supervisor import WITHOUT_TASK_SERIES
from engine.runs import Run, Transition
from engine.types import Outcome, Plan, RunRequest, Unit

CPUS = 2
IN_FLIGHT = Tempo().window
UNIT_CPUS = 0.25
FIRST_DAY = date(1990, 1, 1)
PIPELINE = "openai/cost/usage_cost"


class SlotActor(Coordinator):
    """The coordinator without its warehouse: slots, leases and waking drivers are the product's code."""

    def __init__(self, capacity: int) -> None:
        self._slots = Slots(capacity, lease_s=LEASE_S)
        self._granted: dict[str, list[str]] = defaultdict(list)
        self._woken: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._epoch = uuid.uuid4().hex


class SlotDoor:
    """The actor, as a driver sees it."""

    def __init__(self, actor: Any, driver: str) -> None:
        self._actor, self._driver = actor, driver

    async def ask(self, asks: Sequence[Ask]) -> None:
        await self._actor.ask.remote(self._driver, asks)

    async def granted(self) -> list[str]:
        _, keys = await self._actor.granted.remote(self._driver)
        return keys

    async def release(self, keys: Sequence[str]) -> None:
        await self._actor.release.remote(keys)


@ray.remote(max_retries=0, num_cpus=UNIT_CPUS)
def trivial(unit: Unit, attempt: int) -> Outcome:
    """A unit with nothing to do."""
    return Outcome(unit, attempt, "published")


def units(count: int) -> tuple[Unit, ...]:
    """One unit a day."""
    return tuple(Unit("acme", PIPELINE, (FIRST_DAY + timedelta(days=n),)) for n in range(count))


def bare(work: Sequence[Unit]) -> float:
    """Seconds for plain Ray tasks, a bounded number in flight."""
    started = time.perf_counter()
    flight: list[ray.ObjectRef] = []
    for unit in work:
        if len(flight) == IN_FLIGHT:
            done, flight = ray.wait(flight)
            ray.get(done)
        flight.append(trivial.remote(unit, 1))
    ray.get(flight)
    return time.perf_counter() - started


def driven(
    work: tuple[Unit, ...],
    actor: Any,
    watch: Callable[[int], None] = lambda done: None,
    name: Callable[[Unit], str] = str,
) -> float:
    """Seconds for the same work as a run; `watch` is told how many units have ended."""
    now = datetime.now(UTC)
    last = work[-1].days[0]
    request = RunRequest("acme", PIPELINE, FIRST_DAY, last)
    run_id = uuid.uuid4().hex[:16]
    run = Run(run_id, request, run_id, "acme-x", "PENDING", 1, 1, "cli", "bench", now)
    plan = Plan("plan", request, work, {}, frozenset(), 0, 0)
    ended = 0

    async def settle(unit: Unit) -> None:
        raise AssertionError(f"{unit} was not cancelled")

    async def record(of: Run, transitions: Sequence[Transition], outcomes: Sequence[Outcome]) -> None:
        nonlocal ended
        ended += len(outcomes)
        watch(ended)

    def start(unit: Unit, attempt: int) -> RayAttempt:
        return RayAttempt(trivial.options(name=name(unit)).remote(unit, attempt), unit, attempt)

    async def drive() -> None:
        doors = Doors(
            SlotDoor(actor, run.id), start, settle, record, lambda: datetime.now(UTC), random.random
        )
        finished = await Drive(run, plan, doors).finish()
        assert finished.status == "SUCCESS"
        assert finished.tally.units_published == ended == len(work)

    started = time.perf_counter()
    asyncio.run(drive())
    return time.perf_counter() - started


def resident_mb() -> float:
    """This process's resident memory after a garbage collection."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Run both sides and print what they took."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--units", type=int, default=1000)
    options.add_argument("--many", type=int, default=10_000)
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--quick", action="store_true", help="200 units, 1,000 for memory, once")
    options.add_argument("--profile", action="store_true", help="profile one driven run instead")
    given = options.parse_args()
    if not os.environ.keys() >= WITHOUT_TASK_SERIES.keys():
        # As the supervisor runs, and Ray reads this once, when it is imported.
        environ = {**os.environ, **WITHOUT_TASK_SERIES}
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.units", *sys.argv[1:]], environ)
    if given.quick:
        given.units, given.many, given.repeat = 200, 1000, 1
    given.units = min(given.units, given.many)
    ray.init(num_cpus=CPUS, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    try:
        actor = ray.remote(num_cpus=0, max_concurrency=1000)(SlotActor)
        slots = actor.remote(SLOTS_PER_CPU * CPUS + SPARE_SLOTS)
        # Workers start and import on first use; nobody's time is meant to hold that.
        bare(units(100))
        driven(units(100), slots)
        if given.profile:
            profile(given.units, slots)
        else:
            compare(given.units, given.repeat, slots)
            memory(given.units, given.many, slots)
    finally:
        ray.shutdown()


def compare(count: int, repeat: int, slots: Any) -> None:
    """Print the times of both sides, taken in turns."""
    work = units(count)
    pairs = [(bare(work), driven(work, slots)) for _ in range(repeat)]
    print(f"{count:,} units, {CPUS} CPUs of {os.cpu_count()}, load {os.getloadavg()[0]:.1f}, {repeat} times")
    print(f"{'':<8}{'median s':>10}{'fastest s':>11}{'units/s':>9}{'ms/unit':>9}")
    for name, seconds in zip(("bare", "driven"), zip(*pairs, strict=True), strict=True):
        middle = median(seconds)
        per_unit = f"{count / middle:>9,.0f}{1000 * middle / count:>9.2f}"
        print(f"{name:<8}{middle:>10.2f}{min(seconds):>11.2f}{per_unit}")
    ratio = median(driven_s / bare_s for bare_s, driven_s in pairs)
    print(f"driven / bare: {ratio:.2f} (goal: at most 5)")


def memory(early: int, many: int, slots: Any) -> None:
    """Print the resident memory of the driver's process in runs of `many` units."""
    work = units(many)
    print(f"\n{'task names':<12}{'units':>8}{'seconds':>9}{'MB early':>10}{'MB at end':>11}{'kB/unit':>9}")
    names: dict[str, Callable[[Unit], str]] = {"one": lambda unit: unit.pipeline, "by unit": str}
    for kind, name in names.items():
        seen: list[tuple[int, float]] = []

        def watch(ended: int, seen: list[tuple[int, float]] = seen) -> None:
            if ended >= (early if not seen else many):
                seen.append((ended, resident_mb()))

        seconds = driven(work, slots, watch, name)
        (first, before), (last, after) = seen[0], seen[-1]
        grown = 1000 * (after - before) / max(1, last - first)
        print(f"{kind:<12}{many:>8,}{seconds:>9.1f}{before:>10.1f}{after:>11.1f}{grown:>9.2f}")
    print(f"early: when {early:,} units had ended. Goal: flat.")
    print("Again: python -m benchmarks units")


def profile(count: int, slots: Any) -> None:
    """Print where the driver's process spends its time."""
    profiler = cProfile.Profile()
    profiler.runcall(driven, units(count), slots)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()

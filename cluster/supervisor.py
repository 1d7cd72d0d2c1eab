"""The detached actor that runs live in: neither a terminal nor a web process takes them with it.

It keeps nothing that the warehouse lacks: a new incarnation reads the runs that have not ended and drives
them on, each under its own id; what they had published is skipped.
"""

from __future__ import annotations

import asyncio
import random
import sys
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

import ray
from ray import exceptions as ray_errors
from ray.actor import ActorHandle

from cluster.connect import standing
from cluster.coordinator import coordinator
from cluster.driver import Doors, Drive
from cluster.flow import RunState
from cluster.ray_attempt import RayAttempt, mapped
from cluster.slots import Ask
from cluster.tasks import StageOutcome, StageTask, UnitTask, stage_task, unit_task
from engine.audit import Audit
from engine.errors import InternalError, MantaError, NotFoundError, StateError, TransientError
from engine.log import JsonLog
from engine.plan import days_between
from engine.runs import Progress, Run, Transition
from engine.settings import Settings
from engine.settle import settle
from engine.types import Discovery, Outcome, Plan, RunRequest, Unit
from engine.workplace import open_workplace

NAME = "manta-supervisor"
ENDED_KEPT = 200
AWAY_S = 1.0
#: Attempts at what a run does once, before and after its units.
STAGE_ATTEMPTS = 3
#: A run on record is handed over within milliseconds; a cancel that is quicker asks this often for it.
TAKEN_WITHIN, HANDED_S = 50, 0.1
#: What a drive knows of its run when it ends.
DRIVEN = ("status", "tally", "plan_id", "error_code", "error_message")
# Ray keeps metric series for every task name in the process that submits it, 16 kB a unit and for ever
# (benchmarks/README.md): names stay readable in the dashboard, the series go.
WITHOUT_TASK_SERIES = {"RAY_enable_metrics_collection": "0"}


class _Slots:
    """The coordinator, for one driver; asks again when a new incarnation has forgotten."""

    def __init__(self, actor: Any, driver: str) -> None:
        self._actor = actor
        self._driver = driver
        self._epoch: str | None = None
        self._open: dict[str, Ask] = {}

    async def ask(self, asks: Sequence[Ask]) -> None:
        if self._epoch is None:
            self._epoch = await self._actor.join.remote(self._driver)
        self._open.update({ask.key: ask for ask in asks})
        await self._actor.ask.remote(self._driver, asks)

    async def granted(self) -> list[str]:
        epoch, keys = await self._actor.granted.remote(self._driver)
        for key in keys:
            self._open.pop(key, None)
        if self._epoch not in (None, epoch):
            self._epoch = epoch
            await self._actor.ask.remote(self._driver, list(self._open.values()))
        return list(keys)

    async def release(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._open.pop(key, None)
        await self._actor.release.remote(keys)


class _Carried:
    """One run in hand. `run` is its latest row but for what its drive has counted since."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.drive: Drive | None = None
        self.discovery: Discovery | None = None
        self.cancelled = run.status == RunState.CANCELLING.value
        self.lock = asyncio.Lock()

    @property
    def seen(self) -> Run:
        """The run as it stands now."""
        return self.run if self.drive is None or self.run.terminal else self.drive.run

    def cancel(self) -> None:
        """Stop it, or never start it."""
        self.cancelled = True
        if self.drive is not None:
            self.drive.cancel()


class Supervisor:
    """See the module; every public method is an actor call."""

    def __init__(self, settings: Settings) -> None:
        self._work = open_workplace(settings)
        self._coordinator: Any = coordinator(settings)
        self._log = JsonLog(sys.stdout.write, now=lambda: datetime.now(UTC))
        self._carried: dict[str, _Carried] = {}
        self._ended: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log.info("supervisor_started")
        # A constructor has no event loop yet; the call to itself runs first thing after it.
        ray.get_runtime_context().current_actor.begin.remote()

    async def begin(self) -> None:
        """Take on what has not ended, and then whatever comes on record."""
        self._spawn(self._watch(uuid.uuid4().hex))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, incarnation: str) -> None:
        while True:
            try:
                anew, handed = await self._coordinator.handover.remote(incarnation, list(self._carried))
            except ray_errors.RayError:
                # It is being started again, and then hands over everything.
                await asyncio.sleep(AWAY_S)
                continue
            runs = [run for run in handed if run.id not in self._carried and run.id not in self._ended]
            for run in await self._latest(runs) if anew and runs else runs:
                carried = self._carried[run.id] = _Carried(run)
                self._spawn(self._carry(carried))

    async def _latest(self, runs: Sequence[Run]) -> list[Run]:
        """Runs as an earlier incarnation left them on record; the coordinator knows how they began."""
        active = {run.id: run for run in await _patiently(self._work.history.active)}
        ended = [run for run in runs if run.id not in active]
        for run in ended:
            if (found := await self._on_record(run)) is not None:
                await self._coordinator.finish.remote(found)
        return [active[run.id] for run in runs if run.id in active]

    async def _on_record(self, run: Run) -> Run | None:
        return await _patiently(lambda: self._work.history.get(run.request.org, run.id))

    async def _carry(self, carried: _Carried) -> None:
        run = carried.run
        log = self._log.bind(run_id=run.id, org=run.request.org)
        try:
            settings = self._work.settings.with_endpoints(run.request.endpoints)
            drive = await self._drive(carried, settings)
            log.info("run_started", pipeline=run.request.pipeline, units=drive.run.tally.units_total)
            ended = await drive.finish()
            changes = {name: getattr(ended, name) for name in DRIVEN}
            if ended.status == RunState.SUCCESS.value:
                changes |= await self._after(carried, settings)
        except Exception as error:  # noqa: BLE001 - a run must reach a terminal state whatever happens
            changes = _failed(error)
        ended = await self._end(carried, changes)
        log.info("run_ended", status=ended.status, rows=ended.tally.row_count, loads=ended.tally.load_jobs)

    async def _drive(self, carried: _Carried, settings: Settings) -> Drive:
        """Plan the run and set it going. Raises MantaError when what it needs is gone, its credential say."""
        run = carried.run
        if self._work.catalog.pipeline(run.request.pipeline).discover and run.request.policy == "missing":
            carried.discovery = await self._discover(run.request, run.id, settings)
        plan = await _patiently(
            lambda: self._work.plan(run.request, now=datetime.now(UTC), discovered=carried.discovery)
        )
        position = 0
        if run.version > 1:
            told = await _patiently(lambda: self._work.history.transitions(run.request.org, run.id))
            position = told[-1]["position"] if told else 0
        doors = Doors(
            slots=_Slots(self._coordinator, run.id),
            start=lambda unit, attempt: self._start(run, plan, settings, unit, attempt),
            settle=self._settle,
            record=self._record,
            now=lambda: datetime.now(UTC),
            rand=random.random,
        )
        drive = Drive(carried.run, plan, doors, position=position)
        carried.drive = drive
        if carried.cancelled:
            drive.cancel()
            if run.version > 1 and plan.units:
                # Its units died with the former supervisor; their load jobs did not.
                await self._settle(plan.units[0])
        else:
            await self._save(carried, status=RunState.RUNNING.value)
        return drive

    async def _after(self, carried: _Carried, settings: Settings) -> dict[str, Any]:
        """What comes once every unit is published: the source's marks, then the steps of scope run."""
        run = carried.run
        request, marks = run.request, self._work.marks
        if carried.discovery and carried.discovery.marks:
            found = carried.discovery.marks
            standing = await _patiently(lambda: marks.standing(request.org, request.pipeline))
            await _patiently(
                lambda: marks.save(
                    request.org,
                    request.pipeline,
                    found,
                    standing=standing,
                    run_id=run.id,
                    now=datetime.now(UTC),
                )
            )
        if not self._work.catalog.pipeline(request.pipeline).ordered_steps("run"):
            return {}
        days = days_between(request.start, request.end)
        try:
            done = await self._stage(run.request, run.id, settings, "run")
        except MantaError as error:
            published = carried.seen.tally.units_published
            state = RunState.PARTIAL if published else RunState.FAILED
            return {**_failed(error), "status": state.value}
        outcome = Outcome(
            Unit(request.org, request.pipeline, days), attempt=0, status="published", timings=done.timings
        )
        await self._patient_record(run, outcome)
        return {}

    async def _patient_record(self, run: Run, outcome: Outcome) -> None:
        await _patiently(lambda: self._work.history.record(run, (), [outcome], now=datetime.now(UTC)))

    async def discover(self, request: RunRequest) -> Discovery | None:
        """What changed at the source of a request's pipeline; None for one that does not ask there.

        Starts no run. Raises MantaError.
        """
        if self._work.catalog.pipeline(request.pipeline).discover is None or request.policy != "missing":
            return None
        settings = self._work.settings.with_endpoints(request.endpoints)
        return await self._discover(request, "plan", settings)

    async def _discover(self, request: RunRequest, run_id: str, settings: Settings) -> Discovery | None:
        return (await self._stage(request, run_id, settings, "discover")).discovery

    async def _stage(
        self, request: RunRequest, run_id: str, settings: Settings, stage: Literal["discover", "run"]
    ) -> StageOutcome:
        """Run a stage as a task, a few times where that can help. Raises MantaError."""
        pipeline = self._work.catalog.pipeline(request.pipeline)
        name = f"{stage} {request.pipeline} {request.org}"
        task = StageTask(settings, run_id, request, stage, self._coordinator)
        unit = Unit(request.org, request.pipeline, days_between(request.start, request.end))
        for left in reversed(range(STAGE_ATTEMPTS)):
            options = stage_task.options(name=name, num_cpus=pipeline.resources.num_cpus)
            try:
                answer: StageOutcome = await options.remote(task)
                failure = answer.error
            except ray_errors.RayError as error:
                failure = mapped(error, unit)
            if failure is None:
                return answer
            if not left or not isinstance(failure, TransientError | InternalError):
                raise failure
            await asyncio.sleep(AWAY_S)
        raise AssertionError("the last attempt returns or raises")

    async def _end(self, carried: _Carried, changes: Mapping[str, Any]) -> Run:
        ended = await self._save(carried, **changes, end_time=datetime.now(UTC))
        self._ended[ended.id] = ended
        for oldest in list(self._ended)[:-ENDED_KEPT]:
            del self._ended[oldest]
        self._carried.pop(ended.id, None)
        await self._coordinator.finish.remote(ended)
        return ended

    async def _save(self, carried: _Carried, *, audit: Audit | None = None, **changes: Any) -> Run:
        """Append the run with these changes as its next version."""
        async with carried.lock:
            newer = replace(carried.seen, version=carried.run.version + 1, **changes)
            await _patiently(lambda: self._work.history.save(newer, now=datetime.now(UTC), audit=audit))
            carried.run = newer
            if carried.drive is not None:
                # Only this: the drive has gone on counting meanwhile.
                carried.drive.run = replace(carried.drive.run, version=newer.version, status=newer.status)
            return newer

    def _start(self, run: Run, plan: Plan, settings: Settings, unit: Unit, attempt: int) -> RayAttempt:
        pipeline = self._work.catalog.pipeline(unit.pipeline)
        task = UnitTask(
            settings=settings,
            run_id=run.id,
            unit=unit,
            attempt=attempt,
            provisional=plan.provisional & frozenset(unit.days),
            variables=run.request.variables,
            coordinator=self._coordinator,
        )
        options = unit_task.options(name=str(unit), num_cpus=pipeline.resources.num_cpus)
        return RayAttempt(options.remote(task), unit, attempt)

    async def _settle(self, unit: Unit) -> None:
        """End the load jobs that a stopped unit left open, and put on record what won."""
        pipeline = self._work.catalog.pipeline(unit.pipeline)
        for output in pipeline.outputs:
            await asyncio.to_thread(
                settle,
                output.table,
                unit.days,
                warehouse=self._work.warehouse(unit.org),
                ledger=self._work.ledger,
                now=lambda: datetime.now(UTC),
                cancel=True,
            )

    async def _record(self, run: Run, transitions: Sequence[Transition], outcomes: Sequence[Outcome]) -> None:
        await asyncio.to_thread(self._work.history.record, run, transitions, outcomes, now=datetime.now(UTC))

    async def progress(self, run_ids: Sequence[str]) -> list[Progress]:
        """How runs stand; those that this supervisor does not know are left out."""
        found = []
        for run_id in run_ids:
            if carried := self._carried.get(run_id):
                running = carried.drive.running if carried.drive else ()
                found.append(Progress(carried.seen, tuple(running)))
            elif ended := self._ended.get(run_id):
                found.append(Progress(ended, ()))
        return found

    async def cancel(self, org: str, run_id: str, *, audit: Audit | None = None) -> Run:
        """Stop a run; answers when that is on record, the run becomes CANCELLED when its units have stopped.

        Raises NotFoundError, and StateError for a run that has ended.
        """
        for _ in range(TAKEN_WITHIN):
            carried = self._carried.get(run_id)
            if carried is not None and carried.run.request.org == org:
                return await self._cancel(carried, audit)
            run = self._ended.get(run_id) or await asyncio.to_thread(self._work.history.get, org, run_id)
            if run is None or run.request.org != org:
                raise NotFoundError(f"{org} has no run {run_id}.", fix=f"See `manta runs {org}`.")
            if run.terminal:
                raise StateError(f"Run {run_id} has ended: {run.status}.", fix="There is nothing to cancel.")
            # On record, and on its way here.
            await asyncio.sleep(HANDED_S)
        raise TransientError(f"Run {run_id} is only just starting.", fix="Cancel it again in a moment.")

    async def _cancel(self, carried: _Carried, audit: Audit | None) -> Run:
        carried.cancel()
        status = carried.seen.status if carried.seen.terminal else RunState.CANCELLING.value
        return await self._save(carried, audit=audit, status=status)


async def _patiently[T](call: Callable[[], T]) -> T:
    """Call in a thread until the warehouse is there: without it a run cannot be ended on record either."""
    while True:
        try:
            return await asyncio.to_thread(call)
        except TransientError:
            await asyncio.sleep(AWAY_S)


def _failed(error: Exception) -> dict[str, Any]:
    """What a run's row says of a failure of the run itself."""
    failure = error if isinstance(error, MantaError) else InternalError(f"{type(error).__name__}: {error}")
    return {
        "status": RunState.FAILED.value,
        "error_code": failure.code,
        "error_message": str(failure),
    }


def supervisor(settings: Settings) -> ActorHandle[Supervisor]:
    """The cluster's supervisor, started when there is none."""
    return standing(
        Supervisor, NAME, settings.without_secrets(), runtime_env={"env_vars": WITHOUT_TASK_SERIES}
    )

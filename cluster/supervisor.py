"""The detached actor that runs live in: neither a terminal nor a web process takes them with it.

It keeps nothing that the warehouse lacks: a new incarnation reads the runs that have not ended and drives
them on, each under its own id; what they had published is skipped.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import ray
from ray.actor import ActorHandle

from cluster.connect import standing
from cluster.coordinator import coordinator
from cluster.driver import Doors, Drive
from cluster.flow import RunState
from cluster.ray_attempt import RayAttempt
from cluster.slots import Ask
from cluster.tasks import UnitTask, unit_task
from engine.errors import InternalError, MantaError, NotFoundError, UsageError
from engine.log import JsonLog
from engine.runs import Run, Transition
from engine.settings import Settings
from engine.settle import settle
from engine.types import Outcome, Plan, RunRequest, Unit
from engine.workplace import open_workplace

NAME = "manta-supervisor"
ENDED_KEPT = 200
# Ray keeps metric series for every task name in the process that submits it, 16 kB a unit and for ever
# (benchmarks/README.md): names stay readable in the dashboard, the series go.
WITHOUT_TASK_SERIES = {"RAY_enable_metrics_collection": "0"}


@dataclass(frozen=True, slots=True)
class Progress:
    """A run as its driver sees it now; `running` names units."""

    run: Run
    running: tuple[str, ...]


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


class Supervisor:
    """See the module; every public method is an actor call."""

    def __init__(self, settings: Settings) -> None:
        self._work = open_workplace(settings)
        self._coordinator: Any = coordinator(settings)
        self._log = JsonLog(sys.stdout.write, now=lambda: datetime.now(UTC))
        self._drives: dict[str, Drive] = {}
        self._ended: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # A constructor has no event loop yet; the call to itself runs first thing after it.
        ray.get_runtime_context().current_actor.resume.remote()

    async def resume(self) -> int:
        """Drive on what an earlier incarnation left; returns how many runs that are."""
        left = [
            run for run in await asyncio.to_thread(self._work.history.active) if run.id not in self._drives
        ]
        for run in left:
            try:
                plan = await asyncio.to_thread(self._work.plan, run.request, now=datetime.now(UTC))
            except MantaError as error:
                # What it needs is gone, its credential for instance: it ends, and says so.
                await self._end(replace(run, **_failed(error)))
            else:
                told = await asyncio.to_thread(self._work.history.transitions, run.request.org, run.id)
                self._launch(run, plan, self._work.settings, position=told[-1]["position"] if told else 0)
        return len(left)

    async def submit(
        self, request: RunRequest, settings: Settings, *, trigger_type: str, trigger_by: str
    ) -> tuple[Run, bool]:
        """Plan the request, put its run on record and start it; returns the run and whether it is new.

        `settings`, without secrets, are the submitter's: the run's units ask the providers where they say. A
        run that a later incarnation resumes has that one's own.
        Raises UsageError, NotFoundError: whatever can be known to be wrong is refused before a run exists.
        """
        plan = await asyncio.to_thread(self._work.plan, request, now=datetime.now(UTC))
        run, created = await self._coordinator.accept.remote(
            request, trigger_type=trigger_type, trigger_by=trigger_by
        )
        # Not `created`: the answer that said so may have been lost with a coordinator that was restarted.
        if run.id not in self._drives and run.id not in self._ended:
            self._launch(run, plan, settings)
        return self._seen(run), created

    def _launch(self, run: Run, plan: Plan, settings: Settings, *, position: int = 0) -> None:
        doors = Doors(
            slots=_Slots(self._coordinator, run.id),
            start=lambda unit, attempt: self._start(run, plan, settings, unit, attempt),
            settle=self._settle,
            record=self._record,
            now=lambda: datetime.now(UTC),
            rand=random.random,
        )
        drive = Drive(run, plan, doors, position=position)
        self._drives[run.id] = drive
        task = asyncio.create_task(self._drive(run, drive))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drive(self, accepted: Run, drive: Drive) -> None:
        log = self._log.bind(run_id=accepted.id, org=accepted.request.org)
        log.info("run_started", pipeline=accepted.request.pipeline, units=drive.run.tally.units_total)
        try:
            drive.run = await self._save(replace(drive.run, status=RunState.RUNNING.value))
            ended = await drive.finish()
        except Exception as error:  # noqa: BLE001 - a run must reach a terminal state whatever happens
            ended = replace(drive.run, **_failed(error))
        ended = await self._end(ended)
        log.info("run_ended", status=ended.status, rows=ended.tally.row_count, loads=ended.tally.load_jobs)

    async def _end(self, run: Run) -> Run:
        ended = await self._save(replace(run, end_time=datetime.now(UTC)))
        self._ended[ended.id] = ended
        for oldest in list(self._ended)[:-ENDED_KEPT]:
            del self._ended[oldest]
        self._drives.pop(ended.id, None)
        await self._coordinator.finish.remote(ended)
        return ended

    async def _save(self, run: Run) -> Run:
        newer = replace(run, version=run.version + 1)
        await asyncio.to_thread(self._work.history.save, newer, now=datetime.now(UTC))
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

    def _seen(self, run: Run) -> Run:
        drive = self._drives.get(run.id)
        return drive.run if drive else self._ended.get(run.id, run)

    async def progress(self, run_ids: Sequence[str]) -> list[Progress]:
        """How runs stand; those that this supervisor does not know are left out."""
        found = []
        for run_id in run_ids:
            if drive := self._drives.get(run_id):
                found.append(Progress(drive.run, tuple(drive.running)))
            elif ended := self._ended.get(run_id):
                found.append(Progress(ended, ()))
        return found

    async def cancel(self, org: str, run_id: str) -> Run:
        """Stop a run; answers at once, the run becomes CANCELLED when its units have stopped.

        Raises NotFoundError, and UsageError for a run that has ended.
        """
        drive = self._drives.get(run_id)
        if drive is not None and drive.run.request.org == org:
            drive.cancel()
            return drive.run
        run = await asyncio.to_thread(self._work.history.get, org, run_id)
        if run is None:
            raise NotFoundError(f"{org} has no run {run_id}.", fix=f"See `manta runs {org}`.")
        raise UsageError(f"Run {run_id} has ended: {run.status}.", fix="There is nothing to cancel.")


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

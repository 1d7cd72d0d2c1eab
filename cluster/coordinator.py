"""The one actor per cluster that decides what must be decided once: run identity, slots, rate permits.

Which runs exist is logged in `org_meta_pipeline_runs` before it is answered, and read back from there by
a new incarnation. Slots and rate permits are not logged: they expire, and a unit that runs twice meanwhile
is harmless because publishing is fenced by the table version.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from ray.actor import ActorHandle

from cluster.connect import cluster_cpus, standing
from cluster.slots import Ask, Slots
from engine.limits import Bucket, Pace, Reading
from engine.plan import request_key
from engine.runs import Run
from engine.settings import Settings
from engine.types import RunRequest
from engine.workplace import open_workplace

NAME = "manta-coordinator"
LEASE_S = 30.0
POLL_S = 5.0
# Extraction waits for the network most of the time, so a CPU carries more than one unit; the spare ones keep
# the next unit queued at the worker, so that no CPU waits for a round trip.
SLOTS_PER_CPU = 2
SPARE_SLOTS = 2


class Coordinator:
    """See the module; every public method is an actor call."""

    def __init__(self, settings: Settings, capacity: int) -> None:
        self._work = open_workplace(settings)
        self._slots = Slots(capacity, lease_s=LEASE_S)
        self._granted: dict[str, list[str]] = defaultdict(list)
        self._woken: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._accepting = asyncio.Lock()
        self._active: dict[str, Run] = {run.request_key: run for run in self._work.history.active()}
        self._sequences: dict[str, int] = {}
        self._epoch = uuid.uuid4().hex

    async def capacity(self) -> int:
        """Slots in all."""
        return self._slots.capacity

    async def accept(self, request: RunRequest, *, trigger_type: str, trigger_by: str) -> tuple[Run, bool]:
        """Give a request its run: the active one of an equal request, else a new one, on record.

        Returns the run and whether it is new. A run that ended makes room for a new ordinal.
        """
        key = request_key(request)
        async with self._accepting:
            if key in self._active:
                return self._active[key], False
            run = await asyncio.to_thread(self._new_run, request, key, trigger_type, trigger_by)
            self._active[key] = run
            return run, True

    def _new_run(self, request: RunRequest, key: str, trigger_type: str, trigger_by: str) -> Run:
        history = self._work.history
        if request.org not in self._sequences:
            self._sequences[request.org] = history.last_sequence(request.org)
        ordinal = len(history.same_request(request.org, key)) + 1
        now = datetime.now(UTC)
        run = Run(
            id=f"{key[:16]}-{ordinal}",
            request=request,
            request_key=key,
            pipeline_id=self._work.catalog.pipeline(request.pipeline).id_for(request.org),
            status="PENDING",
            sequence=self._sequences[request.org] + 1,
            version=1,
            trigger_type=trigger_type,
            trigger_by=trigger_by,
            start_time=now,
        )
        history.save(run, now=now)
        self._sequences[request.org] = run.sequence
        return run

    async def finish(self, run: Run) -> None:
        """A run has ended: forget it, its leases and what it waits for."""
        if self._active.get(run.request_key, run).id == run.id:
            self._active.pop(run.request_key, None)
        self._slots.withdraw(run.id)
        self._granted.pop(run.id, None)
        self._woken.pop(run.id, None)
        self._deal()

    async def join(self, driver: str) -> str:
        """A driver begins: whatever an earlier incarnation of it held or waited for is dropped."""
        self._slots.withdraw(driver)
        self._granted.pop(driver, None)
        self._deal()
        return self._epoch

    async def active(self) -> list[Run]:
        """Runs that have not ended, as they were accepted."""
        return list(self._active.values())

    async def ask(self, driver: str, asks: Sequence[Ask]) -> None:
        """Queue units of a driver for slots."""
        self._slots.ask(driver, asks)
        self._deal()

    async def granted(self, driver: str) -> tuple[str, list[str]]:
        """This incarnation's epoch, and the keys whose slots were given since the last call.

        Waits a few seconds for the first. Calling it is the driver's sign of life: its leases run on. A
        driver that sees another epoch than it knows asks again: its asks went with the old incarnation.
        """
        self._slots.renew(driver, time.monotonic())
        self._deal()
        if not self._granted.get(driver):
            woken = self._woken[driver]
            woken.clear()
            try:
                async with asyncio.timeout(POLL_S):
                    await woken.wait()
            except TimeoutError:
                return self._epoch, []
        return self._epoch, self._granted.pop(driver, [])

    async def release(self, keys: Sequence[str]) -> None:
        """Give slots back."""
        self._slots.release(keys)
        self._deal()

    def _deal(self) -> None:
        for driver, key in self._slots.grant(time.monotonic()):
            self._granted[driver].append(key)
            self._woken[driver].set()

    async def rate_wait(self, provider: str, credential: str) -> float:
        """Take a rate permit and return 0, or the seconds to wait before asking again."""
        return self._bucket(provider, credential).wait_s(time.monotonic())

    async def rate_learn(self, provider: str, credential: str, said: Reading) -> None:
        """What a provider's answer says about the limit of one credential."""
        self._bucket(provider, credential).learn(time.monotonic(), said)

    def _bucket(self, provider: str, credential: str) -> Bucket:
        known = self._buckets.get((provider, credential))
        if known is None:
            rate = self._work.catalog.providers[provider].rate
            known = Bucket(Pace(per_minute=rate.requests_per_minute, burst=rate.burst))
            self._buckets[provider, credential] = known
        return known

    async def health(self) -> Mapping[str, int]:
        """Numbers for `manta status`."""
        return {
            "active_runs": len(self._active),
            "slots": self._slots.capacity,
            "held": self._slots.held,
            "waiting": self._slots.waiting,
        }


def coordinator(settings: Settings, *, capacity: int | None = None) -> ActorHandle[Coordinator]:
    """The cluster's coordinator, started when there is none."""
    slots = capacity or SLOTS_PER_CPU * max(1, int(cluster_cpus())) + SPARE_SLOTS
    return standing(Coordinator, NAME, settings.without_secrets(), slots)

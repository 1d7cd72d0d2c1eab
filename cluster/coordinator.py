"""The one actor per cluster that decides what must be decided once: runs, quotas, slots, rate permits.

Which runs exist is logged in `org_meta_pipeline_runs` before it is answered, and read back from there by
a new incarnation; quotas are counted from the same rows. Slots and rate permits are not logged: they expire,
and a unit that runs twice meanwhile is harmless because publishing is fenced by the table version.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from ray.actor import ActorHandle

from cluster.acceptance import Acceptance
from cluster.connect import cluster_cpus, standing
from cluster.directory_keeper import DirectoryKeeper
from cluster.slots import Ask, Slots
from engine.directory import Directory, read_directory
from engine.errors import ForbiddenError, LimitError
from engine.limits import Bucket, Pace, Reading
from engine.quota import Usage
from engine.request_limits import Admission, RequestLimits
from engine.runs import Origin, Run
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
        self._limits = RequestLimits(
            {
                "requests": settings.api_requests_per_minute,
                "runs": settings.api_runs_per_minute,
                "failures": settings.api_failures_per_minute,
            }
        )
        self._acceptance = Acceptance(
            self._work.history,
            self._work.catalog,
            max_active=settings.max_active_runs,
            now=lambda: datetime.now(UTC),
        )
        self._acceptance.restore()
        self._directory = DirectoryKeeper(
            lambda: read_directory(self._work.central, self._work.catalog.plans),
            refresh_s=settings.directory_refresh_seconds,
        )
        self._supervisor: str | None = None
        self._refused_total = 0
        self._epoch = uuid.uuid4().hex

    async def accept(self, request: RunRequest, origin: Origin) -> tuple[Run, bool]:
        """Give a request its run; returns the run and whether it is new. See `Acceptance.accept`.

        Raises LimitError, NotFoundError for an organisation that is not there, ForbiddenError for one that
        is suspended or removed, UsageError for an idempotency key that belongs to another request.
        """
        try:
            org = await self._directory.org(request.org)
            if org.status != "ACTIVE":
                raise ForbiddenError(
                    f"{org.slug} is {org.status.lower()}: it runs nothing.",
                    fix=f"An operator resumes it: manta org resume {org.slug}",
                )
            return await self._acceptance.accept(request, origin, org.limits)
        except (LimitError, ForbiddenError):
            self._refused_total += 1
            raise

    async def handover(self, supervisor: str, carried: Sequence[str]) -> tuple[bool, list[Run]]:
        """Runs for this incarnation of the supervisor to carry out, as they come on record.

        The first call of an incarnation gets all that have not ended, and True: they may be further on record
        than they are known here. `carried` are those it has: they count as under way. Waits a few seconds for
        the first run.
        """
        self._acceptance.renew(carried)
        everything = self._supervisor != supervisor
        self._supervisor = supervisor
        return everything, await self._acceptance.handover(everything=everything, wait_s=POLL_S)

    async def finish(self, run: Run) -> None:
        """A run has ended: forget it, its leases and what it waits for."""
        self._acceptance.finish(run)
        self._slots.withdraw(run.id)
        self._granted.pop(run.id, None)
        self._woken.pop(run.id, None)
        self._deal()

    async def directory(self, known: str | None) -> Directory | None:
        """The directory when it differs from the version `known`; waits a few seconds for that."""
        return await self._directory.changed(known, wait_s=POLL_S)

    async def refresh_directory(self) -> str:
        """Read the directory anew, for a change just made; returns its version."""
        return (await self._directory.refresh()).version

    async def take(self, policy: str, key: str) -> Admission:
        """Count one request of `key` against a request limit (`requests`, `runs`, `failures`)."""
        return self._limits.take(policy, key, time.monotonic())

    async def usage(self, org: str) -> Usage:
        """What the organisation has used of its quota."""
        return self._acceptance.usage(org)

    async def join(self, driver: str) -> str:
        """A driver begins: whatever an earlier incarnation of it held or waited for is dropped."""
        self._slots.withdraw(driver)
        self._granted.pop(driver, None)
        self._deal()
        return self._epoch

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
        """Numbers for `manta status` and `/metrics`."""
        return {
            "active_runs": len(self._acceptance.active),
            "accepted_total": self._acceptance.accepted_total,
            "refused_total": self._refused_total,
            "slots": self._slots.capacity,
            "held": self._slots.held,
            "waiting": self._slots.waiting,
        }


def coordinator(settings: Settings, *, capacity: int | None = None) -> ActorHandle[Coordinator]:
    """The cluster's coordinator, started when there is none."""
    slots = capacity or SLOTS_PER_CPU * max(1, int(cluster_cpus())) + SPARE_SLOTS
    return standing(Coordinator, NAME, settings.without_secrets(), slots)

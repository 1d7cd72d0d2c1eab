"""Which runs there are: one per request, within its organisation's quota, on record before it is answered.

No Ray here: the coordinator owns the one instance, tests make their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cluster.group_commit import GroupCommit
from engine.catalog import Catalog
from engine.errors import LimitError, UsageError
from engine.history import RunHistory
from engine.plan import request_key
from engine.plans import Limits
from engine.quota import Quotas, Usage
from engine.runs import Origin, Run
from engine.types import RunRequest

#: How long an Idempotency-Key answers with the run it made.
REMEMBERED = timedelta(hours=24)
BUSY_S = 30


@dataclass(slots=True)
class _Accepted:
    run: Run
    recorded: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class _Remembered:
    fingerprint: str
    run_id: str
    at: datetime


class Acceptance:
    """All runs that have not ended, and the right to add one. `now` is aware UTC."""

    def __init__(
        self,
        history: RunHistory,
        catalog: Catalog,
        *,
        max_active: int,
        now: Callable[[], datetime],
        lease_s: float = 120,
    ) -> None:
        self._history = history
        self._catalog = catalog
        self._max_active = max_active
        self._now = now
        self._quotas = Quotas(lease_s=lease_s)
        self._commits: GroupCommit[tuple[Run, Origin]] = GroupCommit(
            lambda pairs: history.accept(pairs, now=now())
        )
        self._active: dict[str, _Accepted] = {}
        self._by_key: dict[tuple[str, str], _Remembered] = {}
        self._keyed: set[str] = set()
        self._ended: dict[str, Run] = {}
        self._outbox: list[Run] = []
        self._wake = asyncio.Event()
        self._restored: dict[str, Run] = {}
        self._sequences: dict[str, int] = {}
        self.accepted_total = 0

    def restore(self) -> None:
        """Read back what an earlier incarnation had put on record; blocks."""
        now = self._now()
        active = self._history.active()
        self._restored = {run.request_key: run for run in active}
        self._sequences = self._history.sequences()
        month = now.date().replace(day=1)
        self._quotas.restore(
            self._history.accepted(month), [(run.request.org, run.id, run.start_time) for run in active], now
        )
        for org, key, fingerprint, run_id, at in self._history.idempotency_keys(now - REMEMBERED):
            self._put_key(org, key, _Remembered(fingerprint, run_id, at))

    @property
    def active(self) -> list[Run]:
        """Runs that have not ended, as they were accepted; those not yet on record are left out."""
        recorded = [one.run for one in self._active.values() if one.recorded.done()]
        return [*self._restored.values(), *recorded]

    async def accept(self, request: RunRequest, origin: Origin, limits: Limits) -> tuple[Run, bool]:
        """Give a request its run: the active one of an equal request, else a new one, on record.

        Returns the run and whether it is new; with an idempotency key seen in the last 24 hours the run it
        made, ended or not. A caller that goes away meanwhile does not take the run with it.
        Raises LimitError for a quota or a full house, UsageError for an idempotency key of another request.
        """
        if (found := await self._remembered(request, origin)) is not None:
            return found, False
        key = request_key(request)
        if (restored := self._restored.get(key)) is not None:
            self._remember(restored, origin)
            return restored, False
        known = self._active.get(key)
        if created := known is None:
            known = self._active[key] = self._begin(request, key, origin, limits)
        # Also the key of a request whose run is under way already: sent again later it means that run.
        self._remember(known.run, origin)
        await asyncio.shield(known.recorded)
        return known.run, created

    def _begin(self, request: RunRequest, key: str, origin: Origin, limits: Limits) -> _Accepted:
        if len(self._active) + len(self._restored) >= self._max_active:
            raise LimitError(
                f"{self._max_active} runs have not ended yet; no more are taken on.",
                kind="too_many_runs",
                retry_after=timedelta(seconds=BUSY_S),
                fix="Wait for some to end, or raise MAX_ACTIVE_RUNS.",
            )
        now = self._now()
        sequence = self._sequences.get(request.org, 0) + 1
        run = Run(
            id=f"{key[:16]}-{sequence}",
            request=request,
            request_key=key,
            pipeline_id=self._catalog.pipeline(request.pipeline).id_for(request.org),
            status="PENDING",
            sequence=sequence,
            version=1,
            trigger_type=origin.trigger_type,
            trigger_by=origin.trigger_by,
            start_time=now,
        )
        self._quotas.reserve(request.org, run.id, limits, now)
        self._sequences[request.org] = sequence
        return _Accepted(run, asyncio.create_task(self._record(run, origin)))

    async def _record(self, run: Run, origin: Origin) -> None:
        try:
            await self._commits.put((run, origin))
        except BaseException:
            # It never was: the quota and the key are free again.
            self._active.pop(run.request_key, None)
            self._quotas.withdraw(run.id)
            self._keyed.discard(run.id)
            for key in [key for key, found in self._by_key.items() if found.run_id == run.id]:
                del self._by_key[key]
            raise
        self.accepted_total += 1
        self._outbox.append(run)
        self._wake.set()

    async def _remembered(self, request: RunRequest, origin: Origin) -> Run | None:
        if origin.idempotency_key is None:
            return None
        found = self._by_key.get((request.org, origin.idempotency_key))
        if found is None or self._now() - found.at > REMEMBERED:
            return None
        if found.fingerprint != (origin.fingerprint or request_key(request)):
            raise UsageError(
                f"Idempotency-Key {origin.idempotency_key!r} came with another request before "
                f"(run {found.run_id}).",
                fix="Use a new key for a new request.",
                field="Idempotency-Key",
            )
        for one in self._active.values():
            if one.run.id == found.run_id:
                await asyncio.shield(one.recorded)
                return one.run
        for run in (*self._restored.values(), *self._ended.values()):
            if run.id == found.run_id:
                return run
        return await asyncio.to_thread(self._history.get, request.org, found.run_id)

    async def handover(self, *, everything: bool, wait_s: float) -> list[Run]:
        """Runs that were put on record since the last call, or all that have not ended; waits for the first.

        What is handed over is not handed over again: the taker asks for everything when it starts anew.
        """
        if everything:
            self._outbox.clear()
            return self.active
        if not self._outbox:
            self._wake.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                return []
        taken, self._outbox = self._outbox, []
        return taken

    def finish(self, run: Run) -> None:
        """A run has ended: an equal request makes a new one from now on."""
        if self._restored.get(run.request_key, run).id == run.id:
            self._restored.pop(run.request_key, None)
        known = self._active.get(run.request_key)
        if known is not None and known.run.id == run.id:
            del self._active[run.request_key]
        self._quotas.release(run.id)
        self._forget()
        if run.id in self._keyed:
            self._ended[run.id] = run

    def _remember(self, run: Run, origin: Origin) -> None:
        if origin.idempotency_key is None:
            return
        found = _Remembered(origin.fingerprint or run.request_key, run.id, self._now())
        self._put_key(run.request.org, origin.idempotency_key, found)

    def _put_key(self, org: str, key: str, found: _Remembered) -> None:
        # Taken out first: they stand in the order in which they are forgotten.
        self._by_key.pop((org, key), None)
        self._by_key[org, key] = found
        self._keyed.add(found.run_id)

    def _forget(self) -> None:
        limit = self._now() - REMEMBERED
        # Oldest first, as they were remembered.
        while self._by_key and next(iter(self._by_key.values())).at < limit:
            run_id = self._by_key.pop(next(iter(self._by_key))).run_id
            self._keyed.discard(run_id)
            self._ended.pop(run_id, None)

    def renew(self, run_ids: Iterable[str]) -> None:
        """These runs are being driven: they go on counting as under way."""
        now = self._now()
        for run_id in run_ids:
            self._quotas.renew(run_id, now)

    def usage(self, org: str) -> Usage:
        """What the organisation has used of its quota."""
        return self._quotas.usage(org, self._now())

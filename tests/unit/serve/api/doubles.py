"""The actors' transport in memory, around the engine's own quotas, limits, keys and directory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from engine.api_keys import ApiKeys
from engine.audit import Audit
from engine.catalog import Catalog
from engine.central import Central
from engine.directory import Directory, KeyEntry, OrgEntry
from engine.errors import NotFoundError, StateError, TransientError, UsageError
from engine.history import RunHistory
from engine.plan import request_key
from engine.plans import Limits
from engine.quota import Quotas, Usage
from engine.request_limits import Admission, RequestLimits
from engine.runs import Origin, Progress, Run
from engine.settings import Settings
from engine.types import Discovery, RunRequest
from engine.vault import Sealed, Vault
from engine.workplace import Workplace
from tests.unit.serve.doubles import FakeHistory

NOW = datetime(2026, 3, 15, 6, 30, tzinfo=UTC)
ROOT_KEY = "r" * 40
RATES = {"requests": 600, "runs": 120, "failures": 10}


@dataclass
class Rows:
    """What a table is given."""

    taken: list[dict[str, Any]] = field(default_factory=list)

    def append(self, table: str, rows: Iterable[dict[str, Any]]) -> None:
        self.taken.extend(rows)


class Work(Workplace):
    """The real configs; runs on record are a list."""

    def __init__(self, root: Path, home: Path, history: FakeHistory) -> None:
        super().__init__(Settings(root=root, home=home))
        vars(self)["history"] = cast("RunHistory", history)
        vars(self)["catalog"] = _catalog(root)


@lru_cache(maxsize=1)
def _catalog(root: Path) -> Catalog:
    return Catalog.load(root)


@dataclass
class Actors:
    """Coordinator and supervisor, in the test's own process."""

    vault: Vault
    work: Work
    rates: dict[str, int] = field(default_factory=lambda: dict(RATES))
    seconds: float = 0.0
    now: datetime = NOW
    orgs: dict[str, OrgEntry] = field(default_factory=dict)
    keys: dict[str, KeyEntry] = field(default_factory=dict)
    credentials: set[tuple[str, str]] = field(default_factory=set)
    runs: dict[str, Run] = field(default_factory=dict)
    origins: list[Origin] = field(default_factory=list)
    requests: list[RunRequest] = field(default_factory=list)
    by_idempotency_key: dict[tuple[str, str], tuple[str | None, str]] = field(default_factory=dict)
    cancelled: list[tuple[str, str, Audit]] = field(default_factory=list)
    refreshed: int = 0
    away: bool = False

    def __post_init__(self) -> None:
        self.limits = RequestLimits(self.rates)
        self.quotas = Quotas()
        self._read = self._made()

    # What a test changes before it asks.

    def add_org(self, slug: str, *, status: str = "ACTIVE", limits: Limits | None = None) -> None:
        self.orgs[slug] = OrgEntry(slug, status, limits or Limits(100, 3000, 5), "SCALE")
        self.credentials |= {(slug, "openai"), (slug, "anthropic")}

    def add_key(self, org: str, *scopes: str, expires_at: datetime | None = None) -> str:
        rows = Rows()
        keys = ApiKeys(cast("Central", rows), self.vault, now=lambda: self.now)
        _, text = keys.add(org, name="test", scopes=scopes or ("run", "read"), expires_at=expires_at)
        row = rows.taken[0]
        self.keys[row["org_api_key_id"]] = KeyEntry(
            org=org,
            key_id=row["org_api_key_id"],
            mac=row["org_api_key_hash"],
            sealed=Sealed(row["encrypted_hash_key"], row["wrapped_key"], row["key_name"]),
            scopes=frozenset(row["scopes"]),
            expires_at=row["expires_at"],
            is_active=True,
        )
        return text

    def revoke(self, key: str) -> None:
        key_id = key.rpartition("_api_")[2][:12] if "_api_" in key else ""
        self.keys[key_id] = replace(self.keys[key_id], is_active=False)

    def publish(self) -> None:
        """What stands in the warehouse now is what the coordinator answers from here on."""
        self._read = self._made()

    def _made(self) -> Directory:
        return Directory.of(self.orgs, self.keys, frozenset(self.credentials))

    # The door.

    async def accept(self, request: RunRequest, origin: Origin) -> tuple[Run, bool]:
        self._here()
        self.requests.append(request)
        self.origins.append(origin)
        name = (request.org, origin.idempotency_key or "")
        if origin.idempotency_key and name in self.by_idempotency_key:
            fingerprint, run_id = self.by_idempotency_key[name]
            if fingerprint != origin.fingerprint:
                raise UsageError("Another request came with that key.", fix="Use a new one.")
            return self.runs[run_id], False
        key = request_key(request)
        for run in self.runs.values():
            if run.request_key == key and not run.terminal:
                return run, False
        sequence = len(self.runs) + 1
        run_id = f"{key[:16]}-{sequence}"
        self.quotas.reserve(request.org, run_id, self.orgs[request.org].limits, self.now)
        pipeline_id = self.work.catalog.pipeline(request.pipeline).id_for(request.org)
        run = Run(
            id=run_id,
            request=request,
            request_key=key,
            pipeline_id=pipeline_id,
            status="PENDING",
            sequence=sequence,
            version=1,
            trigger_type=origin.trigger_type,
            trigger_by=origin.trigger_by,
            start_time=self.now,
        )
        self.runs[run_id] = run
        if origin.idempotency_key:
            self.by_idempotency_key[name] = (origin.fingerprint, run_id)
        return run, True

    async def discover(self, request: RunRequest) -> Discovery | None:
        self._here()
        return Discovery(frozenset({request.start}), ())

    async def progress(self, run_ids: Sequence[str]) -> list[Progress]:
        self._here()
        return [Progress(self.runs[run_id], ()) for run_id in run_ids if run_id in self.runs]

    async def cancel(self, org: str, run_id: str, *, audit: Audit) -> Run:
        self._here()
        run = self.runs.get(run_id)
        if run is None or run.request.org != org:
            raise NotFoundError(f"{org} has no run {run_id}.")
        if run.terminal:
            raise StateError(f"Run {run_id} has ended: {run.status}.", fix="There is nothing to cancel.")
        self.cancelled.append((org, run_id, audit))
        self.runs[run_id] = replace(run, status="CANCELLING")
        return self.runs[run_id]

    def end(self, run_id: str, status: str = "SUCCESS") -> None:
        self.runs[run_id] = replace(self.runs[run_id], status=status, end_time=self.now)
        self.quotas.release(run_id)

    async def take(self, policy: str, key: str) -> Admission:
        self._here()
        return self.limits.take(policy, key, self.seconds)

    async def directory(self, known: str | None) -> Directory | None:
        self._here()
        if self._read.version != known:
            return self._read
        await asyncio.sleep(0.02)
        return self._read if self._read.version != known else None

    async def refresh_directory(self) -> str:
        self._here()
        self.refreshed += 1
        self.publish()
        return self._read.version

    async def usage(self, org: str) -> Usage:
        self._here()
        return self.quotas.usage(org, self.now)

    async def health(self) -> dict[str, int]:
        self._here()
        return {"active_runs": len(self.runs), "slots": 6, "held": 0, "waiting": 0}

    def _here(self) -> None:
        if self.away:
            raise TransientError("The coordinator does not answer.", fix="See `manta status`.")

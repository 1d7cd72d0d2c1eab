"""A desk with an in-memory workplace and supervisor: what commands are given in these tests."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from engine.catalog import Catalog
from engine.errors import NotFoundError
from engine.plan import request_key
from engine.runs import Progress, Run, Tally
from engine.settings import Settings
from engine.types import Discovery, Plan, RunRequest, Unit
from serve.cli.desk import Desk

ROOT = Path(__file__).resolve().parents[3]
NOW = datetime(2026, 3, 15, 6, 30, tzinfo=UTC)
TABLE = "openai_usage_daily_raw"


def a_run(request: RunRequest, *, status: str = "RUNNING", run_id: str = "abc-1", **tally: int) -> Run:
    """A run one minute old."""
    ended = NOW if status in ("SUCCESS", "PARTIAL", "FAILED", "CANCELLED") else None
    return Run(
        id=run_id,
        request=request,
        request_key=request_key(request),
        pipeline_id="acme-openai",
        status=status,
        sequence=1,
        version=2,
        trigger_type="cli",
        trigger_by="test",
        start_time=NOW - timedelta(minutes=1),
        end_time=ended,
        tally=Tally(**tally),
    )


class FakeRuns:
    """Answers one scripted state after the other, then the last again."""

    def __init__(self, states: Sequence[Mapping[str, Any]]) -> None:
        self.states = list(states)
        self.submitted: list[RunRequest] = []
        self.idempotency_keys: list[str | None] = []
        self.cancelled: list[tuple[str, str]] = []
        self.interrupt_after: int | None = None
        self._polls = 0

    def submit(
        self, request: RunRequest, *, trigger_by: str, idempotency_key: str | None = None
    ) -> tuple[Run, bool]:
        self.submitted.append(request)
        self.idempotency_keys.append(idempotency_key)
        return a_run(request, status="PENDING", run_id=f"run-{len(self.submitted)}"), True

    def discover(self, request: RunRequest) -> Discovery:
        return Discovery(frozenset({request.start}), ())

    def progress(self, run_ids: Sequence[str]) -> list[Progress]:
        self._polls += 1
        if self.interrupt_after is not None and self._polls > self.interrupt_after:
            raise KeyboardInterrupt
        state = self.states[min(self._polls, len(self.states)) - 1]
        return [
            Progress(
                replace(a_run(self.submitted[int(run_id.removeprefix("run-")) - 1], **state), id=run_id),
                ("u",) if state["status"] == "RUNNING" else (),
            )
            for run_id in run_ids
        ]

    def cancel(self, org: str, run_id: str) -> Run:
        self.cancelled.append((org, run_id))
        return a_run(RunRequest(org, "p", NOW.date(), NOW.date()), status="CANCELLING", run_id=run_id)

    def health(self) -> Mapping[str, int]:
        return {"active_runs": 0, "slots": 6, "held": 0, "waiting": 0}


@dataclass
class FakeHistory:
    runs: list[Run] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    timed: list[dict[str, Any]] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)

    def get(self, org: str, run_id: str) -> Run | None:
        return next((r for r in self.runs if r.id == run_id and r.request.org == org), None)

    def find(self, run_id: str) -> Run | None:
        return next((r for r in self.runs if r.id == run_id), None)

    def latest(self, org: str, *, limit: int) -> list[Run]:
        return [run for run in self.runs if run.request.org == org][:limit]

    def transitions(self, org: str, run_id: str) -> list[dict[str, Any]]:
        return self.rows

    def steps(self, org: str, run_id: str) -> list[dict[str, Any]]:
        return self.timed

    def findings(self, org: str, run_id: str) -> list[dict[str, Any]]:
        return self.found


class FakeTenants:
    """Two organisations; keys are remembered to compare with."""

    def __init__(self) -> None:
        self.added: list[tuple[str, str, str]] = []
        self.off: list[tuple[str, str]] = []

    def deactivate(self, org: str, credential_id: str, *, audit: Any = None) -> None:
        self.off.append((org, credential_id))

    def active(self) -> list[Any]:
        return [self.get("acme_corp"), self.get("globex")]

    def get(self, slug: str) -> Any:
        if slug not in ("acme_corp", "globex"):
            raise NotFoundError(f"There is no organisation {slug!r}.", fix=f"Add it: manta org add {slug}")
        return SimpleNamespace(
            slug=slug, name=slug.title(), admin_email="a@b.example", dataset=f"{slug}_local"
        )

    def add_credential(self, org: str, provider: str, secret: str, *, name: str, audit: Any = None) -> str:
        self.added.append((org, provider, secret))
        return "cred1"


def a_plan(request: RunRequest) -> Plan:
    """One unit over the request's days."""
    length = (request.end - request.start).days + 1
    every = tuple(request.start + timedelta(days=n) for n in range(length))
    unit = Unit(request.org, request.pipeline, every)
    return Plan("plan1", request, (unit,), {}, frozenset(), api_calls=11, load_jobs=2)


@dataclass
class Table:
    """A desk and what it said."""

    desk: Desk
    runs: FakeRuns
    work: Any

    @property
    def out(self) -> str:
        return str(self.desk.out.file.getvalue())  # type: ignore[attr-defined]

    @property
    def err(self) -> str:
        return str(self.desk.err.file.getvalue())  # type: ignore[attr-defined]


def a_table(
    *,
    stdin: str = "",
    states: Sequence[Mapping[str, Any]] = ({"status": "SUCCESS"},),
    environ: Mapping[str, str] | None = None,
    home: Path = Path("/nonexistent/manta"),
    history: FakeHistory | None = None,
    plan: Callable[[RunRequest], Plan] = a_plan,
    width: int = 80,
) -> Table:
    """A desk 80 columns wide, no terminal."""
    catalog = Catalog.load(ROOT)
    runs = FakeRuns(states)
    work = SimpleNamespace(
        catalog=catalog,
        tenants=FakeTenants(),
        history=history or FakeHistory(),
        plan=lambda request, now, discovered=None: plan(request),
        last_closed_day=lambda path, now: date(2026, 3, 14),
        today=lambda pipeline, now: date(2026, 3, 15),
    )
    desk = Desk(
        environ={"MANTA_HOME": str(home), "MANTA_ROOT": str(ROOT), "USER": "tess", **(environ or {})},
        stdin=io.StringIO(stdin),
        out=Console(file=io.StringIO(), width=width, highlight=False),
        err=Console(file=io.StringIO(), width=width, highlight=False),
        now=lambda: NOW,
        sleep=lambda _: None,
        load=lambda environ: Settings.load(environ),
        open=lambda settings: work,
        join=lambda settings, environ: runs,
    )
    return Table(desk, runs, work)

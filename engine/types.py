"""The values that travel between planning, execution and publishing. All frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal, Protocol

from engine.errors import MantaError

Policy = Literal["missing", "failed", "all"]


@dataclass(frozen=True, slots=True)
class Partition:
    """One table of one organisation on one day: the truth's smallest piece."""

    org: str
    table: str
    day: date


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What someone asked for; two equal requests are one run (see `request_key`).

    `endpoints` are provider addresses by setting name (OPENAI_BASE_URL) that an operator gives for this run
    only; they are no part of its identity.
    """

    org: str
    pipeline: str
    start: date
    end: date
    policy: Policy = "missing"
    variables: Mapping[str, Any] = field(default_factory=dict)
    endpoints: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unit:
    """One organisation x one pipeline x consecutive days (at least one, ascending): one Ray task."""

    org: str
    pipeline: str
    days: tuple[date, ...]

    def __str__(self) -> str:
        first, last = self.days[0].isoformat(), self.days[-1].isoformat()
        return f"{self.pipeline} {self.org} {first}" + ("" if first == last else f"..{last}")


@dataclass(frozen=True, slots=True)
class Mark:
    """What a load partition of a source held when it was looked at; `rows` is its number of rows."""

    credential_id: str
    source: str
    load_partition: date
    max_export_time: datetime
    rows: int
    version: int = 0

    @property
    def key(self) -> tuple[str, str, object]:
        """What the mark is of."""
        return self.credential_id, self.source, self.load_partition


@dataclass(frozen=True, slots=True)
class Discovery:
    """What changed at a source: the usage days touched, and the marks of the load partitions that did."""

    days: frozenset[date]
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do, and what it leaves out and why; the driver takes this very object.

    `api_calls` is the least that it takes: pages, retries and what an answer makes necessary come on top.
    `load_jobs` is the most: what did not change is not loaded. `estimate` is true where the pipeline finds
    out at its source what changed, and nobody has looked.
    """

    id: str
    request: RunRequest
    units: tuple[Unit, ...]
    skipped: Mapping[Partition, str]
    provisional: frozenset[date]
    api_calls: int
    load_jobs: int
    estimate: bool = False


@dataclass(frozen=True, slots=True)
class Publication:
    """One partition as it now stands in the warehouse."""

    partition: Partition
    table_version: int
    content_hash: str
    rows: int
    job_id: str | None
    how: Literal["loaded", "unchanged", "adopted"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a processor saw that a person should know and that stops nothing: an unpriced model."""

    code: str
    subject: str
    table: str
    day: date
    rows: int
    detail: str


@dataclass(frozen=True, slots=True)
class Timing:
    """One stage of a unit: a step, the checks or a publish. `seconds` is wall time.

    `metrics` are what the step says about itself, as JSON values.
    """

    stage: str
    seconds: float
    rows: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt at a unit ended; a unit answers with this and never raises."""

    unit: Unit
    attempt: int
    status: Literal["published", "failed", "cancelled"]
    publications: tuple[Publication, ...] = ()
    findings: tuple[Finding, ...] = ()
    timings: tuple[Timing, ...] = ()
    error: MantaError | None = None
    retry_in: timedelta | None = None
    api_calls: int = 0
    api_bytes: int = 0


class Processor(Protocol):
    """What `get_engine()` of a processor module returns.

    `execute` answers {"status": "SUCCESS"|"SKIPPED"|"FAILED", "tables": {name: pyarrow.Table},
    "metrics": {...}, "findings": [Finding], "error": str}, and in a `discover` step "discovered": Discovery.
    """

    async def execute(self, step_config: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]: ...

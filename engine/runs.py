"""What a run is: the request, where it stands, and what its units did."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from engine.audit import Audit
from engine.types import Outcome, RunRequest, Unit

TERMINAL = ("SUCCESS", "PARTIAL", "FAILED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class Tally:
    """What a run has done so far. Bytes are of provider answers, load jobs are jobs that changed a table."""

    units_total: int = 0
    units_published: int = 0
    units_failed: int = 0
    partitions_loaded: int = 0
    partitions_unchanged: int = 0
    row_count: int = 0
    api_calls: int = 0
    api_bytes: int = 0
    load_jobs: int = 0

    def add(self, outcome: Outcome) -> Tally:
        """Count a unit's attempt."""
        loaded = [p for p in outcome.publications if p.how != "unchanged"]
        return replace(
            self,
            units_published=self.units_published + (outcome.status == "published"),
            partitions_loaded=self.partitions_loaded + len(loaded),
            partitions_unchanged=self.partitions_unchanged + len(outcome.publications) - len(loaded),
            row_count=self.row_count + sum(p.rows for p in outcome.publications),
            api_calls=self.api_calls + outcome.api_calls,
            api_bytes=self.api_bytes + outcome.api_bytes,
            load_jobs=self.load_jobs + len({p.job_id for p in loaded if p.job_id}),
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from; it goes on record in the run's first row.

    `fingerprint` is of the request as it was sent: an idempotency key that comes with another one is refused.
    """

    trigger_type: str
    trigger_by: str
    audit: Audit | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run as its latest row says. `sequence` orders an organisation's runs, `version` a run's rows."""

    id: str
    request: RunRequest
    request_key: str
    pipeline_id: str
    status: str
    sequence: int
    version: int
    trigger_type: str
    trigger_by: str
    start_time: datetime
    plan_id: str | None = None
    tally: Tally = field(default_factory=Tally)
    error_code: str | None = None
    error_message: str | None = None
    end_time: datetime | None = None

    @property
    def terminal(self) -> bool:
        """True when nothing will change any more."""
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True)
class Progress:
    """A run as its driver sees it now; `running` names units."""

    run: Run
    running: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Transition:
    """One state change of a unit. `position` orders a run's transitions."""

    unit: Unit
    position: int
    attempt: int
    before: str
    after: str
    at: datetime
    error_code: str | None = None
    error_message: str | None = None

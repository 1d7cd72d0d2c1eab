"""What answers look like, for the document and for whoever reads them; amounts are strings."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

RunStatus = Literal["PENDING", "RUNNING", "CANCELLING", "SUCCESS", "PARTIAL", "FAILED", "CANCELLED"]


class Answer(BaseModel):
    """An answer's body."""

    model_config = ConfigDict(frozen=True)


class FieldError(Answer):
    """What is wrong with one field: of the body by JSON pointer, else by parameter."""

    pointer: str | None = None
    parameter: str | None = None
    detail: str


class ProblemAnswer(Answer):
    """Every refusal (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    fix: str | None = None
    errors: list[FieldError] | None = None


class Accepted(Answer):
    """A run that is on record; it goes on whatever happens to the connection."""

    pipeline_logging_id: str
    pipeline_id: str
    org_slug: str
    status: str
    message: str
    status_url: str


class Tally(Answer):
    """What a run has done so far."""

    units_total: int
    units_published: int
    units_failed: int
    partitions_loaded: int
    partitions_unchanged: int
    row_count: int
    api_calls: int
    api_bytes: int
    load_jobs: int


class RunAnswer(Answer):
    """A run. `seconds` is null until it has ended."""

    pipeline_logging_id: str
    pipeline_id: str
    org_slug: str
    pipeline: str
    status: str
    start_date: date
    end_date: date
    policy: str
    variables: dict[str, Any]
    trigger_type: str
    trigger_by: str
    plan_id: str | None
    start_time: datetime
    end_time: datetime | None
    seconds: float | None
    tally: Tally
    error_code: str | None
    error_message: str | None
    status_url: str


class RunPage(Answer):
    """Runs, newest first."""

    runs: list[RunAnswer]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null at the end.")


class DayLine(Answer):
    """One day of a run, or a stretch that it did not take. `seconds` is of the whole unit."""

    first: date
    last: date
    state: str
    attempts: int
    seconds: float | None
    unit_days: int
    error_code: str | None


class UnitLine(Answer):
    """A unit as it now stands."""

    unit: str
    first_day: date
    last_day: date
    state: str
    attempt: int
    error_code: str | None
    error_message: str | None


class StepLine(Answer):
    """One stage of one attempt at a unit."""

    unit: str
    attempt: int
    step: str
    status: str
    duration_ms: int
    rows: int | None


class Stage(Answer):
    """All attempts' time in one stage; `share` is of the time in all stages."""

    name: str
    times: int
    seconds: float
    share: float
    rows: int


class Failure(Answer):
    """A unit whose last word is a failure."""

    unit: str
    state: str
    attempt: int
    code: str | None
    message: str
    fix: str


class FindingLine(Answer):
    """Something that a person should know and that stopped nothing."""

    code: str
    target_table: str
    subject: str
    row_count: int
    days: int
    detail: str | None


class RunDetail(RunAnswer):
    """A run with its units, steps, timings, findings and errors; the lists are empty with detail=false."""

    running: list[str] = Field(default=[], description="Units that are under way at this moment.")
    days: list[DayLine] = []
    units: list[UnitLine] = []
    steps: list[StepLine] = []
    timings: list[Stage] = []
    findings: list[FindingLine] = []
    errors: list[Failure] = []


class Event(Answer):
    """One state change of a unit."""

    position: int
    unit: str
    first_day: date
    last_day: date
    attempt: int
    from_state: str
    to_state: str
    error_code: str | None
    error_message: str | None
    at: datetime


class EventPage(Answer):
    """What happened behind a position."""

    pipeline_logging_id: str
    status: str
    events: list[Event]
    next_after: int = Field(description="Send it as `after` to go on.")


class PlanUnit(Answer):
    """Consecutive days that are one task."""

    first_day: date
    last_day: date
    days: int


class Skipped(Answer):
    """A partition that the plan leaves out, and why."""

    table: str
    day: date
    reason: str


class PlanAnswer(Answer):
    """What a run with the same body would do."""

    plan_id: str
    org_slug: str
    pipeline: str
    start_date: date
    end_date: date
    policy: str
    variables: dict[str, Any]
    units: list[PlanUnit]
    provisional_days: list[date]
    api_calls: int
    load_jobs: int
    estimate: bool
    discovered_days: list[date] | None
    skipped: list[Skipped]


class LiveAnswer(Answer):
    """Whether a replica lives."""

    status: str


class HealthAnswer(Answer):
    """What this is."""

    status: str
    service: str
    version: str
    environment: str


class CheckLine(Answer):
    """One thing that was looked at; `problem` and `fix` are empty when it is well."""

    name: str
    status: Literal["ok", "failed"]
    problem: str
    fix: str


class ReadyAnswer(Answer):
    """Whether everything is there that work needs."""

    status: Literal["ok", "failed"]
    checks: list[CheckLine]
    numbers: dict[str, int] = Field(description="Of the whole cluster; empty while it does not answer.")


class StepOut(Answer):
    """One step of a pipeline."""

    step_id: str
    ps_type: str
    depends_on: list[str]
    timeout_seconds: float


class OutputOut(Answer):
    """A table that a pipeline publishes, by day."""

    table: str
    description: str
    checks: list[str]


class PipelineOut(Answer):
    """A pipeline. `variables` are what it declares, with their defaults."""

    pipeline: str
    name: str
    description: str
    provider: str
    variables: dict[str, Any]
    steps: list[StepOut]
    outputs: list[OutputOut]


class PipelineList(Answer):
    """Every pipeline, by path."""

    pipelines: list[PipelineOut]


class CostRow(Answer):
    """The spend of one group beside the period before; what it is grouped by is one more member."""

    model_config = ConfigDict(extra="allow")

    org_slug: str
    provider: str
    currency: str
    cost: str
    cost_before: str
    change: str
    change_percent: str | None
    tokens: int
    unpriced_tokens: int
    unpriced_rows: int


class CostAnswer(Answer):
    """What was spent; `truncated` when `limit` left rows out."""

    org_slug: str
    since: date
    until: date
    by: str
    rows: list[CostRow]
    truncated: bool

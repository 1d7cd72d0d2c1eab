"""Runs on record: the warehouse is their only memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, date, datetime
from typing import Any, cast

from engine.audit import Audit
from engine.central import Central
from engine.runs import TERMINAL, Origin, Run, Tally, Transition
from engine.types import Outcome, Policy, RunRequest

RUNS, TRANSITIONS, STEPS, FINDINGS = (
    "org_meta_pipeline_runs",
    "org_meta_state_transitions",
    "org_meta_step_logs",
    "org_meta_dq_results",
)


class RunHistory:
    """Appends and reads the run tables of the `organizations` dataset."""

    def __init__(self, central: Central) -> None:
        self._central = central

    def save(self, run: Run, *, now: datetime, audit: Audit | None = None) -> None:
        """Append the run's present state; its caller has raised `version`."""
        self._central.append(RUNS, [_run_row(run, now, audit=audit)])

    def accept(self, runs: Sequence[tuple[Run, Origin]], *, now: datetime) -> None:
        """Append the first rows of new runs, all in one request, each with where it came from."""
        self._central.append(RUNS, [_run_row(run, now, origin=origin) for run, origin in runs])

    def record(
        self, run: Run, transitions: Sequence[Transition], outcomes: Sequence[Outcome], *, now: datetime
    ) -> None:
        """Append what happened to units since the last call: transitions, stage timings, findings."""
        base = {"org_slug": run.request.org, "pipeline_logging_id": run.id}
        if transitions:
            self._central.append(TRANSITIONS, [_transition_row(base, run, t) for t in transitions])
        steps = [row for outcome in outcomes for row in _step_rows(base, outcome, now)]
        if steps:
            self._central.append(STEPS, steps)
        findings = [row for outcome in outcomes for row in _finding_rows(base, outcome, now)]
        if findings:
            self._central.append(FINDINGS, findings)

    def get(self, org: str, run_id: str) -> Run | None:
        """The run, or None."""
        found = self._runs(org, "pipeline_logging_id = @run", {"run": run_id}, limit=1)
        return found[0] if found else None

    def find(self, run_id: str) -> Run | None:
        """The run of that id, whichever organisation's it is; for the operator's command line."""
        sql = _latest_rows("pipeline_logging_id = @run")
        found = _to_runs(self._central.query(sql, {"run": run_id}, org=None, purpose="find-run"))
        return found[0] if found else None

    def latest(self, org: str, *, limit: int = 20) -> list[Run]:
        """The organisation's runs, newest first."""
        return self._runs(org, "TRUE", {}, limit=limit)

    def page(
        self,
        org: str,
        *,
        pipeline: str | None = None,
        status: str | None = None,
        since: date | None = None,
        until: date | None = None,
        before: int | None = None,
        limit: int = 20,
    ) -> list[Run]:
        """The organisation's runs, newest first, behind sequence `before`.

        `since` and `until` bound the UTC day a run was accepted on, both included.
        """
        wanted: dict[str, tuple[str, object]] = {
            "pipeline = @pipeline": ("pipeline", pipeline),
            "DATE(start_time) >= @since": ("since", since),
            "DATE(start_time) <= @until": ("until", until),
            "sequence < @before": ("before", before),
        }
        given = {text: pair for text, pair in wanted.items() if pair[1] is not None}
        sql = _latest_rows(" AND ".join(["org_slug = @org_slug", *given]))
        parameters = {**dict(given.values()), "limit": limit}
        if status is not None:
            sql += " AND status = @status"
            parameters["status"] = status
        sql += " ORDER BY sequence DESC LIMIT @limit"
        return _to_runs(self._central.query(sql, parameters, org=org, purpose="runs-page"))

    def active(self) -> list[Run]:
        """Runs of all organisations that have not ended, in the order they were accepted."""
        sql = _latest_rows("TRUE") + f" AND status NOT IN {TERMINAL} ORDER BY start_time, sequence"
        return _to_runs(self._central.query(sql, {}, org=None, purpose="active-runs"))

    def sequences(self) -> dict[str, int]:
        """The highest sequence given to a run, by organisation."""
        sql = "SELECT org_slug, MAX(sequence) AS top FROM org_meta_pipeline_runs GROUP BY org_slug"
        found = self._central.query(sql, {}, org=None, purpose="last-sequences")
        return {row["org_slug"]: row["top"] for row in found.to_pylist()}

    def accepted(self, since: date) -> list[tuple[str, date, int]]:
        """How many runs each organisation had accepted on each UTC day from `since` on."""
        sql = (
            "SELECT org_slug, DATE(start_time) AS day, COUNT(DISTINCT pipeline_logging_id) AS runs "
            "FROM org_meta_pipeline_runs WHERE start_time >= @since GROUP BY org_slug, day"
        )
        found = self._central.query(sql, {"since": _midnight(since)}, org=None, purpose="runs-accepted")
        return [(row["org_slug"], row["day"], row["runs"]) for row in found.to_pylist()]

    def idempotency_keys(self, since: datetime) -> list[tuple[str, str, str, str, datetime]]:
        """(organisation, key, fingerprint, run id, accepted at) of runs since then that came with a key."""
        sql = (
            "SELECT DISTINCT org_slug, idempotency_key, idempotency_fingerprint, pipeline_logging_id, "
            "start_time FROM org_meta_pipeline_runs "
            "WHERE start_time >= @since AND idempotency_key IS NOT NULL ORDER BY start_time"
        )
        found = self._central.query(sql, {"since": since}, org=None, purpose="idempotency-keys")
        return [tuple(row.values()) for row in found.to_pylist()]

    def transitions(self, org: str, run_id: str, *, after: int = 0) -> list[dict[str, Any]]:
        """The run's transitions behind `after`, in order."""
        sql = (
            "SELECT DISTINCT position, entity_name, first_day, last_day, attempt, from_state, to_state, "
            "error_type, error_message, transition_time "
            "FROM org_meta_state_transitions "
            "WHERE org_slug = @org_slug AND pipeline_logging_id = @run "
            "AND position > @after ORDER BY position"
        )
        found = self._central.query(sql, {"run": run_id, "after": after}, org=org, purpose="transitions")
        return cast("list[dict[str, Any]]", found.to_pylist())

    def steps(self, org: str, run_id: str) -> list[dict[str, Any]]:
        """Stage timings of the run's attempts."""
        sql = (
            "SELECT DISTINCT entity_name, attempt, step_index, step_name, status, duration_ms, "
            "rows_processed FROM org_meta_step_logs WHERE org_slug = @org_slug "
            "AND pipeline_logging_id = @run ORDER BY entity_name, attempt, step_index"
        )
        found = self._central.query(sql, {"run": run_id}, org=org, purpose="steps")
        return cast("list[dict[str, Any]]", found.to_pylist())

    def findings(self, org: str, run_id: str) -> list[dict[str, Any]]:
        """What the run found, rolled up over days."""
        sql = (
            "SELECT code, target_table, subject, SUM(row_count) AS row_count, COUNT(DISTINCT day) AS days, "
            "MIN(detail) AS detail FROM (SELECT DISTINCT * EXCEPT (executed_at, attempt) "
            "FROM org_meta_dq_results WHERE org_slug = @org_slug AND pipeline_logging_id = @run) "
            "GROUP BY code, target_table, subject ORDER BY code, target_table, subject"
        )
        found = self._central.query(sql, {"run": run_id}, org=org, purpose="findings")
        return cast("list[dict[str, Any]]", found.to_pylist())

    def failed_days(self, org: str, pipeline: str, start: date, end: date) -> frozenset[date]:
        """Days whose latest attempt, by run sequence and position, ended FAILED, QUARANTINED or CANCELLED."""
        sql = (
            "SELECT first_day, last_day, to_state, sequence, position FROM org_meta_state_transitions "
            "WHERE org_slug = @org_slug AND pipeline = @pipeline AND first_day <= @end "
            "AND last_day >= @start AND to_state IN ('PUBLISHED', 'FAILED', 'QUARANTINED', 'CANCELLED') "
            "ORDER BY sequence, position"
        )
        found = self._central.query(
            sql, {"pipeline": pipeline, "start": start, "end": end}, org=org, purpose="failed-days"
        )
        state: dict[date, str] = {}
        for row in found.to_pylist():
            day = max(row["first_day"], start)
            while day <= min(row["last_day"], end):
                state[day] = row["to_state"]
                day = date.fromordinal(day.toordinal() + 1)
        return frozenset(day for day, last in state.items() if last != "PUBLISHED")

    def _runs(self, org: str, where: str, parameters: Mapping[str, object], *, limit: int) -> list[Run]:
        sql = _latest_rows(f"org_slug = @org_slug AND {where}") + " ORDER BY sequence DESC LIMIT @limit"
        return _to_runs(self._central.query(sql, {**parameters, "limit": limit}, org=org, purpose="runs"))


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _run_row(
    run: Run, now: datetime, *, origin: Origin | None = None, audit: Audit | None = None
) -> dict[str, object]:
    request = run.request
    audit = origin.audit if origin else audit
    return {
        "org_slug": request.org,
        "pipeline_logging_id": run.id,
        "version": run.version,
        "sequence": run.sequence,
        "request_key": run.request_key,
        "pipeline_id": run.pipeline_id,
        "pipeline": request.pipeline,
        "status": run.status,
        "policy": request.policy,
        "start_date": request.start,
        "end_date": request.end,
        "parameters": json.dumps(dict(request.variables), sort_keys=True, default=str),
        "trigger_type": run.trigger_type,
        "trigger_by": run.trigger_by,
        "plan_id": run.plan_id,
        **{f.name: getattr(run.tally, f.name) for f in fields(Tally)},
        "error_code": run.error_code,
        "error_message": run.error_message,
        "start_time": run.start_time,
        "end_time": run.end_time,
        "written_at": now,
        "endpoints": json.dumps(dict(request.endpoints), sort_keys=True) if request.endpoints else None,
        "idempotency_key": origin.idempotency_key if origin else None,
        "idempotency_fingerprint": origin.fingerprint if origin else None,
        "audit": audit.column() if audit else None,
    }


def _latest_rows(where: str) -> str:
    return (
        "SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY org_slug, pipeline_logging_id "
        f"ORDER BY version DESC) AS newest FROM org_meta_pipeline_runs WHERE {where}) "
        "WHERE newest = 1"
    )


def _to_runs(table: Any) -> list[Run]:
    return [_to_run(row) for row in table.to_pylist()]


def _to_run(row: Mapping[str, Any]) -> Run:
    request = RunRequest(
        org=row["org_slug"],
        pipeline=row["pipeline"],
        start=row["start_date"],
        end=row["end_date"],
        policy=cast("Policy", row["policy"]),
        variables=json.loads(row["parameters"]),
        endpoints=json.loads(row["endpoints"] or "{}"),
    )
    return Run(
        id=row["pipeline_logging_id"],
        request=request,
        request_key=row["request_key"],
        pipeline_id=row["pipeline_id"],
        status=row["status"],
        sequence=row["sequence"],
        version=row["version"],
        trigger_type=row["trigger_type"],
        trigger_by=row["trigger_by"],
        start_time=row["start_time"],
        plan_id=row["plan_id"],
        tally=Tally(**{f.name: row[f.name] or 0 for f in fields(Tally)}),
        error_code=row["error_code"],
        error_message=row["error_message"],
        end_time=row["end_time"],
    )


def _transition_row(base: Mapping[str, str], run: Run, transition: Transition) -> dict[str, object]:
    return {
        **base,
        "sequence": run.sequence,
        "position": transition.position,
        "pipeline": run.request.pipeline,
        "entity_name": str(transition.unit),
        "first_day": transition.unit.days[0],
        "last_day": transition.unit.days[-1],
        "attempt": transition.attempt,
        "from_state": transition.before,
        "to_state": transition.after,
        "error_type": transition.error_code,
        "error_message": transition.error_message,
        "transition_time": transition.at,
    }


def _step_rows(base: Mapping[str, str], outcome: Outcome, now: datetime) -> Iterable[dict[str, object]]:
    for index, timing in enumerate(outcome.timings):
        yield {
            **base,
            "entity_name": str(outcome.unit),
            "attempt": outcome.attempt,
            "step_index": index,
            "step_name": timing.stage,
            "status": outcome.status,
            "duration_ms": round(timing.seconds * 1000),
            "rows_processed": timing.rows,
            "metrics": json.dumps(timing.metrics, default=str, sort_keys=True) if timing.metrics else None,
            "end_time": now,
        }


def _finding_rows(base: Mapping[str, str], outcome: Outcome, now: datetime) -> Iterable[dict[str, object]]:
    for finding in outcome.findings:
        yield {
            **base,
            "code": finding.code,
            "target_table": finding.table,
            "subject": finding.subject,
            "day": finding.day,
            "attempt": outcome.attempt,
            "row_count": finding.rows,
            "detail": finding.detail,
            "executed_at": now,
        }

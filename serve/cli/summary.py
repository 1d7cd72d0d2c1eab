"""What is said about plans and about runs that have ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from engine.types import Plan, RunRequest
from serve.cli.output import (
    FAILED,
    SUCCEEDED,
    count,
    days,
    duration,
    json_line,
    line,
    size,
    state,
    table,
)

if TYPE_CHECKING:
    from engine.history import RunHistory
    from engine.runs import Run, Tally
    from serve.cli.desk import Desk

FAILED_STATES = ("FAILED", "QUARANTINED")
FINDINGS_SHOWN = 8
FAILURES_SHOWN = 20


def show_plan(desk: Desk, plan: Plan, *, as_json: bool) -> None:
    """The plan that a run with the same arguments would carry out."""
    if as_json:
        json_line(desk.out, plan_facts(plan))
        return
    request = plan.request
    line(desk.out, f"Plan {plan.id}: {title(request)}, policy {request.policy}")
    if plan.units:
        rows = [
            (days(unit.days[0], unit.days[-1]), len(unit.days), _open_days(unit.days, plan))
            for unit in plan.units
        ]
        table(desk.out, ("unit", "days", "note"), rows, right=("days",))
    line(
        desk.out,
        f"{counted(len(plan.units), 'unit')}, {counted(sum(len(unit.days) for unit in plan.units), 'day')}, "
        f"at least {counted(plan.api_calls, 'API call')}, at most {counted(plan.load_jobs, 'load job')}",
    )
    for reason, parts in sorted(skipped(plan).items()):
        line(desk.out, f"  skipped: {counted(len(parts), 'day')} {reason} ({_ranges(parts)})")
    if plan.estimate:
        line(desk.out, "An estimate: what changed at the source is not known; --discover asks there.")
    if not plan.units:
        line(desk.out, "Nothing to do.")


def plan_facts(plan: Plan) -> dict[str, Any]:
    """A plan as JSON."""
    request = plan.request
    return {
        "plan_id": plan.id,
        "org_slug": request.org,
        "pipeline": request.pipeline,
        "start_date": request.start,
        "end_date": request.end,
        "policy": request.policy,
        "variables": request.variables,
        "units": [
            {"first_day": unit.days[0], "last_day": unit.days[-1], "days": len(unit.days)}
            for unit in plan.units
        ],
        "provisional_days": sorted(plan.provisional),
        "api_calls": plan.api_calls,
        "load_jobs": plan.load_jobs,
        "estimate": plan.estimate,
        "skipped": [
            {"table": part.table, "day": part.day, "reason": reason} for part, reason in plan.skipped.items()
        ],
    }


def title(request: RunRequest) -> str:
    """A request in words."""
    return f"{request.org} {request.pipeline} {days(request.start, request.end)}"


def skipped(plan: Plan) -> dict[str, list[date]]:
    """The days a plan leaves out, by reason."""
    found: dict[str, set[date]] = {}
    for part, reason in plan.skipped.items():
        found.setdefault(reason, set()).add(part.day)
    return {reason: sorted(left) for reason, left in found.items()}


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it belongs."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def _open_days(unit_days: Sequence[date], plan: Plan) -> str:
    still_open = [day.isoformat() for day in unit_days if day in plan.provisional]
    return f"not closed yet: {', '.join(still_open)}" if still_open else ""


def _ranges(found: Sequence[date]) -> str:
    """Consecutive days as ranges: 2026-01-01..2026-01-05, 2026-01-09."""
    stretches: list[list[date]] = []
    for day in found:
        if stretches and day - stretches[-1][-1] == timedelta(days=1):
            stretches[-1].append(day)
        else:
            stretches.append([day])
    return ", ".join(days(stretch[0], stretch[-1]) for stretch in stretches)


def show_end(desk: Desk, run: Run, history: RunHistory, *, as_json: bool) -> None:
    """How a run ended: numbers, failures each with its fix, findings."""
    failed = failures(history.transitions(run.request.org, run.id)) if run.tally.units_failed else []
    found = history.findings(run.request.org, run.id)
    if as_json:
        json_line(desk.out, {"event": "ended", **run_facts(run), "failures": failed, "findings": found})
        return
    line(desk.out)
    desk.out.print(state(run.status), end=" ")
    line(desk.out, f"{title(run.request)}")
    for text in numbers(run.tally, _span(run)):
        line(desk.out, f"  {text}")
    if run.error_message and not failed:
        line(desk.out, f"  {run.error_code}: {run.error_message}")
    show_failures(desk, failed)
    show_findings(desk, found)
    line(desk.out, f"  run {run.id}; what took how long: manta show {run.id}")
    if run.status in ("FAILED", "PARTIAL"):
        line(desk.out, f"  try what failed again: manta retry {run.id}")


def show_failures(desk: Desk, failed: Sequence[Mapping[str, Any]]) -> None:
    """Each failed unit: what it was, what happened, what to do."""
    for failure in failed[:FAILURES_SHOWN]:
        line(desk.out, f"  failed: {failure['unit']} ({failure['code']}, attempt {failure['attempt']})")
        line(desk.out, f"    {failure['message']}")
        if failure["fix"]:
            line(desk.out, f"    fix: {failure['fix']}")
    if len(failed) > FAILURES_SHOWN:
        line(desk.out, f"  and {counted(len(failed) - FAILURES_SHOWN, 'more failure')}")


def show_findings(desk: Desk, found: Sequence[Mapping[str, Any]]) -> None:
    """What a person should know and what stopped nothing."""
    for finding in found[:FINDINGS_SHOWN]:
        name = str(finding["code"]).replace("_", " ")
        where = f"{counted(finding['row_count'], 'row')}, {counted(finding['days'], 'day')}"
        line(desk.out, f"  {name}: {finding['subject']} ({where} of {finding['target_table']})")
    if len(found) > FINDINGS_SHOWN:
        line(desk.out, f"  and {counted(len(found) - FINDINGS_SHOWN, 'more finding')}")


def numbers(tally: Tally, span: timedelta) -> list[str]:
    """What a run did, or that there was nothing to do."""
    lines = []
    if not tally.units_total:
        lines.append("nothing to do: every day is published and closed")
    else:
        lines.append(
            f"{counted(tally.units_total, 'unit')}: {count(tally.units_published)} published, "
            f"{count(tally.units_failed)} failed"
        )
    if tally.units_published and not tally.partitions_loaded:
        lines.append(
            f"nothing to do: {counted(tally.partitions_unchanged, 'partition')} read again, none changed"
        )
    elif tally.units_published:
        lines.append(
            f"{counted(tally.partitions_loaded, 'partition')} loaded, "
            f"{count(tally.partitions_unchanged)} unchanged, {counted(tally.row_count, 'row')}"
        )
    lines.append(
        f"{counted(tally.api_calls, 'API call')} ({size(tally.api_bytes)}), "
        f"{counted(tally.load_jobs, 'load job')}, {duration(span)}"
    )
    return lines


def failures(transitions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The units whose last word is a failure, in order, each with error and fix apart."""
    last = {row["entity_name"]: row for row in transitions}
    found = []
    for row in last.values():
        if row["to_state"] not in FAILED_STATES:
            continue
        message, _, fix = str(row["error_message"] or "").partition(" Fix: ")
        found.append(
            {
                "unit": row["entity_name"],
                "state": row["to_state"],
                "attempt": row["attempt"],
                "code": row["error_type"],
                "message": message,
                "fix": fix,
            }
        )
    return found


def run_facts(run: Run) -> dict[str, Any]:
    """A run as JSON."""
    request = run.request
    return {
        "run_id": run.id,
        "org_slug": request.org,
        "pipeline": request.pipeline,
        "pipeline_id": run.pipeline_id,
        "status": run.status,
        "start_date": request.start,
        "end_date": request.end,
        "policy": request.policy,
        "variables": request.variables,
        "trigger_type": run.trigger_type,
        "trigger_by": run.trigger_by,
        "plan_id": run.plan_id,
        "start_time": run.start_time,
        "end_time": run.end_time,
        "seconds": round(_span(run).total_seconds(), 1) if run.end_time else None,
        "tally": run.tally,
        "error_code": run.error_code,
        "error_message": run.error_message,
    }


def _span(run: Run) -> timedelta:
    return (run.end_time or run.start_time) - run.start_time


def code_of(runs: Sequence[Run]) -> int:
    """0 when all succeeded, else 1."""
    return SUCCEEDED if all(run.status == "SUCCESS" for run in runs) else FAILED


def state_counts(transitions: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """How many units stand where."""
    return Counter({row["entity_name"]: row["to_state"] for row in transitions}.values())

"""Runs as they are shown: where they stand, what their units did, and pages of them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from engine.errors import NotFoundError, UsageError
from engine.runs import Run
from serve.auth import Visit
from serve.cli import summary, timeline
from serve.cli.output import jsonable
from serve.deps import Doors

EVENTS = 1000


@dataclass(frozen=True)
class Seen:
    """A run, and which of its units are under way; `live` when the supervisor says so."""

    run: Run
    running: tuple[str, ...] = ()
    live: bool = False


async def find(doors: Doors, visit: Visit, run_id: str, org: str | None = None) -> Seen:
    """The run with this id, of the caller's organisation; root finds any. Raises NotFoundError."""
    mine = visit.caller.org or org
    progress = await doors.cluster.progress([run_id])
    for one in progress:
        if mine in (None, one.run.request.org):
            visit.on(one.run.request.org, run_id)
            return Seen(one.run, tuple(one.running), live=not one.run.terminal)
    history = doors.work.history
    found = await (
        asyncio.to_thread(history.find, run_id)
        if mine is None
        else asyncio.to_thread(history.get, mine, run_id)
    )
    if found is None:
        raise NotFoundError(f"There is no run {run_id!r}.", fix="List them: GET /api/v1/pipelines/runs")
    visit.on(found.request.org, run_id)
    return Seen(found)


def status_url(run_id: str) -> str:
    """Where a run is followed."""
    return f"/api/v1/pipelines/runs/{run_id}"


def facts(run: Run) -> dict[str, Any]:
    """A run as JSON."""
    found: dict[str, Any] = jsonable(summary.run_facts(run))
    return {"pipeline_logging_id": found.pop("run_id"), **found, "status_url": status_url(run.id)}


async def detail(doors: Doors, seen: Seen, *, everything: bool) -> dict[str, Any]:
    """A run with all that is on record about it, or alone."""
    run = seen.run
    answer = facts(run) | {"running": list(seen.running)}
    if not everything:
        return answer
    history, org = doors.work.history, run.request.org
    transitions, steps, findings = await asyncio.gather(
        asyncio.to_thread(history.transitions, org, run.id),
        asyncio.to_thread(history.steps, org, run.id),
        asyncio.to_thread(history.findings, org, run.id),
    )
    more: dict[str, Any] = jsonable(
        {
            "days": [asdict(one) for one in timeline.day_lines(run.request, transitions)],
            "units": _units(transitions),
            "steps": [_step(row) for row in steps],
            "timings": [asdict(one) for one in timeline.stages_of(steps)],
            "findings": findings,
            "errors": summary.failures(transitions),
        }
    )
    return answer | more


def _units(transitions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    last = {row["entity_name"]: row for row in transitions}
    return [
        {
            "unit": name,
            "first_day": row["first_day"],
            "last_day": row["last_day"],
            "state": row["to_state"],
            "attempt": row["attempt"],
            "error_code": row["error_type"],
            "error_message": row["error_message"],
        }
        for name, row in last.items()
    ]


def _step(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "unit": row["entity_name"],
        "attempt": row["attempt"],
        "step": row["step_name"],
        "status": row["status"],
        "duration_ms": row["duration_ms"],
        "rows": row["rows_processed"],
    }


async def events(doors: Doors, seen: Seen, after: int) -> dict[str, Any]:
    """What the run's units did behind a position, at most EVENTS at once."""
    run = seen.run
    rows = await asyncio.to_thread(doors.work.history.transitions, run.request.org, run.id, after=after)
    found = [
        {
            "position": row["position"],
            "unit": row["entity_name"],
            "first_day": row["first_day"],
            "last_day": row["last_day"],
            "attempt": row["attempt"],
            "from_state": row["from_state"],
            "to_state": row["to_state"],
            "error_code": row["error_type"],
            "error_message": row["error_message"],
            "at": row["transition_time"],
        }
        for row in rows[:EVENTS]
    ]
    answer: dict[str, Any] = jsonable(
        {
            "pipeline_logging_id": run.id,
            "status": run.status,
            "events": found,
            "next_after": found[-1]["position"] if found else after,
        }
    )
    return answer


@dataclass(frozen=True)
class Filters:
    """Which runs to list; days are of acceptance, in UTC, both included."""

    pipeline: str | None = None
    status: str | None = None
    since: date | None = None
    until: date | None = None


async def page(doors: Doors, org: str, filters: Filters, *, limit: int, cursor: str | None) -> dict[str, Any]:
    """One page of an organisation's runs, newest first. Raises UsageError for a cursor of another list."""
    before = _place(cursor, org, filters) if cursor else None
    # One more than asked for says whether there is a next page.
    found = await asyncio.to_thread(
        doors.work.history.page,
        org,
        pipeline=filters.pipeline,
        status=filters.status,
        since=filters.since,
        until=filters.until,
        before=before,
        limit=limit + 1,
    )
    more = len(found) > limit
    shown = found[:limit]
    return {
        "runs": [facts(run) for run in shown],
        "next_cursor": _cursor(shown[-1].sequence, org, filters) if more else None,
    }


def _list_of(org: str, filters: Filters) -> list[str | None]:
    days = [day.isoformat() if day else None for day in (filters.since, filters.until)]
    return [org, filters.pipeline, filters.status, *days]


def _cursor(sequence: int, org: str, filters: Filters) -> str:
    text = json.dumps([sequence, *_list_of(org, filters)], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _place(cursor: str, org: str, filters: Filters) -> int:
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
        sequence, *rest = place
        if rest != _list_of(org, filters) or type(sequence) is not int or not 0 <= sequence < 2**63:
            raise ValueError("of another list")
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise UsageError(
            "That cursor is none of this list's.", fix="Begin without it.", field="cursor"
        ) from error
    return sequence

"""The audit trail: who did what, from where."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from engine.audit_log import read
from serve.auth import Visit, org_or_root
from serve.dates import DayQuery
from serve.deps import DoorsDep
from serve.openapi import problems
from serve.org_answers import AuditPage
from serve.routers.runs import Cursor, Org

router = APIRouter(prefix="/api/v1/organizations/{org}/audit", tags=["organizations"])
Reader = Annotated[Visit, Depends(org_or_root("admin", "audit.read", "audit"))]


@router.get("", response_model=AuditPage, responses=problems(404))
async def list_audit(
    visit: Reader,
    doors: DoorsDep,
    org: Org,
    since: DayQuery = None,
    until: DayQuery = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """List what was done and asked, newest first; days are in UTC, both included."""
    await doors.known_org(org)
    found = await asyncio.to_thread(
        read,
        doors.work.central,
        org,
        since=_midnight(since) if since else None,
        until=_midnight(until) + timedelta(days=1) if until and until < date.max else None,
        # One more than asked for says whether there is a next page.
        limit=limit + 1,
        after=cursor,
    )
    shown = found[:limit]
    return {
        "org_slug": org,
        "entries": [{k: v for k, v in asdict(entry).items() if k != "org_slug"} for entry in shown],
        "next_cursor": shown[-1].cursor if len(found) > limit else None,
    }


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)

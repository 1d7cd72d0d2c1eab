"""What an organisation spent: the rows of `manta cost --json`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from engine.costs import Grouping
from serve import cost_rows
from serve.answers import CostAnswer
from serve.auth import Visit, org_or_root
from serve.cli.output import jsonable
from serve.dates import DayQuery
from serve.deps import DoorsDep
from serve.openapi import problems
from serve.routers.runs import Org

router = APIRouter(prefix="/api/v1/costs", tags=["costs"])
Reader = Annotated[Visit, Depends(org_or_root("read", "cost.read", "cost"))]


@router.get("/{org}", response_model=CostAnswer, responses=problems(404))
async def show_costs(
    visit: Reader,
    doors: DoorsDep,
    org: Org,
    since: DayQuery = None,
    until: DayQuery = None,
    by: Annotated[Grouping, Query(description="What to group by.")] = "model",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> dict[str, Any]:
    """Show what was spent, beside the equally long period before; without days the last 30 closed ones.

    Tokens that no known price fits are counted apart, never guessed.
    """
    await doors.known_org(org)
    first, last = cost_rows.period(since, until, today=doors.now().date())
    found = await asyncio.to_thread(cost_rows.spent, doors.work, [org], since=first, until=last, by=by)
    rows = list(cost_rows.rows_of(found, by=by))
    facts: dict[str, Any] = jsonable(
        {
            "org_slug": org,
            "since": first,
            "until": last,
            "by": by,
            "rows": rows[:limit],
            "truncated": len(rows) > limit,
        }
    )
    return facts

"""Plans and quotas: shown to the organisation's admin, set with the root key."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from engine.plans import KEEP, Change, Subscription
from serve.auth import Visit, org_or_root, root_only
from serve.bodies import Body, documented, read
from serve.deps import Doors, DoorsDep
from serve.models import PlanBody, QuotaBody
from serve.openapi import problems
from serve.org_answers import QuotaOut
from serve.routers.runs import Org

router = APIRouter(prefix="/api/v1/organizations/{org}", tags=["organizations"])

Reader = Annotated[Visit, Depends(org_or_root("admin", "quota.read", "quota"))]
Setter = Annotated[Visit, Depends(root_only("quota.set", "quota"))]
Planner = Annotated[Visit, Depends(root_only("plan.set", "plan"))]
NewQuota = Annotated[Body[QuotaBody], Depends(read(QuotaBody))]
NewPlan = Annotated[Body[PlanBody], Depends(read(PlanBody))]


@router.get("/quota", response_model=QuotaOut, responses=problems(404))
async def show_quota(visit: Reader, doors: DoorsDep, org: Org) -> dict[str, Any]:
    """Show an organisation's plan, limits and what is used of them."""
    await doors.known_org(org)
    return await _facts(doors, await asyncio.to_thread(doors.work.subscriptions.get, org))


@router.put(
    "/quota",
    response_model=QuotaOut,
    responses=problems(404),
    openapi_extra=documented(QuotaBody, {"fewer a day, unlimited a month": {"daily": 10, "monthly": None}}),
)
async def set_quota(visit: Setter, body: NewQuota, doors: DoorsDep, org: Org) -> dict[str, Any]:
    """Set limits apart from the plan's: null is unlimited, what is left out stays."""
    await doors.known_org(org)
    found = await asyncio.to_thread(
        doors.work.subscriptions.set_quota,
        org,
        daily=_change(body.value, "daily"),
        monthly=_change(body.value, "monthly"),
        concurrent=_change(body.value, "concurrent"),
        audit=visit.carried(org, org),
    )
    await doors.directory.renew()
    return await _facts(doors, found)


@router.put(
    "/plan",
    response_model=QuotaOut,
    responses=problems(404),
    openapi_extra=documented(PlanBody, {"a plan": {"plan": "PROFESSIONAL"}}),
)
async def set_plan(visit: Planner, body: NewPlan, doors: DoorsDep, org: Org) -> dict[str, Any]:
    """Give an organisation a plan and its limits; quotas of its own end."""
    await doors.known_org(org)
    found = await asyncio.to_thread(
        doors.work.subscriptions.set_plan, org, body.value.plan, audit=visit.carried(org, org)
    )
    await doors.directory.renew()
    return await _facts(doors, found)


def _change(body: QuotaBody, name: str) -> Change:
    if name not in body.model_fields_set:
        return KEEP
    limit: int | None = getattr(body, name)
    return limit


async def _facts(doors: Doors, found: Subscription) -> dict[str, Any]:
    return {
        "org_slug": found.org,
        "plan": found.plan,
        "is_custom": found.is_custom,
        "limits": asdict(found.limits),
        "usage": asdict(await doors.cluster.usage(found.org)),
    }

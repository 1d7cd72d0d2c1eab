"""Organisations: add, list, suspend, resume, remove; the root key's."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse

from engine.life import GRACE_DAYS, MOST_GRACE_DAYS, Removal
from engine.tenants import Org as Organisation
from serve.auth import Visit, root_only
from serve.bodies import Body, documented, read
from serve.cli.output import jsonable
from serve.deps import Doors, DoorsDep
from serve.models import OrganizationBody
from serve.openapi import LOCATION, problems
from serve.org_answers import OrganizationList, OrganizationOut, RemovalOut
from serve.routers.runs import Org

router = APIRouter(prefix="/api/v1/organizations", tags=["organizations"])

Lister = Annotated[Visit, Depends(root_only("org.list", "organization"))]
Reader = Annotated[Visit, Depends(root_only("org.read", "organization"))]
Adder = Annotated[Visit, Depends(root_only("org.add", "organization"))]
Suspender = Annotated[Visit, Depends(root_only("org.suspend", "organization"))]
Resumer = Annotated[Visit, Depends(root_only("org.resume", "organization"))]
Remover = Annotated[Visit, Depends(root_only("org.remove", "organization"))]
NewOrganization = Annotated[Body[OrganizationBody], Depends(read(OrganizationBody))]
EXAMPLE = {"org_slug": "acme_corp", "name": "Acme Corp", "admin_email": "ann@acme.example"}


@router.get("", response_model=OrganizationList, responses=problems())
async def list_organizations(visit: Lister, doors: DoorsDep) -> dict[str, Any]:
    """List every organisation, removed ones too."""
    found = await asyncio.to_thread(doors.work.tenants.every)
    return {"organizations": [facts(org) for org in found]}


@router.post(
    "",
    status_code=201,
    response_model=OrganizationOut,
    responses={201: {"headers": LOCATION}, **problems(409)},
    openapi_extra=documented(OrganizationBody, {"an organisation": EXAMPLE}),
)
async def add_organization(visit: Adder, body: NewOrganization, doors: DoorsDep) -> JSONResponse:
    """Add an organisation and its dataset; the same again answers the one that is there."""
    asked = body.value
    added = await asyncio.to_thread(
        doors.work.tenants.add,
        asked.org_slug,
        name=asked.name,
        admin_email=asked.admin_email,
        audit=visit.carried(asked.org_slug, asked.org_slug),
    )
    await doors.directory.renew()
    url = f"/api/v1/organizations/{added.slug}"
    return JSONResponse(facts(added), 201, headers={"Location": url})


@router.get("/{org}", response_model=OrganizationOut, responses=problems(404))
async def show_organization(visit: Reader, doors: DoorsDep, org: Org) -> dict[str, Any]:
    """Show an organisation."""
    return facts(await asyncio.to_thread(doors.work.tenants.get, org))


@router.post("/{org}/suspend", response_model=OrganizationOut, responses=problems(404, 409))
async def suspend_organization(visit: Suspender, doors: DoorsDep, org: Org) -> dict[str, Any]:
    """Refuse an organisation's runs until it is resumed; what runs goes on."""
    found = await asyncio.to_thread(doors.work.life.suspend, org, visit.carried(org, org))
    await doors.directory.renew()
    return facts(found)


@router.post("/{org}/resume", response_model=OrganizationOut, responses=problems(404, 409))
async def resume_organization(visit: Resumer, doors: DoorsDep, org: Org) -> dict[str, Any]:
    """Take an organisation's runs again."""
    found = await asyncio.to_thread(doors.work.life.resume, org, visit.carried(org, org))
    await doors.directory.renew()
    return facts(found)


@router.delete("/{org}", response_model=RemovalOut, responses=problems(404, 409))
async def remove_organization(
    visit: Remover,
    doors: DoorsDep,
    org: Org,
    dry_run: Annotated[bool, Query(description="true: only say what would go.")] = True,
    grace_days: Annotated[int, Query(ge=0, le=MOST_GRACE_DAYS)] = GRACE_DAYS,
) -> dict[str, Any]:
    """Remove an organisation: cancels its runs, revokes its keys, destroys its data keys.

    Its dataset goes when the grace period is over (`manta org purge`). Unless dry_run=false is given this
    only says what would go.
    """
    life = doors.work.life
    if dry_run:
        return removal(await asyncio.to_thread(life.plan_removal, org, grace_days=grace_days), dry_run=True)
    found = await asyncio.to_thread(
        life.remove,
        org,
        grace_days=grace_days,
        audit=visit.carried(org, org),
        cancel=canceller(doors, visit, org),
    )
    await doors.directory.renew()
    return removal(found, dry_run=False)


def canceller(doors: Doors, visit: Visit, org: str) -> Any:
    """Cancels a run from the thread that an engine's call lives in."""
    loop = asyncio.get_running_loop()
    audit = visit.as_action("run.cancel", "run")

    def cancel(run_id: str) -> None:
        asked = doors.cluster.cancel(org, run_id, audit=audit)
        asyncio.run_coroutine_threadsafe(asked, loop).result()

    return cancel


def facts(org: Organisation) -> dict[str, Any]:
    """An organisation as JSON."""
    found: dict[str, Any] = jsonable(
        {
            "org_slug": org.slug,
            "name": org.name,
            "admin_email": org.admin_email,
            "dataset": org.dataset,
            "status": org.status,
            "purge_after": org.purge_after,
            "created_at": org.created_at,
        }
    )
    return found


def removal(found: Removal, *, dry_run: bool) -> dict[str, Any]:
    """A removal as JSON."""
    return {
        "org_slug": found.org,
        "dry_run": dry_run,
        "status": found.status,
        "dataset": found.dataset,
        "purge_after": found.purge_after,
        "keys": found.keys,
        "credentials": found.credentials,
        "tables": list(found.tables),
        "active_runs": list(found.runs),
        "pending_data_keys": found.pending,
    }

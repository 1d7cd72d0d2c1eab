"""Stored procedures: list, show, sync, delete; the root key's."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from engine.errors import NotFoundError
from serve.auth import NOBODY, Visit, root_only
from serve.bodies import Body, documented, read
from serve.deps import DoorsDep
from serve.models import SyncBody
from serve.openapi import problems
from serve.procedure_answers import (
    DeletedOut,
    ProcedureList,
    ProcedureOut,
    SyncOut,
    procedure_facts,
    synced_facts,
)

router = APIRouter(prefix="/api/v1/procedures", tags=["procedures"])

Lister = Annotated[Visit, Depends(root_only("procedure.list", "procedure"))]
Reader = Annotated[Visit, Depends(root_only("procedure.read", "procedure"))]
Syncer = Annotated[Visit, Depends(root_only("procedure.sync", "procedure"))]
Deleter = Annotated[Visit, Depends(root_only("procedure.delete", "procedure"))]
Asked = Annotated[Body[SyncBody], Depends(read(SyncBody))]
Name = Annotated[
    str,
    Path(
        description="The procedure's name, as its file has it.",
        max_length=256,
        pattern=r"^[a-z][a-z0-9_]*$",
        examples=["saas_subscription_daily_costs"],
    ),
]


@router.get("", response_model=ProcedureList, responses=problems(409))
async def list_procedures(visit: Lister, doors: DoorsDep) -> dict[str, Any]:
    """List the procedures, and how what stands in the warehouse differs from the files."""
    found = await asyncio.to_thread(doors.work.procedures.compare)
    return {"procedures": [procedure_facts(one) for one in found]}


@router.post(
    "/sync",
    response_model=SyncOut,
    responses=problems(404, 409),
    openapi_extra=documented(
        SyncBody, {"all": {}, "a domain": {"domain": "saas_subscription", "dry_run": True}}, required=False
    ),
)
async def sync_procedures(visit: Syncer, body: Asked, doors: DoorsDep) -> dict[str, Any]:
    """Make the warehouse as the files say.

    What is as it should be is left alone; when one file is wrong, nothing is written.
    """
    asked = body.value
    chosen = ", ".join(asked.names or ([asked.domain] if asked.domain else []))
    visit.on(NOBODY, f"{'dry run: ' if asked.dry_run else ''}{chosen or 'all'}"[:200])
    found = await asyncio.to_thread(
        doors.work.procedures.sync, names=asked.names, domain=asked.domain, dry_run=asked.dry_run
    )
    return {"dry_run": asked.dry_run, "procedures": [synced_facts(one) for one in found]}


@router.get("/{name}", response_model=ProcedureOut, responses=problems(404, 409))
async def show_procedure(visit: Reader, doors: DoorsDep, name: Name) -> dict[str, Any]:
    """Show a procedure."""
    visit.on(NOBODY, name)
    return procedure_facts(await asyncio.to_thread(doors.work.procedures.show, name))


@router.delete("/{name}", response_model=DeletedOut, responses=problems(404, 409))
async def delete_procedure(visit: Deleter, doors: DoorsDep, name: Name) -> dict[str, Any]:
    """Drop a procedure that Manta wrote. One whose file stays comes back with the next sync."""
    visit.on(NOBODY, name)
    found = await asyncio.to_thread(doors.work.procedures.delete, name)
    if not found:
        raise NotFoundError(f"There is no procedure {name} in the warehouse.", fix="There is nothing to do.")
    file = await asyncio.to_thread(doors.work.procedures.file_of, name)
    return {"name": name, "file": file}

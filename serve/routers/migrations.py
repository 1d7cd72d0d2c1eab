"""Migrations: list, execute; the root key's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query

from engine.audit import Audit
from engine.validate import SLUG
from serve.auth import NOBODY, Visit, root_only
from serve.deps import DoorsDep
from serve.openapi import problems
from serve.procedure_answers import ExecutionOut, MigrationList, execution_facts, migration_facts

router = APIRouter(prefix="/api/v1/migrations", tags=["procedures"])

Lister = Annotated[Visit, Depends(root_only("migration.list", "migration"))]
Executor = Annotated[Visit, Depends(root_only("migration.execute", "migration"))]
Name = Annotated[
    str,
    Path(
        description="The migration's name, as its file is called.",
        max_length=200,
        pattern=r"^[A-Za-z0-9_]+$",
        examples=["001_rename_a_column"],
    ),
]
OrgQuery = Annotated[
    str | None,
    Query(description="One organisation's dataset; all without it.", pattern=f"^{SLUG.pattern}$"),
]


@router.get("", response_model=MigrationList, responses=problems(409))
async def list_migrations(visit: Lister, doors: DoorsDep) -> dict[str, Any]:
    """List the migrations, and in how many datasets each is done, pending, failed or refused."""
    report = await asyncio.to_thread(doors.work.migrations.status)
    return {"migrations": migration_facts(report)}


@router.post("/{name}/execute", response_model=ExecutionOut, responses=problems(404, 409))
async def execute_migration(
    visit: Executor,
    doors: DoorsDep,
    name: Name,
    dry_run: Annotated[bool, Query(description="false: do it; true: only say what it would do.")] = True,
    org: OrgQuery = None,
) -> dict[str, Any]:
    """Apply a migration to every dataset, or to one organisation's.

    Unless dry_run=false is given this only says what it would do. A dataset that fails or refuses keeps the
    others from nothing; it is in the report.
    """
    if org is not None:
        await doors.known_org(org)
    audit = visit.carried(org or NOBODY, f"{'dry run: ' if dry_run else ''}{name}")

    def audit_of(dataset_of: str, migration: str) -> Audit:
        return replace(audit, org=dataset_of, resource_id=migration)

    report = await asyncio.to_thread(
        doors.work.migrations.run, name, orgs=[org] if org else [], dry_run=dry_run, audit_of=audit_of
    )
    return execution_facts(report.migrations[0], report)

"""What answers about procedures and migrations look like, and what is put into them."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any, Literal

from engine.migrations.files import MigrationFile
from engine.migrations.report import Outcome, Report
from engine.procedures.states import Compared
from engine.procedures.sync import Synced
from serve.answers import Answer
from serve.cli.output import jsonable


class ArgumentOut(Answer):
    """A parameter of a procedure."""

    name: str
    type: str


class ProcedureOut(Answer):
    """A procedure. `diff` is unified, from what stands in the warehouse to the file."""

    name: str
    domain: str | None
    file: str | None
    state: Literal["current", "changed", "drifted", "missing", "orphaned"]
    arguments: list[ArgumentOut]
    content_hash: str
    modified_at: datetime | None
    diff: str


class ProcedureList(Answer):
    """Every procedure of the files, and those that Manta wrote before, by name."""

    procedures: list[ProcedureOut]


class SyncedOut(Answer):
    """What a sync did to a procedure; `before` is its state until then."""

    name: str
    file: str
    action: Literal["created", "updated", "repaired", "unchanged"]
    before: str
    diff: str


class SyncOut(Answer):
    """What a sync did, or in a dry run would do."""

    dry_run: bool
    procedures: list[SyncedOut]


class DeletedOut(Answer):
    """A procedure that is gone; with its `file` there, the next sync brings it back."""

    name: str
    file: str | None


class MigrationOut(Answer):
    """A migration and how many datasets it stands in which state."""

    name: str
    number: int
    scope: Literal["tenant", "central"]
    file: str
    checksum: str
    requires: list[str]
    statements: int
    done: int
    pending: int
    failed: int
    refused: int


class MigrationList(Answer):
    """Every migration, in order."""

    migrations: list[MigrationOut]


class StatementOut(Answer):
    """One statement of a migration, or a whole transaction."""

    line: int
    sql: str
    reads: list[str]
    writes: list[str]


class TouchedOut(Answer):
    """A table that a migration names; `rows` is null where it is not there."""

    table: str
    written: bool
    exists: bool
    rows: int | None


class DatasetOut(Answer):
    """A migration in one dataset. `org_slug` is - for the central one."""

    org_slug: str
    dataset: str
    state: Literal["pending", "applied", "skipped", "unchanged", "refused", "failed"]
    statements: int
    statements_done: int
    touched: list[TouchedOut]
    error: str | None


class ExecutionOut(Answer):
    """What a migration did, or in a dry run would do; `complete` is false when a dataset failed."""

    name: str
    dry_run: bool
    complete: bool
    statements: list[StatementOut]
    datasets: list[DatasetOut]


def procedure_facts(one: Compared) -> dict[str, Any]:
    """A procedure as JSON."""
    found: dict[str, Any] = jsonable(
        {
            "name": one.name,
            "domain": one.domain,
            "file": one.file,
            "state": one.state,
            "arguments": [{"name": arg.name, "type": arg.type} for arg in one.arguments],
            "content_hash": one.content_hash,
            "modified_at": one.modified_at,
            "diff": one.diff,
        }
    )
    return found


def synced_facts(one: Synced) -> dict[str, Any]:
    """A synced procedure as JSON."""
    return {
        "name": one.name,
        "file": one.file,
        "action": one.action,
        "before": one.before,
        "diff": one.diff,
    }


def migration_facts(report: Report) -> list[dict[str, Any]]:
    """The migrations of a status report as JSON."""
    return [_migration(file, report) for file in report.migrations]


def _migration(file: MigrationFile, report: Report) -> dict[str, Any]:
    states = Counter(one.state for one in report.outcomes if one.migration == file.name)
    return {
        "name": file.name,
        "number": file.number,
        "scope": file.scope,
        "file": file.file,
        "checksum": file.checksum,
        "requires": list(file.requires),
        "statements": len(file.parts),
        "done": states["unchanged"],
        "pending": states["pending"],
        "failed": states["failed"],
        "refused": states["refused"],
    }


def execution_facts(file: MigrationFile, report: Report) -> dict[str, Any]:
    """What a report says of one migration, as JSON."""
    return {
        "name": file.name,
        "dry_run": report.dry_run,
        "complete": report.complete,
        "statements": [
            {"line": part.line, "sql": part.sql, "reads": list(part.reads), "writes": list(part.writes)}
            for part in file.parts
        ],
        "datasets": [_dataset(one) for one in report.outcomes if one.migration == file.name],
    }


def _dataset(one: Outcome) -> dict[str, Any]:
    return {
        "org_slug": one.org,
        "dataset": one.dataset,
        "state": one.state,
        "statements": one.statements,
        "statements_done": one.done,
        "touched": [
            {"table": at.table, "written": at.written, "exists": at.exists, "rows": at.rows}
            for at in one.touched
        ],
        "error": one.error,
    }

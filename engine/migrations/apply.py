"""Migrations over all datasets: what is pending, dry runs, and applying each once, whoever is killed."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from engine.audit import Audit
from engine.central import Central
from engine.errors import MantaError, NotFoundError, StateError
from engine.jobs import JobExists, JobState
from engine.migrations.files import MigrationFile, MigrationsRead, Part
from engine.migrations.report import Outcome, Report, Touched
from engine.migrations.state import Record, RecordState, Start, next_start
from engine.procedures.sync import SqlFilesError, line_of, what_bigquery_said
from engine.warehouse import CALL_TIMEOUT_S, NO_RETRY, Warehouse

TABLE = "org_meta_migrations"
#: Stands for the organisation in records of the central dataset.
NOBODY = "-"
#: Datasets at the same time: metadata calls are limited to 100 a second and account.
AT_ONCE = 8
STATEMENT_TIMEOUT_S = 3600.0

AuditOf = Callable[[str, str], Audit]
#: status: by Manta's own records. look: at the tables too. apply: do it.
_Mode = Literal["status", "look", "apply"]


@dataclass(frozen=True, slots=True)
class _Target:
    org: str
    warehouse: Warehouse


class Migrations:
    """The migrations of one installation; `read` gives the files as they are now."""

    def __init__(
        self,
        central: Central,
        *,
        read: Callable[[], MigrationsRead],
        orgs: Callable[[], Sequence[str]],
        warehouse_of: Callable[[str], Warehouse],
        central_warehouse: Callable[[], Warehouse],
        now: Callable[[], datetime],
    ) -> None:
        self._central = central
        self._read = read
        self._orgs = orgs
        self._warehouse_of = warehouse_of
        self._central_warehouse = central_warehouse
        self._now = now

    def files(self) -> tuple[MigrationFile, ...]:
        """Every migration, in order. Raises SqlFilesError."""
        read = self._read()
        if read.problems:
            raise SqlFilesError(read.problems)
        return read.migrations

    def records(self) -> tuple[Record, ...]:
        """The last word on every migration in every dataset."""
        sql = (
            f"SELECT * FROM {TABLE} WHERE TRUE QUALIFY ROW_NUMBER() OVER ("
            "PARTITION BY dataset, migration ORDER BY version DESC, written_at DESC, state) = 1"
        )
        rows = self._central.query(sql, org=None, purpose="migrations").to_pylist()
        return tuple(
            Record(
                org=row["org_slug"],
                dataset=row["dataset"],
                name=row["migration"],
                number=row["number"],
                checksum=row["checksum"],
                state=row["state"],
                attempt=row["attempt"],
                done=row["statements_done"],
                done_checksum=row["done_checksum"],
                version=row["version"],
                error=row["error"],
            )
            for row in rows
        )

    def status(self) -> Report:
        """What is applied and pending where; reads Manta's own records alone."""
        return self._over(self.files(), self._orgs(), mode="status", audit_of=None)

    def run(
        self,
        name: str | None = None,
        *,
        orgs: Sequence[str] = (),
        dry_run: bool = True,
        audit_of: AuditOf | None = None,
    ) -> Report:
        """Apply one migration, or all that are pending, to every dataset or those of `orgs`.

        A dataset that fails or refuses keeps the others from nothing. Raises NotFoundError for a migration
        that is not there, StateError for one of the central dataset together with `orgs`, SqlFilesError.
        """
        files = self.files()
        chosen = files if name is None else (_find(files, name),)
        if orgs and name is not None and chosen[0].scope == "central":
            raise StateError(f"{name} is one of the central dataset.", fix="Leave the organisation out.")
        if orgs:
            chosen = tuple(one for one in chosen if one.scope == "tenant")
        mode: _Mode = "look" if dry_run else "apply"
        return self._over(chosen, orgs or self._orgs(), mode=mode, audit_of=audit_of)

    def _over(
        self,
        chosen: Sequence[MigrationFile],
        orgs: Sequence[str],
        *,
        mode: _Mode,
        audit_of: AuditOf | None,
    ) -> Report:
        files, records = self.files(), self.records() if chosen else ()
        scopes = {one.scope for one in chosen}
        targets = [_Target(NOBODY, self._central_warehouse())] if "central" in scopes else []
        if "tenant" in scopes:
            targets += [_Target(org, self._warehouse_of(org)) for org in orgs]

        def one(target: _Target) -> list[Outcome]:
            scope = "central" if target.org == NOBODY else "tenant"
            of_scope = [file for file in files if file.scope == scope]
            known = {r.name: r for r in records if r.dataset == target.warehouse.dataset}
            found: list[Outcome] = []
            for file in chosen:
                if file.scope != scope:
                    continue
                made = self._one(target, file, of_scope, known, mode=mode, audit_of=audit_of)
                found.append(made)
                if mode != "status" and made.state in ("failed", "refused"):
                    # What comes after it may count on it.
                    break
                known[file.name] = _as_if_applied(known.get(file.name), target, file)
            return found

        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="migrate") as pool:
            outcomes = [outcome for made in pool.map(one, targets) for outcome in made]
        return Report(mode != "apply", tuple(chosen), tuple(outcomes))

    def _one(
        self,
        target: _Target,
        file: MigrationFile,
        files: Sequence[MigrationFile],
        records: dict[str, Record],
        *,
        mode: _Mode,
        audit_of: AuditOf | None,
    ) -> Outcome:
        outcome = Outcome(
            target.org, target.warehouse.dataset, file.name, "unchanged", len(file.parts), len(file.parts)
        )
        try:
            start = next_start(file, files, records)
        except StateError as error:
            done = records[file.name].done if file.name in records else 0
            return replace(outcome, state="refused", done=done, error=str(error))
        if start is None:
            return outcome
        outcome = replace(outcome, state="pending", done=start.first)
        record = records.get(file.name)
        if mode == "status":
            failed = record is not None and record.state == "FAILED"
            return replace(outcome, state="failed", error=record.error) if record and failed else outcome
        try:
            if mode == "apply":
                audit = audit_of(target.org, file.name).column() if audit_of else None
                return self._apply(outcome, target, file, start, audit=audit)
            return self._looked(outcome, target, file)
        except MantaError as error:
            return replace(outcome, state="failed", error=str(error))

    def _looked(self, outcome: Outcome, target: _Target, file: MigrationFile) -> Outcome:
        """What it would touch: one call for the dataset and one for each table that is there."""
        there = set(target.warehouse.tables())
        if set(file.requires) - there:
            outcome = replace(outcome, state="skipped")
        written = {name for part in file.parts for name in part.writes}
        names = sorted({name for part in file.parts for name in (*part.reads, *part.writes)})
        touched = tuple(
            Touched(name, name in written, name in there, _rows(target, name) if name in there else None)
            for name in names
        )
        return replace(outcome, touched=touched)

    def _apply(
        self, outcome: Outcome, target: _Target, file: MigrationFile, start: Start, *, audit: str | None
    ) -> Outcome:
        version, done = start.version, start.first

        def note(state: RecordState, error: str | None = None) -> None:
            nonlocal version
            version += 1
            self._central.append(
                TABLE,
                [
                    {
                        "org_slug": target.org,
                        "dataset": target.warehouse.dataset,
                        "migration": file.name,
                        "number": file.number,
                        "version": version,
                        "state": state,
                        "checksum": file.checksum,
                        "attempt": start.attempt,
                        "statements": len(file.parts),
                        "statements_done": done,
                        "done_checksum": file.checksum_of(done),
                        "error": error,
                        # Once, with the first row of what was asked for.
                        "audit": audit if version == start.version + 1 else None,
                        "written_at": self._now(),
                    }
                ],
            )

        if set(file.requires) - set(target.warehouse.tables()):
            note("SKIPPED")
            return replace(outcome, state="skipped")
        note("STARTED")
        for place in range(start.first, len(file.parts)):
            part = file.parts[place]
            state = _run(target.warehouse, part, file, place=place, attempt=start.attempt)
            if state.error is not None:
                said = f"{_place(file, part, state.error)}: {state.error.message}"
                note("FAILED", said)
                return replace(outcome, state="failed", done=done, error=said)
            done = place + 1
            if done < len(file.parts):
                note("STARTED")
        note("APPLIED")
        return replace(outcome, state="applied", done=done)


def _run(warehouse: Warehouse, part: Part, file: MigrationFile, *, place: int, attempt: int) -> JobState:
    """Run a part as the one job that it is, whoever else runs it too, and wait for its end."""
    scope = f"{warehouse.project}.{warehouse.dataset}.{file.name}"
    job_id = f"manta-migrate-{hashlib.sha256(scope.encode()).hexdigest()[:16]}-s{place + 1}-a{attempt}"
    try:
        state = warehouse.submit(part.sql, job_id=job_id, labels={"manta-migration": file.name[:63]})
    except JobExists:
        # Another process, or ours before it was killed: what that job did is what counts.
        state = JobState(job_id, done=False)
    return state if state.done else warehouse.wait(job_id, timeout_s=STATEMENT_TIMEOUT_S)


def _place(file: MigrationFile, part: Part, error: MantaError) -> str:
    return f"{file.file}:{part.line - 1 + (line_of(what_bigquery_said(error.message)) or 1)}"


def _rows(target: _Target, table: str) -> int | None:
    warehouse = target.warehouse
    found = warehouse.insist(
        f"Looking at {table}",
        lambda: warehouse.clients.bigquery.get_table(
            f"{warehouse.project}.{warehouse.dataset}.{table}", retry=NO_RETRY, timeout=CALL_TIMEOUT_S
        ),
    )
    rows: int | None = found.num_rows
    return rows


def _find(files: Sequence[MigrationFile], name: str) -> MigrationFile:
    by_name = {one.name: one for one in files}
    if name in by_name:
        return by_name[name]
    near = difflib.get_close_matches(name, by_name, n=1)
    raise NotFoundError(
        f"There is no migration {name!r}.",
        fix=f"Did you mean {near[0]}?" if near else f"There are {', '.join(by_name) or 'none'}.",
        field="name",
    )


def _as_if_applied(there: Record | None, target: _Target, file: MigrationFile) -> Record:
    """What the dataset's record is once this one is through: those that follow are judged by it."""
    if there is not None and there.finished:
        return there
    count = len(file.parts)
    version = there.version if there else 0
    return Record(
        target.org,
        target.warehouse.dataset,
        file.name,
        file.number,
        file.checksum,
        "APPLIED",
        1,
        count,
        file.checksum_of(count),
        version,
    )

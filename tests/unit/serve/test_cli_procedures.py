"""manta procedures and manta migrate: what is said, what goes on record, and which exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.audit import Audit
from engine.errors import NotFoundError
from engine.located import Problem
from engine.migrations.files import migration_of
from engine.migrations.report import Outcome, Report, Touched
from engine.procedures.files import Argument
from engine.procedures.states import Compared, State
from engine.procedures.sync import SqlFilesError, Synced
from serve.cli.main import run
from tests.unit.serve.doubles import NOW, Table, a_table

DIFF = "--- warehouse\n+++ file\n@@ -1 +1 @@\n-SELECT 2;\n+SELECT 1;\n"
FILE = migration_of(
    "-- scope: tenant\nALTER TABLE costs ADD COLUMN note STRING;\n",
    name="001_add_note",
    file="procedures/migrations/001_add_note.sql",
)


def compared(name: str, state: State) -> Compared:
    diff = "" if state == "current" else DIFF
    file = f"procedures/demo/{name.removeprefix('demo_')}.sql"
    return Compared(name, "demo", file, state, (Argument("day", "DATE"),), "0" * 64, NOW, diff)


@dataclass
class FakeProcedures:
    """Answers what it is given and remembers what it was asked."""

    found: list[Compared]
    error: Exception | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)

    def compare(self) -> tuple[Compared, ...]:
        return tuple(self.found)

    def show(self, name: str) -> Compared:
        return next(one for one in self.found if one.name == name)

    def sync(
        self, *, names: Sequence[str] = (), domain: str | None = None, dry_run: bool = False
    ) -> tuple[Synced, ...]:
        if self.error:
            raise self.error
        self.asked.append({"names": list(names), "domain": domain, "dry_run": dry_run})
        actions: Any = {"drifted": "repaired", "missing": "created", "current": "unchanged"}
        return tuple(
            Synced(one.name, str(one.file), actions[one.state], one.state, one.diff) for one in self.found
        )


@dataclass
class FakeMigrations:
    """One report for every question."""

    report: Report
    asked: list[dict[str, Any]] = field(default_factory=list)
    audits: list[Audit] = field(default_factory=list)

    def run(self, name: str | None, *, orgs: Sequence[str], dry_run: bool, audit_of: Any) -> Report:
        if name == "002_none":
            raise NotFoundError("There is no migration '002_none'.", fix="There are 001_add_note.")
        self.asked.append({"name": name, "orgs": list(orgs), "dry_run": dry_run})
        self.audits.append(audit_of("acme_corp", "001_add_note"))
        return self.report


def a_desk(
    *, found: list[Compared] | None = None, error: Exception | None = None, report: Report | None = None
) -> tuple[Table, list[dict[str, Any]]]:
    table = a_table(width=200)
    table.work.procedures = FakeProcedures(found or [], error)
    table.work.migrations = FakeMigrations(report or Report(True, (), ()))
    audited: list[dict[str, Any]] = []
    table.work.central = SimpleNamespace(ensure=lambda: None, append=lambda name, rows: audited.extend(rows))
    return table, audited


MIXED = [compared("demo_days", "drifted"), compared("demo_new", "missing"), compared("demo_weeks", "current")]


def test_the_list_says_state_and_what_comes_next() -> None:
    table, _ = a_desk(found=MIXED)
    assert run(["procedures", "list"], table.desk) == 0
    assert "demo_days" in table.out
    assert "drifted" in table.out
    assert "day DATE" in table.out
    assert "manta procedures sync" in table.out


def test_an_empty_list_says_so() -> None:
    table, _ = a_desk()
    assert run(["procedures", "list"], table.desk) == 0
    assert "There is no procedure" in table.out


def test_the_diff_fails_while_something_differs() -> None:
    table, _ = a_desk(found=MIXED)
    assert run(["procedures", "diff"], table.desk) == 1
    assert "demo_days: drifted" in table.out
    assert "-SELECT 2;" in table.out
    assert "demo_weeks" not in table.out
    table, _ = a_desk(found=MIXED)
    assert run(["procedures", "diff", "demo_weeks"], table.desk) == 0
    assert "as the files say" in table.out


def test_a_sync_says_what_it_wrote_and_puts_that_on_record() -> None:
    table, audited = a_desk(found=MIXED)
    assert run(["procedures", "sync", "demo_days", "--domain", "demo"], table.desk) == 0
    assert table.work.procedures.asked == [{"names": ["demo_days"], "domain": "demo", "dry_run": False}]
    assert "demo_days: repaired from procedures/demo/days.sql" in table.out
    assert "-SELECT 2;" in table.out
    assert "2 written, 1 as they should be." in table.out
    assert [(row["action"], row["resource_id"], row["detail"], row["actor"]) for row in audited] == [
        ("procedure.sync", "demo_days", "repaired", "cli:tess"),
        ("procedure.sync", "demo_new", "created", "cli:tess"),
    ]


def test_a_dry_sync_is_on_no_record() -> None:
    table, audited = a_desk(found=MIXED)
    assert run(["procedures", "sync", "--dry-run", "--json"], table.desk) == 0
    lines = [json.loads(text) for text in table.out.splitlines()]
    assert [(one["name"], one["action"], one["dry_run"]) for one in lines] == [
        ("demo_days", "repaired", True),
        ("demo_new", "created", True),
        ("demo_weeks", "unchanged", True),
    ]
    assert audited == []


def test_broken_files_are_one_line_and_exit_code_1() -> None:
    problem = Problem("procedures/demo/bad.sql", 3, "", "names a dataset", "take it from the parameter")
    table, audited = a_desk(error=SqlFilesError([problem, problem]))
    assert run(["procedures", "sync"], table.desk) == 1
    assert "manta: procedures/demo/bad.sql:3: names a dataset; procedures" in table.err
    assert "nothing was changed" in table.err
    assert audited == []


PENDING = Outcome(
    "acme_corp", "acme_corp_local", "001_add_note", "pending", 1, 0, (Touched("costs", True, True, 1200),)
)


def test_migrate_is_a_dry_run_that_prints_statements_and_tables() -> None:
    table, _ = a_desk(report=Report(True, (FILE,), (PENDING,)))
    assert run(["migrate"], table.desk) == 0
    assert table.work.migrations.asked == [{"name": None, "orgs": [], "dry_run": True}]
    assert "001_add_note (tenant): 1 pending" in table.out
    assert "ALTER TABLE costs ADD COLUMN note STRING" in table.out
    assert "procedures/migrations/001_add_note.sql:2" in table.out
    assert "costs 1,200 rows" in table.out
    assert "add --apply" in table.out


def test_apply_reports_every_dataset_and_fails_when_one_failed() -> None:
    outcomes = (
        Outcome("acme_corp", "acme_corp_local", "001_add_note", "applied", 1, 1),
        Outcome("globex", "globex_local", "001_add_note", "failed", 1, 0, error="001.sql:2: no such table"),
    )
    table, _ = a_desk(report=Report(False, (FILE,), outcomes))
    assert (
        run(["migrate", "001_add_note", "--apply", "--org", "acme_corp", "--org", "globex"], table.desk) == 1
    )
    assert table.work.migrations.asked == [
        {"name": "001_add_note", "orgs": ["acme_corp", "globex"], "dry_run": False}
    ]
    assert table.work.migrations.audits[0].actor == "cli:tess"
    assert "1 applied, 1 failed" in table.out
    assert "manta: globex_local: 001.sql:2: no such table" in table.err


def test_migrate_as_json() -> None:
    table, _ = a_desk(report=Report(True, (FILE,), (PENDING,)))
    assert run(["migrate", "--json"], table.desk) == 0
    found = json.loads(table.out)
    assert found["datasets"][0]["touched"] == [
        {"table": "costs", "written": True, "exists": True, "rows": 1200}
    ]
    assert found["statements"][0]["line"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["migrate", "002_none"], "no migration '002_none'"),
        (["migrate", "--org", "nobody"], "no organisation"),
    ],
)
def test_what_is_not_there_is_bad_usage(arguments: list[str], said: str) -> None:
    table, _ = a_desk()
    assert run(arguments, table.desk) == 2
    assert said in table.err


def test_without_migrations_it_says_so(tmp_path: Path) -> None:
    table, _ = a_desk()
    assert run(["migrate"], table.desk) == 0
    assert "There is no migration to apply." in table.out

"""Migrations on the embedded BigQuery: once per dataset, in order, resumed after a kill, tenants apart."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine.audit import Audit
from engine.audit_log import read
from engine.central import Central
from engine.clients import Clients
from engine.errors import NotFoundError, StateError
from engine.migrations.apply import NOBODY, TABLE, Migrations
from engine.migrations.files import read_migrations
from engine.migrations.report import Outcome
from engine.procedures.sync import SqlFilesError
from engine.schemas import Schema
from engine.warehouse import Warehouse

BYTES_BILLED = 10**10
ADD = "-- scope: tenant\n-- requires: costs\nALTER TABLE costs ADD COLUMN IF NOT EXISTS note STRING;\n"
FILL = "-- scope: tenant\n-- requires: costs\nUPDATE costs SET note = 'old' WHERE note IS NULL;\n"


@dataclass
class Place:
    """Files, two tenants with a table each, and a central dataset to remember in."""

    root: Path
    central: Central
    clients: Clients
    orgs: list[str] = field(default_factory=list)

    def write(self, name: str, sql: str) -> Path:
        path = self.root / "procedures" / "migrations" / f"{name}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sql)
        return path

    def warehouse(self, org: str) -> Warehouse:
        dataset = self.central.dataset if org == NOBODY else f"{org}_local"
        return Warehouse(self.clients, org=org, dataset=dataset, maximum_bytes_billed=BYTES_BILLED)

    def add(self, *, costs: bool = True) -> str:
        org = f"org_{uuid.uuid4().hex[:12]}"
        self.warehouse(org).ensure_dataset()
        if costs:
            self.warehouse(org).query("CREATE TABLE costs AS SELECT 1 AS id", purpose="test")
        self.orgs.append(org)
        return org

    @property
    def migrations(self) -> Migrations:
        """A new one for each use, as processes come and go."""
        return Migrations(
            self.central,
            read=lambda: read_migrations(self.root),
            orgs=lambda: list(self.orgs),
            warehouse_of=self.warehouse,
            central_warehouse=lambda: self.warehouse(NOBODY),
            now=lambda: datetime.now(UTC),
        )

    def apply(self, name: str | None = None, **more: object) -> dict[tuple[str, str], Outcome]:
        report = self.migrations.run(name, dry_run=False, **more)  # type: ignore[arg-type]
        return {(one.migration, one.org): one for one in report.outcomes}

    def notes(self, org: str) -> list[str | None]:
        rows = self.warehouse(org).query("SELECT note FROM costs", purpose="test")
        return [row["note"] for row in rows.to_pylist()]

    def rows(self, org: str) -> list[tuple[str, str, int, int]]:
        sql = f"SELECT * FROM {TABLE} WHERE org_slug = @org_slug ORDER BY migration, version"
        found = self.central.query(sql, org=org, purpose="test").to_pylist()
        return [(row["migration"], row["state"], row["attempt"], row["statements_done"]) for row in found]


def states(found: dict[tuple[str, str], Outcome], name: str, orgs: Sequence[str]) -> list[str]:
    return [found[name, org].state for org in orgs]


@pytest.fixture(scope="module")
def records(clients: Clients, schemas: dict[str, Schema]) -> Central:
    """A central dataset of its own: other tests' organisations have no part in these migrations."""
    central = Central(
        clients, schemas=schemas, dataset=f"c_{uuid.uuid4().hex[:12]}", maximum_bytes_billed=BYTES_BILLED
    )
    central.ensure()
    return central


@pytest.fixture
def place(clients: Clients, records: Central, tmp_path: Path) -> Place:
    made = Place(tmp_path, records, clients)
    made.add()
    made.add()
    made.write("001_add_note", ADD)
    made.write("002_fill_note", FILL)
    return made


def test_a_dry_run_says_what_it_would_touch_and_changes_nothing(place: Place) -> None:
    report = place.migrations.run()
    assert report.dry_run
    assert report.complete
    assert [(one.migration, one.state) for one in report.outcomes] == [
        ("001_add_note", "pending"),
        ("002_fill_note", "pending"),
    ] * 2
    (touched,) = report.outcomes[0].touched
    assert (touched.table, touched.written, touched.exists, touched.rows) == ("costs", True, True, 1)
    assert [part.sql for part in report.migrations[0].parts] == [ADD.split("\n")[2].rstrip(";")]
    assert place.rows(place.orgs[0]) == []
    with pytest.raises(Exception, match="note"):
        place.notes(place.orgs[0])


def test_all_pending_ones_are_applied_once_in_every_dataset(place: Place) -> None:
    done = place.apply()
    assert {one.state for one in done.values()} == {"applied"}
    assert [place.notes(org) for org in place.orgs] == [["old"], ["old"]]
    again = place.apply()
    assert {one.state for one in again.values()} == {"unchanged"}
    assert place.rows(place.orgs[0]) == [
        ("001_add_note", "STARTED", 1, 0),
        ("001_add_note", "APPLIED", 1, 1),
        ("002_fill_note", "STARTED", 1, 0),
        ("002_fill_note", "APPLIED", 1, 1),
    ]


def test_order_is_kept_and_the_refusal_says_why(place: Place) -> None:
    found = place.apply("002_fill_note")
    assert states(found, "002_fill_note", place.orgs) == ["refused", "refused"]
    assert "comes after 001_add_note" in str(found["002_fill_note", place.orgs[0]].error)
    place.apply("001_add_note")
    assert states(place.apply("002_fill_note"), "002_fill_note", place.orgs) == ["applied", "applied"]


def test_a_changed_file_is_refused_after_it_was_applied(place: Place) -> None:
    place.apply("001_add_note")
    place.write("001_add_note", ADD.replace("note STRING", "notes STRING"))
    found = place.apply("002_fill_note")
    assert states(found, "002_fill_note", place.orgs) == ["refused", "refused"]
    assert "was changed after it was applied" in str(found["002_fill_note", place.orgs[0]].error)


def test_one_failing_tenant_keeps_the_others_from_nothing_and_can_go_on(place: Place) -> None:
    bad, good = place.orgs
    place.warehouse(bad).query("CREATE VIEW costs_view AS SELECT 1 AS id", purpose="test")
    script = (
        "-- scope: tenant\n-- requires: costs\n"
        "CREATE TABLE IF NOT EXISTS seen (id INT64);\n"
        "INSERT INTO seen SELECT id FROM costs;\n\n"
        "INSERT INTO seen SELECT id FROM extra;\n"
    )
    place.write("003_seen", script)
    place.warehouse(good).query("CREATE TABLE extra AS SELECT 2 AS id", purpose="test")
    found = place.apply()
    assert states(found, "003_seen", place.orgs) == ["failed", "applied"]
    failed = found["003_seen", bad]
    assert (failed.done, failed.statements) == (2, 3)
    assert str(failed.error).startswith("procedures/migrations/003_seen.sql:6: BigQuery job")
    status = {(one.migration, one.org): one.state for one in place.migrations.status().outcomes}
    assert (status["003_seen", bad], status["003_seen", good]) == ("failed", "unchanged")
    # What ran is not run again: the second statement would add its row twice.
    place.warehouse(bad).query("CREATE TABLE extra AS SELECT 2 AS id", purpose="test")
    assert states(place.apply(), "003_seen", place.orgs) == ["applied", "unchanged"]
    for org in place.orgs:
        seen = place.warehouse(org).query("SELECT id FROM seen ORDER BY id", purpose="test")
        assert [row["id"] for row in seen.to_pylist()] == [1, 2]
    assert [row[1:] for row in place.rows(bad) if row[0] == "003_seen"] == [
        ("STARTED", 1, 0),
        ("STARTED", 1, 1),
        ("STARTED", 1, 2),
        ("FAILED", 1, 2),
        ("STARTED", 2, 2),
        ("APPLIED", 2, 3),
    ]


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Dying:
    """The records of a process that is killed when it would write for the `after` + 1st time."""

    live: Central
    after: int

    @property
    def dataset(self) -> str:
        return self.live.dataset

    def query(self, sql: str, **more: Any) -> Any:
        return self.live.query(sql, **more)

    def append(self, table: str, rows: Any) -> None:
        if self.after == 0:
            raise Killed
        self.after -= 1
        self.live.append(table, rows)


def test_a_process_that_is_killed_before_it_could_say_so_is_not_run_twice(place: Place) -> None:
    place.write(
        "001_add_note", "-- scope: tenant\nINSERT INTO costs VALUES (2); INSERT INTO costs VALUES (3);"
    )
    org = place.orgs[0]
    place.orgs = [org]

    live = place.central
    place.central = Dying(live, after=1)  # type: ignore[assignment]
    with pytest.raises(Killed):
        place.apply("001_add_note")
    place.central = live
    assert place.rows(org) == [("001_add_note", "STARTED", 1, 0)]
    assert states(place.apply("001_add_note"), "001_add_note", [org]) == ["applied"]
    ids = place.warehouse(org).query("SELECT id FROM costs ORDER BY id", purpose="test").to_pylist()
    assert [row["id"] for row in ids] == [1, 2, 3]


@pytest.mark.slow
def test_two_at_once_apply_it_once(place: Place) -> None:
    place.write("001_add_note", "-- scope: tenant\nINSERT INTO costs VALUES (2);")
    org = place.orgs[0]
    place.orgs = [org]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: place.apply("001_add_note")["001_add_note", org].state, range(4)))
    assert set(made) <= {"applied", "unchanged"}
    ids = place.warehouse(org).query("SELECT id FROM costs ORDER BY id", purpose="test").to_pylist()
    assert [row["id"] for row in ids] == [1, 2]


def test_a_dataset_without_the_table_has_nothing_to_migrate(place: Place) -> None:
    org = place.add(costs=False)
    dry = {(one.migration, one.org): one for one in place.migrations.run().outcomes}
    assert dry["001_add_note", org].state == "skipped"
    found = place.apply()
    assert [found[name, org].state for name in ("001_add_note", "002_fill_note")] == ["skipped", "skipped"]
    assert states(place.apply(), "002_fill_note", [org]) == ["unchanged"]


def test_one_organisation_alone(place: Place) -> None:
    first, second = place.orgs
    found = place.apply(orgs=[first])
    assert {org for _, org in found} == {first}
    assert place.rows(second) == []


def test_the_central_dataset_has_migrations_of_its_own(place: Place) -> None:
    name = f"1{uuid.uuid4().int % 10**6:06}_central"
    place.write(name, "-- scope: central\nCREATE TABLE IF NOT EXISTS probe (id INT64);")
    found = place.apply(name)
    assert states(found, name, [NOBODY]) == ["applied"]
    assert "probe" in place.warehouse(NOBODY).tables()
    with pytest.raises(StateError, match="central dataset"):
        place.apply(name, orgs=[place.orgs[0]])


def test_names_and_broken_files(place: Place) -> None:
    with pytest.raises(NotFoundError) as raised:
        place.apply("001_add_notes")
    assert raised.value.fix == "Did you mean 001_add_note?"
    place.write("003_bad", "-- scope: tenant\nDROP TABLE globex_prod.costs")
    with pytest.raises(SqlFilesError, match=r"003_bad.sql:2: globex_prod.costs names a dataset"):
        place.apply()
    assert place.rows(place.orgs[0]) == []


@pytest.mark.slow
def test_each_organisations_trail_has_it_once(place: Place) -> None:
    def audit_of(org: str, name: str) -> Audit:
        return Audit(org, "migration.execute", "root", "migration", name)

    place.apply(audit_of=audit_of)
    place.apply(audit_of=audit_of)
    for org in place.orgs:
        trail = [(one.action, one.resource_id) for one in read(place.central, org)]
        assert sorted(trail) == [
            ("migration.execute", "001_add_note"),
            ("migration.execute", "002_fill_note"),
        ]

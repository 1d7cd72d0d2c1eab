"""Syncing procedure files to the embedded BigQuery: once, all or nothing, and drift is seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.cloud import bigquery

from engine.clients import Clients
from engine.errors import NotFoundError, StateError
from engine.foreign import Conflict
from engine.procedures.sync import SqlFilesError
from tests.integration.procedure_place import Place, a_place

ONE, TWO = "  SELECT 1 AS one;", "  SELECT 2 AS two;"


@pytest.fixture
def place(clients: Clients, tmp_path: Path) -> Place:
    made = a_place(clients, tmp_path)
    made.write("days", "dataset STRING, first DATE, tags ARRAY<STRING>", ONE)
    made.write("weeks", "dataset STRING", TWO)
    return made


def actions(place: Place, **chosen: object) -> dict[str, str]:
    return {one.name: one.action for one in place.procedures.sync(**chosen)}  # type: ignore[arg-type]


def states(place: Place) -> dict[str, str]:
    return {one.name: one.state for one in place.procedures.compare()}


def modified(place: Place) -> dict[str, object]:
    return {name: place.procedures.stored(name).routine.etag for name in ("demo_days", "demo_weeks")}


def change(place: Place, name: str, body: str) -> None:
    """Somebody replaces a procedure in the warehouse by hand."""
    place.dataset.query(
        f"CREATE OR REPLACE PROCEDURE `{place.procedures.reference(name)}`"
        f"(dataset STRING, first DATE, tags ARRAY<STRING>) BEGIN {body} END",
        purpose="test",
    )


def test_a_second_sync_writes_nothing(place: Place) -> None:
    assert states(place) == {"demo_days": "missing", "demo_weeks": "missing"}
    assert actions(place, dry_run=True) == {"demo_days": "created", "demo_weeks": "created"}
    assert states(place) == {"demo_days": "missing", "demo_weeks": "missing"}
    assert actions(place) == {"demo_days": "created", "demo_weeks": "created"}
    before = modified(place)
    assert actions(place) == {"demo_days": "unchanged", "demo_weeks": "unchanged"}
    assert modified(place) == before
    assert states(place) == {"demo_days": "current", "demo_weeks": "current"}
    arguments = place.procedures.stored("demo_days").definition.arguments
    assert [str(one) for one in arguments] == ["dataset STRING", "first DATE", "tags ARRAY<STRING>"]


def test_a_changed_file_is_written_and_the_others_are_not(place: Place) -> None:
    place.procedures.sync()
    before = modified(place)
    place.write("days", "dataset STRING", ONE)
    assert states(place) == {"demo_days": "changed", "demo_weeks": "current"}
    assert actions(place) == {"demo_days": "updated", "demo_weeks": "unchanged"}
    assert modified(place)["demo_weeks"] == before["demo_weeks"]
    assert [str(one) for one in place.procedures.stored("demo_days").definition.arguments] == [
        "dataset STRING"
    ]


def test_drift_is_found_shown_and_repaired(place: Place) -> None:
    place.procedures.sync()
    change(place, "demo_days", "SELECT 'by hand';")
    (days, _) = place.procedures.compare()
    assert days.state == "drifted"
    assert "-SELECT 'by hand';" in days.diff.replace("- ", "-")
    assert "+  SELECT 1 AS one;" in days.diff
    assert actions(place) == {"demo_days": "repaired", "demo_weeks": "unchanged"}
    assert states(place)["demo_days"] == "current"


def test_a_body_changed_under_mantas_own_description_is_drift_as_well(place: Place) -> None:
    place.procedures.sync()
    routine = place.procedures.stored("demo_days").routine
    routine.body = "BEGIN\n  SELECT 3;\nEND"
    place.dataset.clients.bigquery.update_routine(
        routine, ["type_", "language", "arguments", "body", "description"]
    )
    assert states(place)["demo_days"] == "drifted"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  SELEC 1;", r"procedures/demo/bad.sql:3: No statement begins with SELEC"),
        ("  SELECT * FROM acme_prod.costs;", r"bad.sql:3: acme_prod.costs names a dataset"),
        ("  SELECT 1;\nEND;\nSELECT 2; BEGIN", r"bad.sql:5: A second statement begins here"),
    ],
)
def test_a_broken_file_changes_nothing_and_names_file_and_line(place: Place, text: str, said: str) -> None:
    place.procedures.sync()
    before = modified(place)
    place.write("days", "dataset STRING", TWO)
    place.write("bad", "dataset STRING", text)
    with pytest.raises(SqlFilesError, match=said) as raised:
        place.procedures.sync()
    assert "nothing was changed" in raised.value.fix
    assert modified(place) == before
    with pytest.raises(NotFoundError):
        place.procedures.stored("demo_bad")


def test_what_only_bigquery_refuses_changes_nothing_either(place: Place) -> None:
    place.write("weeks", "dataset STRING", "  EXCEPTION WHEN OTHERS THEN SELECT 1;")
    with pytest.raises(SqlFilesError, match=r"procedures/demo/weeks.sql:2: Syntax error") as raised:
        place.procedures.sync()
    assert "http" not in raised.value.message
    assert states(place) == {"demo_days": "missing", "demo_weeks": "missing"}


def test_names_and_domains_choose(place: Place) -> None:
    other = place.root / "procedures" / "other" / "days.sql"
    other.parent.mkdir()
    other.write_text("CREATE OR REPLACE PROCEDURE other_days() BEGIN SELECT 1; END")
    assert actions(place, names=["demo_weeks"]) == {"demo_weeks": "created"}
    assert actions(place, domain="other") == {"other_days": "created"}
    assert states(place) == {"demo_days": "missing", "demo_weeks": "current", "other_days": "current"}
    with pytest.raises(NotFoundError, match="demo_week") as raised:
        place.procedures.sync(names=["demo_week"])
    assert raised.value.fix == "Did you mean demo_weeks?"
    with pytest.raises(NotFoundError, match="procedures/nothing"):
        place.procedures.sync(domain="nothing")


def test_what_others_made_is_neither_listed_nor_dropped(place: Place) -> None:
    place.procedures.sync()
    change(place, "theirs", "SELECT 1;")
    assert set(states(place)) == {"demo_days", "demo_weeks"}
    with pytest.raises(StateError, match="not written by Manta"):
        place.procedures.delete("theirs")
    assert place.procedures.stored("theirs").written is None


def test_an_orphan_is_listed_until_it_is_deleted(place: Place) -> None:
    place.procedures.sync()
    (place.root / "procedures" / "demo" / "weeks.sql").unlink()
    assert states(place) == {"demo_days": "current", "demo_weeks": "orphaned"}
    assert actions(place) == {"demo_days": "unchanged"}
    assert place.procedures.delete("demo_weeks")
    assert not place.procedures.delete("demo_weeks")
    assert states(place) == {"demo_days": "current"}


def test_a_change_between_look_and_write_is_not_written_over(place: Place) -> None:
    place.procedures.sync()
    looked = place.procedures.stored("demo_days")
    change(place, "demo_days", "SELECT 'meanwhile';")
    file = place.procedures._read().procedures["demo_days"]
    changed = place.root / "procedures" / "demo" / "days.sql"
    changed.write_text(file.sql.replace("SELECT 1", "SELECT 7"))
    newer = place.procedures._read().procedures["demo_days"]
    with pytest.raises(Conflict):
        place.procedures._write(newer, looked)
    assert "meanwhile" in place.procedures.stored("demo_days").definition.body


def test_the_example_of_the_page_works(clients: Clients, tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "procedures.md").read_text("utf-8")
    sql = page.split("```sql\n")[1].split("```")[0]
    made = a_place(clients, tmp_path)
    path = tmp_path / "procedures" / "example" / "plan_days.sql"
    path.parent.mkdir(parents=True)
    path.write_text(sql)
    assert actions(made) == {"example_plan_days": "created"}
    assert isinstance(made.procedures.stored("example_plan_days").routine, bigquery.Routine)

"""The central dataset: Arrow appends, one winner at an offset, and statements that name an organisation."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from engine.central import PLATFORM_STATEMENTS, Central
from engine.clients import Clients
from engine.errors import ConfigurationError, InternalError
from engine.foreign import Conflict
from engine.schemas import Schema

TABLE = "org_meta_partitions"
COUNT = f"SELECT COUNT(*) AS found FROM {TABLE} WHERE org_slug = @org_slug"


def row(org: str, **changes: object) -> dict[str, object]:
    return {
        "org_slug": org,
        "dataset": f"{org}_local",
        "table_name": "t",
        "day": date(2025, 12, 1),
        "table_version": 1,
        "attempt": 1,
        "intent_id": "intent",
        "state": "INTENT",
        "job_id": "job",
        "content_hash": "v1:0",
        "schema_version": 1,
        "row_count": 0,
        "provisional": False,
        "pipeline": "p",
        "run_id": "run",
        "artifact_uri": "file",
        "written_at": datetime(2025, 12, 1, 12, tzinfo=UTC),
    } | changes


def count(central: Central, org: str) -> int:
    return int(central.query(COUNT, org=org, purpose="test").to_pylist()[0]["found"])


def test_rows_arrive_as_they_left(central: Central, org: str, schemas: dict[str, Schema]) -> None:
    given = row(org, error="größer")
    central.append(TABLE, [given])

    held = central.query(f"SELECT * FROM {TABLE} WHERE org_slug = @org_slug", org=org, purpose="test")

    assert held.to_pylist() == [given]
    assert held.schema.field("written_at").type == schemas[TABLE].arrow.field("written_at").type


def test_a_table_and_no_rows_at_all(central: Central, org: str) -> None:
    central.append(TABLE, pa.Table.from_pylist([row(org), row(org, attempt=2)]))
    central.append(TABLE, [])

    assert count(central, org) == 2


@pytest.mark.parametrize(
    ("table", "change", "says"),
    [
        (TABLE, {"nonsense": 1}, "nonsense"),
        (TABLE, {"run_id": None}, "run_id is REQUIRED"),
        (TABLE, {"table_version": "one"}, "do not fit"),
        ("no_such_table", {}, "no central table"),
        (TABLE, {"error": "x" * 10**7}, "more than one append"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    central: Central, org: str, table: str, change: dict[str, object], says: str
) -> None:
    with pytest.raises(InternalError, match=says):
        central.append(table, [row(org, **change)])
    assert count(central, org) == 0


def test_the_second_writer_at_an_offset_is_refused(central: Central, org: str) -> None:
    stream = central.open_stream(TABLE)
    central.append(TABLE, [row(org)], stream=stream, offset=0)

    with pytest.raises(Conflict):
        central.append(TABLE, [row(org, attempt=2)], stream=stream, offset=0)
    with pytest.raises(InternalError, match="beyond"):
        central.append(TABLE, [row(org, attempt=2)], stream=stream, offset=5)
    central.append(TABLE, [row(org, attempt=2)], stream=stream, offset=1)

    assert count(central, org) == 2
    with pytest.raises(InternalError, match="both"):
        central.append(TABLE, [row(org)], offset=0)


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT * FROM {TABLE}",
        f"SELECT * FROM {TABLE} -- WHERE org_slug = @org_slug",
        f"SELECT * FROM {TABLE} /* org_slug = @org_slug */",
        f"SELECT 'org_slug = @org_slug' FROM {TABLE}",
        f"SELECT * FROM {TABLE} WHERE org_slug = 'other'",
        f"SELECT * FROM {TABLE} WHERE not_org_slug = @org_slug_too",
    ],
)
def test_a_statement_without_the_predicate_is_refused(central: Central, org: str, sql: str) -> None:
    with pytest.raises(InternalError, match="lacks the predicate"):
        central.query(sql, org=org, purpose="test")


def test_an_organisation_sees_its_own_rows(central: Central, org: str) -> None:
    central.append(TABLE, [row(org), row(f"{org}x")])

    assert count(central, org) == 1
    with pytest.raises(InternalError, match="another organisation"):
        central.query(COUNT, {"org_slug": f"{org}x"}, org=org, purpose="test")
    with pytest.raises(InternalError, match="not listed"):
        central.query(f"SELECT * FROM {TABLE}", org=None, purpose="test")
    everything = central.query(
        f"SELECT DISTINCT org_slug FROM {TABLE}", org=None, purpose=min(PLATFORM_STATEMENTS)
    )
    assert {org, f"{org}x"} <= set(everything["org_slug"].to_pylist())


def test_another_environments_dataset_is_refused(
    central: Central, clients: Clients, schemas: dict[str, Schema]
) -> None:
    stage = Central(clients, schemas=schemas, maximum_bytes_billed=1, environment="stage")

    with pytest.raises(ConfigurationError, match="belongs to environment local"):
        stage.ensure()

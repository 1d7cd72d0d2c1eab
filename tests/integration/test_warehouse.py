"""The tenant's door against the embedded BigQuery."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from engine.artifacts import parquet
from engine.clients import Clients
from engine.content_hash import content_hash
from engine.errors import ConfigurationError, InternalError, NotFoundError, TransientError
from engine.foreign import Conflict
from engine.jobs import JobExists
from engine.schemas import Schema
from engine.warehouse import Warehouse
from tests.integration.publish_child import SCHEMA, day, table

LABELS = {"manta-intent": "one"}


def new_job() -> str:
    return f"test-{uuid.uuid4().hex}"


def widened(**changes: object) -> Schema:
    columns = [
        *SCHEMA.model_dump()["columns"],
        {"name": "added", "type": "INT64", "description": "d"} | changes,
    ]
    return Schema.model_validate({**SCHEMA.model_dump(), "version": 2, "columns": columns})


def test_a_load_replaces_one_partition_and_reads_back_the_same(warehouse: Warehouse, org: str) -> None:
    warehouse.ensure_table(SCHEMA)
    for salt, number in ((1, 0), (1, 1), (2, 0)):
        state = warehouse.load(
            parquet(table(org, [number], salt)),
            destination=f"{SCHEMA.table}${day(number):%Y%m%d}",
            schema=SCHEMA,
            job_id=(job_id := new_job()),
            labels=LABELS,
        )
        assert (state if state.done else warehouse.wait(job_id, timeout_s=30)).error is None

    for salt, number in ((2, 0), (1, 1)):
        held = warehouse.query(
            "SELECT * FROM cost_daily WHERE usage_date = @day", {"day": day(number)}, purpose="test"
        )
        assert content_hash(held, SCHEMA) == content_hash(table(org, [number], salt), SCHEMA)


def test_a_used_job_id_is_refused_and_its_job_can_be_asked(warehouse: Warehouse) -> None:
    job_id = new_job()
    assert warehouse.job(job_id) is None
    warehouse.submit("SELECT 1", job_id=job_id, labels=LABELS)

    with pytest.raises(JobExists):
        warehouse.submit("SELECT 2", job_id=job_id, labels={"manta-intent": "two"})
    found = warehouse.wait(job_id, timeout_s=30)

    assert (found.done, found.error) == (True, None)
    assert found.labels == {"manta-org": warehouse.org, "manta-intent": "one"}


def test_a_failed_job_says_why_and_whose_it_is_to_mend(warehouse: Warehouse) -> None:
    job_id = new_job()
    state = warehouse.submit("SELECT ERROR('on purpose')", job_id=job_id)
    state = state if state.done else warehouse.wait(job_id, timeout_s=30)

    assert isinstance(state.error, ConfigurationError)
    assert job_id in state.error.message
    assert "on purpose" in state.error.message


def test_a_job_that_does_not_end_is_cancelled_and_awaited(warehouse: Warehouse) -> None:
    job_id = new_job()
    endless = (
        "SELECT COUNT(*) FROM UNNEST(GENERATE_ARRAY(1, 300000)) a, UNNEST(GENERATE_ARRAY(1, 300000)) b "
        "WHERE MOD(a * b, 7) = 3"
    )
    state = warehouse.submit(endless, job_id=job_id)
    assert not state.done

    state = warehouse.wait(job_id, timeout_s=0)

    assert state.done
    assert isinstance(state.error, TransientError)


def test_typed_parameters_arrive_as_they_left(warehouse: Warehouse) -> None:
    given = {
        "day": date(2025, 12, 1),
        "instant": datetime(2025, 12, 1, 12, 0, 0, 5, tzinfo=UTC),
        "money": Decimal("1.000000001"),
        "count": 2**62,
        "text": "ä'; DROP TABLE x",
        "flag": True,
        "share": 0.5,
        "raw": b"\x00\xff",
        "days": (date(2025, 12, 1), date(2025, 12, 2)),
        "nothing": None,
    }
    names = ", ".join(f"@{name} AS {name}" for name in given)

    [row] = warehouse.query(f"SELECT {names}", given, purpose="test").to_pylist()

    assert row == {**given, "days": list(given["days"])}  # type: ignore[call-overload]


@pytest.mark.parametrize("value", [(), object(), {"a": 1}])
def test_a_parameter_without_a_type_is_refused(warehouse: Warehouse, value: object) -> None:
    with pytest.raises(InternalError, match="@odd"):
        warehouse.query("SELECT @odd", {"odd": value}, purpose="test")


@pytest.mark.parametrize(
    "labels", [{"manta-run": "Über"}, {"manta-run": "a" * 64}, {"1st": "a"}, {"a/b": "c"}]
)
def test_labels_that_bigquery_refuses_are_refused_here(warehouse: Warehouse, labels: dict[str, str]) -> None:
    with pytest.raises(InternalError, match="Label"):
        warehouse.submit("SELECT 1", job_id=new_job(), labels=labels)


def test_a_table_gains_nullable_columns_and_nothing_else(clients: Clients, warehouse: Warehouse) -> None:
    def fresh() -> Warehouse:
        return Warehouse(clients, org=warehouse.org, dataset=warehouse.dataset, maximum_bytes_billed=10**9)

    warehouse.ensure_table(SCHEMA)
    warehouse.ensure_table(widened())
    fresh().ensure_table(widened())

    held = warehouse.query("SELECT added, digest FROM cost_daily", purpose="test")
    assert held.column_names == ["added", "digest"]
    # Workers of the version before go on while the new ones run.
    fresh().ensure_table(SCHEMA)
    for bad in (widened(name="more", mode="REQUIRED"), widened(name="added", type="STRING")):
        with pytest.raises(ConfigurationError, match="cost_daily"):
            fresh().ensure_table(bad)


def test_a_table_partitioned_otherwise_is_refused(clients: Clients, warehouse: Warehouse) -> None:
    warehouse.ensure_table(Schema.model_validate({**SCHEMA.model_dump(), "partition": None}))
    other = Warehouse(clients, org=warehouse.org, dataset=warehouse.dataset, maximum_bytes_billed=10**9)

    with pytest.raises(ConfigurationError, match="usage_date"):
        other.ensure_table(SCHEMA)


def test_a_dataset_in_another_region_is_refused(clients: Clients, warehouse: Warehouse) -> None:
    elsewhere = Warehouse(
        clients, org=warehouse.org, dataset=warehouse.dataset, location="EU", maximum_bytes_billed=1
    )

    with pytest.raises(ConfigurationError, match="lies in US"):
        elsewhere.ensure_dataset()


def test_temporary_tables_come_and_go(warehouse: Warehouse) -> None:
    expires = datetime.now(UTC) + timedelta(hours=1)
    warehouse.create_temporary("_staging_x", like=SCHEMA, expires=expires)
    assert warehouse.query("SELECT * FROM _staging_x", purpose="test").num_rows == 0

    warehouse.drop("_staging_x")
    warehouse.drop("_staging_x")

    with pytest.raises(NotFoundError):
        warehouse.query("SELECT * FROM _staging_x", purpose="test")


def test_job_exists_is_a_conflict_and_survives_a_trip(warehouse: Warehouse) -> None:
    assert issubclass(JobExists, Conflict)
    with pytest.raises(NotFoundError, match="knows no job"):
        warehouse.wait(new_job(), timeout_s=1)

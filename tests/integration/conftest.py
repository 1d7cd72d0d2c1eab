"""One embedded BigQuery for the whole session; every test gets an organisation of its own in it."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from engine.catalog import Catalog
from engine.central import Central
from engine.clients import Clients, connect
from engine.content_hash import content_hash
from engine.ledger import Ledger
from engine.schemas import Schema
from engine.warehouse import Warehouse
from tests.integration.bigquery_server import BigQueryServer

ROOT = Path(os.environ.get("MANTA_ROOT", Path(__file__).resolve().parents[2]))
BYTES_BILLED = 10**10


@pytest.fixture(scope="session")
def bigquery_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQueryServer]:
    """The embedded BigQuery, as `manta up` runs it, on ports of its own."""
    server = BigQueryServer(tmp_path_factory.mktemp("bigquery"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def clients(bigquery_server: BigQueryServer) -> Clients:
    return connect(
        project="local",
        rest_host=bigquery_server.rest,
        grpc_host=bigquery_server.grpc,
        credentials="anonymous",
        transport="plaintext",
    )


@pytest.fixture(scope="session")
def schemas() -> dict[str, Schema]:
    return dict(Catalog.load(ROOT).schemas)


@pytest.fixture(scope="session")
def _central(clients: Clients, schemas: dict[str, Schema]) -> Central:
    central = Central(clients, schemas=schemas, maximum_bytes_billed=BYTES_BILLED)
    central.ensure()
    return central


@pytest.fixture
def central(_central: Central) -> Central:
    """The central dataset; rows of other tests are of other organisations."""
    return _central


@pytest.fixture
def ledger(central: Central) -> Ledger:
    return Ledger(central)


@pytest.fixture
def org() -> str:
    return f"org_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def warehouse(clients: Clients, org: str) -> Warehouse:
    """A new organisation's dataset, with no tables."""
    made = Warehouse(clients, org=org, dataset=f"{org}_local", maximum_bytes_billed=BYTES_BILLED)
    made.ensure_dataset()
    return made


AssertLedgerTrue = Callable[..., dict[str, str]]


@pytest.fixture
def assert_ledger_true(central: Central, warehouse: Warehouse, org: str) -> AssertLedgerTrue:
    """`assert_ledger_true(schema)`: the table holds what the ledger's latest commits say, and nothing else.

    Answers the content hash of each committed day, read back from the warehouse.
    """

    def check(schema: Schema) -> dict[str, str]:
        rows = central.query(
            "SELECT DISTINCT day, table_version, content_hash, row_count FROM org_meta_partitions "
            "WHERE org_slug = @org_slug AND dataset = @dataset AND table_name = @table "
            "AND state = 'COMMITTED'",
            {"dataset": warehouse.dataset, "table": schema.table},
            org=org,
            purpose="test-ledger",
        ).to_pylist()
        versions = sorted({row["table_version"] for row in rows})
        assert versions == list(range(1, len(versions) + 1)), "a version is missing"
        per_version = sorted((row["table_version"], row["day"]) for row in rows)
        assert len(per_version) == len(set(per_version)), "one version committed two contents for a day"
        latest = {row["day"]: row for row in sorted(rows, key=lambda row: row["table_version"])}
        held = warehouse.query(f"SELECT * FROM `{schema.table}`", purpose="test-read-back")
        days = held[schema.partition].to_pylist()
        assert set(days) <= set(latest), "the table holds days that the ledger does not know"
        answer = {}
        for day, row in sorted(latest.items()):
            part = held.filter(pa.array([found == day for found in days], pa.bool_()))
            assert part.num_rows == row["row_count"], day
            assert content_hash(part, schema) == row["content_hash"], day
            answer[day.isoformat()] = row["content_hash"]
        return answer

    return check


@pytest.fixture
def new_id() -> Callable[[], str]:
    """Intent ids that a test can read: intent-1, intent-2, ..., unique to the test."""
    numbers, test = itertools.count(1), uuid.uuid4().hex[:8]
    return lambda: f"intent-{next(numbers)}-{test}"

"""The billing export over real sockets: tokens, statements, Arrow streams, changes, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.cloud import bigquery

from engine.artifacts import Artifacts
from engine.catalog import Catalog
from engine.clients import connect
from engine.errors import ConfigurationError, CredentialError, MantaError, TransientError
from engine.foreign import Patience
from engine.gcp.source import open_source
from engine.ledger import Ledger
from engine.log import JsonLog
from engine.publish import publish
from engine.settings import Settings
from engine.types import Discovery, Mark, Outcome, Unit
from engine.unit import run_unit
from engine.vault import Secret
from engine.warehouse import Warehouse
from processors import resolve
from processors.gcp import bq_discover, bq_etl
from sandbox import gcp_export as export
from tests.integration.bigquery_server import BigQueryServer
from tests.integration.conftest import ROOT
from tests.integration.gcp_front import EMAIL, Front, error, key_json

FIRST = date(2025, 12, 29)
DAYS = tuple(FIRST + timedelta(days=n) for n in range(3))
PROJECT = "acme-billing"
NOW = datetime(2026, 2, 10, tzinfo=UTC)


@pytest.fixture(scope="module")
def customer(bigquery_server: BigQueryServer) -> bigquery.Client:
    """The customer's own way into their BigQuery, with which the export is written."""
    return connect(
        project=PROJECT,
        rest_host=bigquery_server.rest,
        grpc_host=bigquery_server.grpc,
        credentials="anonymous",
        transport="plaintext",
    ).bigquery


@pytest.fixture(scope="module")
def drawn() -> export.Rows:
    """What the export of three days holds in the end, corrections of the next month included."""
    return export.draw(FIRST, len(DAYS), rows_per_day=60)


@pytest.fixture
def dataset(customer: bigquery.Client) -> str:
    name = f"{PROJECT}.billing_{uuid.uuid4().hex[:10]}"
    customer.create_dataset(name)
    return name


@pytest.fixture
def front(bigquery_server: BigQueryServer) -> Iterator[Front]:
    with Front(bigquery_server.rest) as door:
        yield door


class Desk:
    """Runs the two processors as a unit and a discover step do."""

    def __init__(self, front: Front, grpc: str, home: Path) -> None:
        self.front = front
        self.settings = Settings(
            root=ROOT,
            home=home,
            gcp_bigquery_base_url=front.url,
            gcp_bigquery_storage_host=grpc,
            gcp_oauth_base_url=front.url,
        )
        self.marks: dict[Any, Mark] = {}
        self.lines: list[str] = []

    def context(self, keys: Mapping[str, str], days: tuple[date, ...] = DAYS) -> dict[str, Any]:
        secrets = {name: Secret(key) for name, key in keys.items()}

        def connect(credential_id: str) -> Any:
            source = open_source(secrets[credential_id].reveal(), self.settings, org="acme", run_id="run-1")
            # A refusal that may pass is tried once more and not for 20 seconds.
            return replace(source, patience=Patience(away_s=0, sleep=lambda _: None))

        return {
            "org_slug": "acme",
            "dates": days,
            "run_id": "run-1",
            "pipeline_id": "acme-gcp-cost-billing",
            "variables": {"billing_dataset": None, "billing_accounts": None, "export": "auto"},
            "http": {},
            "secrets": secrets,
            "bigquery": connect,
            "tables": {},
            "marks": self.marks,
            "log": JsonLog(self.lines.append, now=lambda: NOW),
            "clock": lambda: NOW,
        }

    def read(self, key: str, days: tuple[date, ...] = DAYS, **config: Any) -> dict[str, Any]:
        return asyncio.run(bq_etl.get_engine().execute(config, self.context({"cred_1": key}, days)))

    def discover(self, key: str, **config: Any) -> Discovery:
        """Look for changes, and keep the marks as a run does that succeeded."""
        context = self.context({"cred_1": key})
        found = asyncio.run(bq_discover.get_engine().execute(config, context))["discovered"]
        assert isinstance(found, Discovery)
        self.marks.update({mark.key: mark for mark in found.marks})
        return found


@pytest.fixture
def desk(front: Front, bigquery_server: BigQueryServer, tmp_path: Path) -> Desk:
    return Desk(front, bigquery_server.grpc, tmp_path)


@pytest.fixture
def key(dataset: str) -> str:
    """A key that says where its export is."""
    return key_json(manta={"billing_dataset": dataset})


def net(table: pa.Table) -> dict[date, Decimal]:
    found: dict[date, Decimal] = {}
    for day, amount in zip(table["usage_date"].to_pylist(), table["net_cost"].to_pylist(), strict=True):
        found[day] = found.get(day, Decimal(0)) + amount
    return found


def codes(result: Mapping[str, Any]) -> set[str]:
    return {finding.code for finding in result["findings"]}


def test_every_row_comes_through_to_the_last_cent(
    desk: Desk, customer: bigquery.Client, dataset: str, key: str, drawn: export.Rows
) -> None:
    address = export.write(customer, drawn, dataset=dataset)
    result = desk.read(key)
    table = result["tables"]["gcp_billing_daily_raw"]
    assert table.num_rows == drawn.table.num_rows
    assert net(table) == export.net_by_day(drawn.table)
    assert len(set(table["row_id"].to_pylist())) == table.num_rows
    copies = [name for name in table["row_id"].to_pylist() if "-" in name]
    assert copies, "the export holds exact copies, and they are kept"
    assert {"regular", "tax", "rounding_error"} == set(table["cost_type"].to_pylist())
    assert "USAGE_CORRECTION" in table["adjustment_type"].to_pylist()
    assert set(table["x_export_table"].to_pylist()) == {address}
    assert result["findings"] == []
    labels = {text for text in table["labels"].to_pylist() if text and "owner" in text}
    assert labels == {r'{"cost-center":"","owner":"zoë \"z\" o\\"}'}
    for text, total in zip(table["credits"].to_pylist(), table["credits_total"].to_pylist(), strict=True):
        amounts = [Decimal(entry["amount"]) for entry in json.loads(text or "[]")]
        assert sum(amounts, Decimal(0)) == total


def test_every_statement_is_capped_labelled_and_asked_by_the_tenants_account(
    desk: Desk, front: Front, customer: bigquery.Client, dataset: str, key: str, drawn: export.Rows
) -> None:
    export.write(customer, drawn, dataset=dataset)
    desk.discover(key)
    desk.read(key)
    assert len(front.queries) == 4
    for configuration in front.queries:
        query = configuration["query"]
        assert int(query["maximumBytesBilled"]) == desk.settings.maximum_bytes_billed
        assert configuration["labels"].items() >= {"manta-org": "acme", "manta-run": "run-1"}.items()
        assert "2025" not in query["query"], "days go in as parameters"
    purposes = [configuration["labels"]["manta-purpose"] for configuration in front.queries]
    assert purposes == ["billing-changes", "billing-days", "billing-locate", "billing-rows"]
    assert set(front.issuers) == {EMAIL}


def test_late_rows_and_corrections_are_found_by_load_partition(
    desk: Desk, customer: bigquery.Client, dataset: str, key: str, drawn: export.Rows
) -> None:
    early, late = DAYS[-1] + timedelta(days=1), DAYS[-1] + timedelta(days=8)
    export.write(customer, drawn.between(None, early), dataset=dataset)
    first = desk.discover(key)
    assert first.days == frozenset(DAYS)
    assert desk.discover(key) == Discovery(frozenset(), ())
    before = desk.read(key)["tables"]["gcp_billing_daily_raw"]

    # Corrections of December's usage, loaded in January: one load partition, whatever days it touches.
    coming = drawn.between(early, late)
    export.write(customer, coming, dataset=dataset)
    changed = desk.discover(key)
    touched = {moment.date() for moment in coming.table["usage_start_time"].to_pylist()}
    assert changed.days == touched
    assert {mark.load_partition for mark in changed.marks} == set(coming.loaded.to_pylist())
    after = desk.read(key)["tables"]["gcp_billing_daily_raw"]
    assert after.num_rows == before.num_rows + coming.table.num_rows
    # What was there keeps its name, so that an unchanged day keeps its hash.
    assert set(before["row_id"].to_pylist()) <= set(after["row_id"].to_pylist())


def test_the_unit_publishes_whole_days_and_the_second_time_nothing(
    desk: Desk,
    customer: bigquery.Client,
    dataset: str,
    key: str,
    drawn: export.Rows,
    warehouse: Warehouse,
    ledger: Ledger,
    tmp_path: Path,
    assert_ledger_true: Callable[..., dict[str, str]],
) -> None:
    export.write(customer, drawn, dataset=dataset)
    catalog = Catalog.load(ROOT)
    pipeline = catalog.pipeline("gcp/cost/billing")
    schema = catalog.schemas["gcp_billing_daily_raw"]
    unit = Unit(warehouse.org, pipeline.path, DAYS)

    def run(attempt: int) -> Outcome:
        context = {**desk.context({"cred_1": key}), "org_slug": warehouse.org, "warehouse": warehouse}

        def publish_tables(tables: Mapping[str, pa.Table]) -> Any:
            return publish(
                unit,
                tables,
                schemas={output.table: catalog.schemas[output.schema_] for output in pipeline.outputs},
                checks={output.table: output.checks for output in pipeline.outputs},
                run_id="run-1",
                attempt=attempt,
                provisional=frozenset(),
                warehouse=warehouse,
                ledger=ledger,
                artifacts=Artifacts(str(tmp_path / "artifacts")),
                now=lambda: datetime.now(UTC),
            )

        return asyncio.run(
            run_unit(
                unit,
                pipeline,
                catalog,
                attempt=attempt,
                resolve=resolve,
                context=context,
                publish=publish_tables,
                rand=random.random,
            )
        )

    outcome = run(1)
    assert outcome.error is None
    assert {published.how for published in outcome.publications} == {"loaded"}
    assert {published.how for published in run(2).publications} == {"unchanged"}
    assert len(assert_ledger_true(schema)) == len(DAYS)
    warehouse.ensure_table(schema)
    view = catalog.schemas["gcp_cost_daily"].view
    assert view is not None
    spent = warehouse.query(
        f"SELECT usage_date, SUM(total_cost) AS net FROM ({view}) GROUP BY usage_date", purpose="test"
    )
    held = dict(zip(spent["usage_date"].to_pylist(), spent["net"].to_pylist(), strict=True))
    assert held == export.net_by_day(drawn.table)


@pytest.mark.slow
def test_the_detailed_export_wins_and_days_before_it_are_named(
    desk: Desk, customer: bigquery.Client, dataset: str, key: str, drawn: export.Rows
) -> None:
    other = export.draw(FIRST, 1, rows_per_day=5, seed=2, account="AAAAAA-BBBBBB-CCCCCC")
    begun = drawn.between(DAYS[2], None)
    export.write(customer, drawn, dataset=dataset, detail="standard")
    detailed = export.write(customer, begun, dataset=dataset, detail="detailed")
    alone = export.write(customer, other, dataset=dataset, detail="standard", account="AAAAAA-BBBBBB-CCCCCC")
    result = desk.read(key)
    table = result["tables"]["gcp_billing_daily_raw"]
    assert set(table["x_export_table"].to_pylist()) == {detailed, alone}
    assert table.num_rows == begun.table.num_rows + other.table.num_rows
    there = {moment.date() for moment in begun.table["usage_start_time"].to_pylist()}
    named = {finding.day for finding in result["findings"] if finding.code == "only_in_standard_export"}
    assert named == set(DAYS) - there
    standard = desk.read(key, export="standard", billing_accounts="0124FF-8C7296-9F0D41")
    assert standard["tables"]["gcp_billing_daily_raw"].num_rows == drawn.table.num_rows


@pytest.mark.slow
def test_an_export_of_another_shape_is_read_as_it_is_found(
    desk: Desk, customer: bigquery.Client, dataset: str, key: str, drawn: export.Rows
) -> None:
    """Cut by a column, without columns that came later, with one that nobody knows, and NUMERIC amounts."""
    address = export.write(customer, drawn, dataset=dataset)
    expected = desk.read(key)["tables"]["gcp_billing_daily_raw"]
    copy = f"{dataset}.{export.table_name('detailed', 'COPY00-000000-000000')}"
    customer.query(
        f"CREATE TABLE `{copy}` PARTITION BY DATE(export_time) AS "
        "SELECT * EXCEPT (cost, tags, price, seller_name, subscription), "
        f"CAST(cost AS NUMERIC) AS cost, 7 AS seller_name, 'new' AS carbon FROM `{address}`"
    ).result()
    desk.discover(key, billing_accounts="COPY00-000000-000000")
    result = desk.read(key, billing_accounts="COPY00-000000-000000")
    table = result["tables"]["gcp_billing_daily_raw"]
    assert codes(result) == {"unknown_export_columns", "export_columns_of_other_type"}
    assert [f.detail for f in result["findings"]] == [
        "Not taken: carbon.",
        "Read as NULL: seller_name (INTEGER NULLABLE).",
    ]
    assert net(table) == net(expected)
    assert not {"tags", "price_effective", "seller_name"} & set(table.column_names)
    assert Counter(table["labels"].to_pylist()) == Counter(expected["labels"].to_pylist())


def test_two_keys_of_one_customer_are_not_two_costs(
    desk: Desk, customer: bigquery.Client, dataset: str, key: str, drawn: export.Rows
) -> None:
    export.write(customer, drawn, dataset=dataset)
    context = desk.context({"cred_b": key, "cred_a": key})
    result = asyncio.run(bq_etl.get_engine().execute({}, context))
    table = result["tables"]["gcp_billing_daily_raw"]
    assert table.num_rows == drawn.table.num_rows
    assert set(table["x_credential_id"].to_pylist()) == {"cred_a"}
    assert codes(result) == {"same_export_twice"}


def test_a_day_without_rows_is_a_table_without_rows(
    desk: Desk, customer: bigquery.Client, dataset: str, key: str, drawn: export.Rows
) -> None:
    export.write(customer, drawn, dataset=dataset)
    table = desk.read(key, days=(date(2025, 6, 1),))["tables"]["gcp_billing_daily_raw"]
    assert table.num_rows == 0
    assert set(table.column_names) >= {"usage_date", "row_id", "net_cost", "x_credential_id"}


DENIED = error(
    403, "Access Denied: Dataset acme-billing:x: Permission bigquery.tables.list denied", "accessDenied"
)
OVER = error(
    400, "Query exceeded limit for bytes billed: 100. 200 or higher required.", "bytesBilledLimitExceeded"
)
GONE = {"error": "invalid_grant", "error_description": "Invalid grant: account not found"}


@pytest.mark.parametrize(
    ("part", "status", "body", "kind", "said"),
    [
        ("/tables", 403, DENIED, CredentialError, f"{EMAIL} may not"),
        ("/jobs", 403, DENIED, CredentialError, "roles/bigquery.jobUser"),
        ("/jobs", 400, OVER, ConfigurationError, "MAXIMUM_BYTES_BILLED"),
        ("/jobs", 403, error(403, "Too many", "rateLimitExceeded"), TransientError, "Too many"),
        ("/jobs", 503, b"<html>down</html>", TransientError, "billing-locate"),
        ("/token", 400, GONE, CredentialError, "account not found"),
    ],
    ids=["other-project", "no-job-user", "bytes", "rate", "away", "key-deleted"],
)
def test_a_refusal_says_what_to_do(
    part: str,
    status: int,
    body: Any,
    kind: type[MantaError],
    said: str,
    desk: Desk,
    front: Front,
    customer: bigquery.Client,
    dataset: str,
    key: str,
) -> None:
    export.write(customer, export.draw(FIRST, 1, rows_per_day=1), dataset=dataset)
    front.refusals = [(part, status, body)]
    with pytest.raises(kind) as caught:
        desk.read(key)
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert str(caught.value).startswith("Credential cred_1: ")
    assert "PRIVATE KEY" not in str(caught.value)


def test_a_token_endpoint_that_is_down_is_worth_another_try(desk: Desk, key: str) -> None:
    desk.settings = desk.settings.model_copy(update={"gcp_oauth_base_url": "http://127.0.0.1:9"})
    with pytest.raises(TransientError):
        desk.read(key)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda dataset: key_json(), "Nobody says where the billing export"),
        (lambda dataset: key_json(manta={"billing_dataset": "billing"}), "'billing' is not project.dataset"),
        (lambda dataset: key_json(manta={"billing_dataset": f"{PROJECT}.none"}), "not there"),
        (lambda dataset: key_json(manta={"billing_dataset": dataset}), "holds no billing export"),
    ],
    ids=["nowhere", "half", "missing", "empty"],
)
def test_an_export_that_is_not_there(make: Callable[[str], str], said: str, desk: Desk, dataset: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        desk.read(make(dataset))
    assert caught.value.field == "billing_dataset"


def test_a_table_that_only_sounds_like_an_export(
    desk: Desk, customer: bigquery.Client, dataset: str, key: str
) -> None:
    customer.query(
        f"CREATE TABLE `{dataset}.gcp_billing_export_v1_X` (usage_start_time TIMESTAMP, cost STRING)"
    ).result()
    with pytest.raises(ConfigurationError, match="has column cost as STRING NULLABLE"):
        desk.read(key)


def test_a_stopped_step_cancels_its_statement(
    desk: Desk, front: Front, customer: bigquery.Client, dataset: str, key: str, drawn: export.Rows
) -> None:
    export.write(customer, drawn, dataset=dataset)
    source = open_source(key, desk.settings, org="acme", run_id="run-1")
    source.stop.set()
    with pytest.raises(MantaError, match="was stopped"):
        list(source.stream("SELECT 1 AS one", {}, purpose="test", location="US"))

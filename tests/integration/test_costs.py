"""What `manta cost` and `manta query` ask, on the embedded BigQuery through the real client."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.clients import Clients
from engine.costs import GROUPINGS, SPEND, cost_tables, spend, totals
from engine.errors import UsageError
from engine.questions import ask
from engine.schemas import Schema
from engine.warehouse import Warehouse

SINCE, UNTIL = date(2026, 3, 8), date(2026, 3, 14)
AT = datetime(2026, 3, 15, tzinfo=UTC)


def row(schema: Schema, day: date, model: str | None, total: str | None, **more: Any) -> dict[str, Any]:
    provider = schema.table.partition("_")[0]
    lineage = {
        "x_org_slug": "o",
        "x_pipeline_id": "p",
        "x_credential_id": "c",
        "x_pipeline_run_date": day,
        "x_run_id": "r",
        "x_ingested_at": AT,
    }
    given = {
        "usage_date": day,
        "provider": provider,
        "model": model,
        "total_cost": None if total is None else Decimal(total),
        "currency": "USD",
        "pricing_status": "UNPRICED" if total is None else "PRICED",
        **lineage,
        **more,
    }
    if provider == "openai":
        given.setdefault("endpoint", "completions")
    return {name: given.get(name) for name in schema.arrow.names}


def publish(warehouse: Warehouse, schema: Schema, rows: list[dict[str, Any]]) -> None:
    warehouse.ensure_table(schema)
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.arrow), file)
    job_id = f"test-{uuid4().hex}"
    warehouse.load(file.getvalue(), destination=schema.table, schema=schema, job_id=job_id)
    assert warehouse.wait(job_id, timeout_s=30).error is None


@pytest.fixture(scope="module")
def openai(schemas: dict[str, Schema]) -> Schema:
    return schemas["openai_cost_daily"]


@pytest.fixture(scope="module")
def anthropic(schemas: dict[str, Schema]) -> Schema:
    return schemas["anthropic_cost_daily"]


@pytest.fixture(scope="module")
def loaded(clients: Clients, openai: Schema, anthropic: Schema) -> Warehouse:
    """A tenant with two weeks of both providers; the tests only read it."""
    org = f"org_{uuid4().hex[:12]}"
    warehouse = Warehouse(clients, org=org, dataset=f"{org}_local", maximum_bytes_billed=10**10)
    warehouse.ensure_dataset()
    tokens = {"input_tokens": 100, "input_cached_tokens": 40, "output_tokens": 10}
    publish(
        warehouse,
        openai,
        [
            row(openai, date(2026, 3, 8), "gpt-a", "0.000000001", project_id="p1", api_key_id="k1", **tokens),
            row(openai, date(2026, 3, 9), "gpt-a", "99999999.999999999", project_id="p2", **tokens),
            row(openai, date(2026, 3, 14), "gpt-new", None, project_id="p1", **tokens),
            row(openai, date(2026, 3, 14), None, "0.25", endpoint="vector_stores"),
            row(openai, date(2026, 3, 7), "gpt-a", "50", project_id="p1"),
            row(openai, date(2026, 3, 1), "gpt-old", "3", project_id="p1"),
            row(openai, date(2026, 2, 28), "gpt-a", "7777", project_id="p1"),
            row(openai, date(2026, 3, 15), "gpt-a", "8888", project_id="p1"),
        ],
    )
    counts = {
        "uncached_input_tokens": 1,
        "cache_read_input_tokens": 20,
        "cache_creation_5m_input_tokens": 300,
        "cache_creation_1h_input_tokens": 4000,
        "output_tokens": 50000,
    }
    publish(
        warehouse,
        anthropic,
        [
            row(
                anthropic, date(2026, 3, 10), "claude-a", "1.5", workspace_id="w1", api_key_id="k9", **counts
            ),
            row(anthropic, date(2026, 3, 10), "claude-x", None, workspace_id="w1", api_key_id="k9", **counts),
        ],
    )
    return warehouse


def asked(warehouse: Warehouse, schemas: dict[str, Schema], by: Any) -> list[dict[str, Any]]:
    tables = cost_tables(schemas, ["openai", "anthropic"])
    found = spend(warehouse, since=SINCE, until=UNTIL, by=by, providers=tables)
    assert found.schema == SPEND
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def test_by_model_is_exact_and_compares_with_the_week_before(
    loaded: Warehouse, schemas: dict[str, Schema]
) -> None:
    rows = asked(loaded, schemas, "model")
    shown = [(r["provider"], r["key"], r["cost"], r["cost_before"]) for r in rows]
    assert shown == [
        ("openai", "gpt-a", Decimal("100000000.000000000"), Decimal("50.000000000")),
        ("anthropic", "claude-a", Decimal("1.500000000"), Decimal(0)),
        ("openai", "(vector_stores)", Decimal("0.250000000"), Decimal(0)),
        ("anthropic", "claude-x", Decimal(0), Decimal(0)),
        ("openai", "gpt-new", Decimal(0), Decimal(0)),
        ("openai", "gpt-old", Decimal(0), Decimal(3)),
    ]


def test_cached_tokens_count_once_and_unpriced_ones_apart(
    loaded: Warehouse, schemas: dict[str, Schema]
) -> None:
    by_key = {row["key"]: row for row in asked(loaded, schemas, "model")}
    assert (by_key["gpt-a"]["tokens"], by_key["gpt-a"]["unpriced_tokens"]) == (220, 0)
    assert (by_key["gpt-new"]["tokens"], by_key["gpt-new"]["unpriced_tokens"]) == (110, 110)
    assert (by_key["claude-x"]["unpriced_tokens"], by_key["claude-x"]["unpriced_rows"]) == (54321, 1)


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        ("provider", {("openai", None), ("anthropic", None)}),
        ("project", {("openai", "p1"), ("openai", "p2"), ("openai", None), ("anthropic", "w1")}),
        ("api_key", {("openai", "k1"), ("openai", None), ("anthropic", "k9")}),
    ],
)
def test_groups_use_each_provider_s_own_columns(
    loaded: Warehouse, schemas: dict[str, Schema], by: Any, keys: set[tuple[str, str | None]]
) -> None:
    assert {(row["provider"], row["key"]) for row in asked(loaded, schemas, by)} == keys


def test_by_day_compares_with_the_same_day_one_period_earlier(
    loaded: Warehouse, schemas: dict[str, Schema]
) -> None:
    rows = asked(loaded, schemas, "day")
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    by_day = {(row["provider"], row["key"]): (row["cost"], row["cost_before"]) for row in rows}
    # The 1st was seven days before the 8th, the 7th seven days before the 14th.
    assert by_day["openai", "2026-03-08"] == (Decimal("0.000000001"), Decimal(3))
    assert by_day["openai", "2026-03-14"] == (Decimal("0.25"), Decimal(50))


@pytest.mark.parametrize("by", GROUPINGS)
def test_every_grouping_has_the_same_total(loaded: Warehouse, schemas: dict[str, Schema], by: Any) -> None:
    tables = cost_tables(schemas, ["openai", "anthropic"])
    (whole,) = totals([spend(loaded, since=SINCE, until=UNTIL, by=by, providers=tables)])
    assert (whole.cost, whole.cost_before) == (Decimal("100000001.75"), Decimal(53))
    assert (whole.unpriced_tokens, whole.unpriced_rows) == (54431, 2)


def test_tables_that_a_tenant_lacks_are_zero_rows(
    warehouse: Warehouse, schemas: dict[str, Schema], anthropic: Schema
) -> None:
    assert asked(warehouse, schemas, "model") == []
    publish(warehouse, anthropic, [row(anthropic, date(2026, 3, 10), "claude-a", "2")])
    assert [found["key"] for found in asked(warehouse, schemas, "model")] == ["claude-a"]


@pytest.fixture(scope="module")
def other(clients: Clients) -> str:
    """Another dataset, with a table that nobody may reach."""
    name = f"other_{uuid4().hex[:8]}"
    clients.bigquery.create_dataset(f"local.{name}")
    clients.bigquery.query_and_wait(f"CREATE TABLE `local.{name}.secrets` AS SELECT 42 AS n")
    return name


class TestQuestions:
    def test_bare_names_are_the_tenant_s(self, loaded: Warehouse) -> None:
        found = ask(
            loaded, "SELECT usage_date, total_cost FROM anthropic_cost_daily WHERE total_cost IS NOT NULL"
        )
        assert found.to_pylist() == [{"usage_date": date(2026, 3, 10), "total_cost": Decimal("1.500000000")}]

    def test_with_and_brackets_and_comments_are_read(self, loaded: Warehouse) -> None:
        sql = "-- what of it\n(WITH a AS (SELECT model FROM openai_cost_daily) SELECT COUNT(*) AS n FROM a)"
        assert ask(loaded, sql).to_pylist() == [{"n": 8}]

    def test_a_name_in_a_literal_is_no_reach(self, loaded: Warehouse) -> None:
        found = ask(loaded, "SELECT 'INFORMATION_SCHEMA.JOBS' AS text, \"EXTERNAL_QUERY\" AS more")
        assert found.num_rows == 1

    def test_the_tenant_s_own_views_may_be_read(self, loaded: Warehouse) -> None:
        found = ask(loaded, "SELECT table_name FROM INFORMATION_SCHEMA.TABLES ORDER BY table_name")
        assert found["table_name"].to_pylist() == ["anthropic_cost_daily", "openai_cost_daily"]

    @pytest.mark.parametrize(
        "sql",
        [
            "DELETE FROM openai_cost_daily WHERE TRUE",
            "UPDATE openai_cost_daily SET model = 'x' WHERE TRUE",
            "DROP TABLE openai_cost_daily",
            "CREATE TABLE mine AS SELECT 1 AS n",
            "SELECT 1; DROP TABLE openai_cost_daily",
            "WITH a AS (SELECT 1 AS n) SELECT * FROM a; SELECT 2",
            "EXPORT DATA OPTIONS (uri = 'gs://b/*') AS SELECT 1",
            "BEGIN SELECT 1; END",
            "CALL anything()",
            "",
            "-- nothing",
        ],
    )
    def test_only_one_reading_statement_is_run(self, loaded: Warehouse, sql: str) -> None:
        with pytest.raises(UsageError):
            ask(loaded, sql)
        assert ask(loaded, "SELECT COUNT(*) AS n FROM openai_cost_daily").to_pylist() == [{"n": 8}]

    @pytest.mark.parametrize(
        "shape",
        [
            "SELECT * FROM {other}.secrets",
            "SELECT * FROM `{other}.secrets`",
            "SELECT * FROM `{other}`.`secrets`",
            "SELECT * FROM local.{other}.secrets",
            "SELECT * FROM `local.{other}.secrets`",
            "SELECT 1 AS n FROM openai_cost_daily, {other}.secrets",
            "SELECT (SELECT MAX(n) FROM {other}.secrets) AS n",
            "WITH a AS (SELECT n FROM {other}.secrets) SELECT * FROM a",
            "SELECT 1 AS n UNION ALL SELECT n FROM {other}.secrets",
            "SELECT org_slug FROM organizations.org_profiles",
            "SELECT table_name FROM {other}.INFORMATION_SCHEMA.TABLES",
            "SELECT table_name FROM `{other}`.INFORMATION_SCHEMA.TABLES",
            "SELECT query FROM INFORMATION_SCHEMA.JOBS",
            "SELECT query FROM `region-us`.INFORMATION_SCHEMA.JOBS",
            "SELECT schema_name FROM INFORMATION_SCHEMA.SCHEMATA",
            "SELECT * FROM EXTERNAL_QUERY('c', 'SELECT 1')",
            "SELECT * FROM {other}.__TABLES__",
        ],
    )
    def test_no_way_leads_to_another_dataset(
        self, loaded: Warehouse, central: Any, other: str, shape: str
    ) -> None:
        with pytest.raises(UsageError) as refused:
            ask(loaded, shape.format(other=other))
        assert refused.value.fix

    def test_what_bigquery_says_is_passed_on(self, loaded: Warehouse) -> None:
        with pytest.raises(UsageError, match="BigQuery says") as refused:
            ask(loaded, "SELECT no_such_column FROM openai_cost_daily")
        assert "no_such_column" in refused.value.message
        assert "http" not in refused.value.message

    def test_an_unknown_table_is_named(self, loaded: Warehouse) -> None:
        with pytest.raises(UsageError, match="no_such_table") as refused:
            ask(loaded, "SELECT * FROM no_such_table")
        assert "INFORMATION_SCHEMA.TABLES" in refused.value.fix

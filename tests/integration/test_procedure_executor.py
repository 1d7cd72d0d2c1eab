"""`generic.procedure_executor` on the embedded BigQuery: rows, metrics, errors, timeouts, tenants apart."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from engine.clients import Clients
from engine.errors import ConfigurationError, NotFoundError, UsageError
from engine.warehouse import Warehouse
from processors.generic.procedure_executor import ExecutorConfig, get_engine
from tests.integration.procedure_place import BYTES_BILLED, TABLE, Place, a_place

DAYS = """
  DECLARE n INT64;
  EXECUTE IMMEDIATE FORMAT(\"\"\"
    INSERT INTO `%s.%s` (usage_date, plan_id, daily_cost)
    SELECT day, p.plan_id, ROUND(p.price * @factor / 3, 9)
    FROM `%s.plans` AS p CROSS JOIN UNNEST(GENERATE_DATE_ARRAY(@first, @last)) AS day
  \"\"\", dataset, staging, dataset) USING factor AS factor, first AS first, last AS last;
  EXECUTE IMMEDIATE FORMAT("SELECT COUNT(*) FROM `%s.%s`", dataset, staging) INTO n;
  ASSERT n > 0 AS 'no plan at all';
"""
PARAMETERS = "dataset STRING, staging STRING, first DATE, last DATE, factor NUMERIC"
CONFIG = {
    "procedure": "demo_days",
    "parameters": {"first": date(2025, 12, 1), "last": "2025-12-02", "factor": "0.1"},
    "returns": {"table": TABLE},
}
#: Many statements, each a moment long: about 20 s, if nobody ends it.
SLOW = """
  DECLARE n INT64 DEFAULT 0;
  WHILE n < 400 DO
    SELECT COUNT(*) FROM UNNEST(GENERATE_ARRAY(1, 2000)) AS a CROSS JOIN UNNEST(GENERATE_ARRAY(1, 5000)) AS b
    WHERE MOD(a * b, 7) = 3;
    SET n = n + 1;
  END WHILE;
"""


@pytest.fixture(scope="module")
def place(clients: Clients, tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = a_place(clients, tmp_path_factory.mktemp("root"))
    made.write("days", PARAMETERS, DAYS)
    made.write("touch", "dataset STRING, note STRING", TOUCH)
    made.write("slow", "dataset STRING, staging STRING", SLOW)
    made.write(
        "broken", "dataset STRING", '  EXECUTE IMMEDIATE FORMAT("SELECT nope FROM `%s.plans`", dataset);'
    )
    made.procedures.sync()
    return made


TOUCH = """
  EXECUTE IMMEDIATE FORMAT("UPDATE `%s.plans` SET note = @note WHERE TRUE", dataset) USING note AS note;
  EXECUTE IMMEDIATE FORMAT("DELETE FROM `%s.plans` WHERE plan_id = 'b'", dataset);
"""


@pytest.fixture
def tenant(warehouse: Warehouse) -> Warehouse:
    warehouse.query("CREATE TABLE plans (plan_id STRING, price NUMERIC, note STRING)", purpose="test")
    warehouse.query(
        "INSERT INTO plans VALUES ('a', NUMERIC '10', NULL), ('b', NUMERIC '0.3', NULL)", purpose="test"
    )
    return warehouse


async def test_rows_come_back_exact_and_the_staging_table_goes(place: Place, tenant: Warehouse) -> None:
    result = await place.call(tenant, CONFIG)
    rows = sorted(result["tables"][TABLE].to_pylist(), key=lambda row: (row["usage_date"], row["plan_id"]))
    assert [(row["usage_date"].day, row["plan_id"], row["daily_cost"]) for row in rows] == [
        (1, "a", Decimal("0.333333333")),
        (1, "b", Decimal("0.010000000")),
        (2, "a", Decimal("0.333333333")),
        (2, "b", Decimal("0.010000000")),
    ]
    assert {row["x_credential_id"] for row in rows} == {"none"}
    assert tenant.tables() == ("plans",)


async def test_metrics_name_the_job_its_children_and_the_rows(place: Place, tenant: Warehouse) -> None:
    found = (await place.call(tenant, CONFIG))["metrics"]
    assert (found["procedure"], found["rows_affected"], found["rows_returned"]) == ("demo_days", 4, 4)
    assert [(one["statement_type"], one["rows"]) for one in found["statements"]] == [("INSERT", 4)]
    assert all(one["ms"] is not None for one in found["statements"])
    job = tenant.job(found["job_id"])
    assert job is not None
    assert job.labels == {"manta-org": tenant.org, "manta-run": "run-1", "manta-procedure": "demo_days"}


async def test_without_returns_there_are_only_metrics(place: Place, tenant: Warehouse) -> None:
    result = await place.call(tenant, {"procedure": "demo_touch", "parameters": {"note": "it's; -- 'x'"}})
    assert result["tables"] == {}
    assert result["metrics"]["rows_affected"] == 3
    left = tenant.query("SELECT plan_id, note FROM plans", purpose="test").to_pylist()
    assert left == [{"plan_id": "a", "note": "it's; -- 'x'"}]


async def test_one_tenants_call_touches_that_tenant_alone(
    place: Place, tenant: Warehouse, clients: Clients
) -> None:
    org = f"org_{uuid.uuid4().hex[:12]}"
    other = Warehouse(clients, org=org, dataset=f"{org}_local", maximum_bytes_billed=BYTES_BILLED)
    other.ensure_dataset()
    other.query("CREATE TABLE plans AS SELECT 'z' AS plan_id, NUMERIC '1' AS price", purpose="test")
    await place.call(tenant, {"procedure": "demo_touch", "parameters": {"note": "x"}})
    rows = (await place.call(other, CONFIG))["tables"][TABLE].to_pylist()
    assert {row["plan_id"] for row in rows} == {"z"}
    for name in ("dataset", "staging"):
        with pytest.raises(ConfigurationError, match=f"{name} is bound by Manta"):
            ExecutorConfig.read({"procedure": "demo_touch", "parameters": {name: other.dataset}})


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"procedure": "demo_dayz"}, NotFoundError, "no procedure demo_dayz"),
        ({"parameters": {"first": "2025-12-01"}}, UsageError, "needs last DATE, factor NUMERIC"),
        ({"parameters": {**CONFIG["parameters"], "x": 1}}, UsageError, "no parameter x"),  # type: ignore[dict-item]
        ({"parameters": {**CONFIG["parameters"], "factor": 0.1}}, UsageError, "never a float"),  # type: ignore[dict-item]
        ({"returns": None}, ConfigurationError, "takes a staging table"),
        ({"returns": {"table": "nothing"}}, ConfigurationError, "no schema 'nothing'"),
        ({"procedure": "demo_broken", "parameters": {}}, ConfigurationError, "takes no staging table"),
        ({"surprise": 1}, ConfigurationError, "config.surprise"),
    ],
)
async def test_a_wrong_config_is_refused_before_anything_starts(
    place: Place, tenant: Warehouse, changes: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        await place.call(tenant, {**CONFIG, **changes})
    assert tenant.tables() == ("plans",)


async def test_bigquerys_error_names_the_procedure_and_its_file(place: Place, tenant: Warehouse) -> None:
    with pytest.raises(ConfigurationError) as raised:
        await place.call(tenant, {"procedure": "demo_broken"})
    assert raised.value.message.startswith("Procedure demo_broken failed (procedures/demo/broken.sql")
    assert "Unrecognized name: nope" in raised.value.message


async def test_an_assertion_leaves_no_table_behind(place: Place, tenant: Warehouse) -> None:
    tenant.query("DELETE FROM plans WHERE TRUE", purpose="test")
    with pytest.raises(ConfigurationError, match="no plan at all"):
        await place.call(tenant, CONFIG)
    assert tenant.tables() == ("plans",)


async def test_a_step_that_is_out_of_time_ends_its_job_and_drops_its_table(
    place: Place, tenant: Warehouse
) -> None:
    def calls() -> list[Any]:
        jobs = tenant.clients.bigquery.list_jobs(max_results=50)
        ours = [job for job in jobs if (job.labels or {}).get("manta-org") == tenant.org]
        return [job for job in ours if job.job_id.startswith("manta-call-")]

    def until_running() -> None:
        until = time.monotonic() + 60
        while not any(job.state == "RUNNING" for job in calls()):
            assert time.monotonic() < until, "the job never ran"
            time.sleep(0.05)

    # What asyncio.timeout does to it, as soon as the job runs.
    step = asyncio.create_task(place.call(tenant, {"procedure": "demo_slow", "returns": {"table": TABLE}}))
    await asyncio.to_thread(until_running)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert [(job.state, job.error_result["reason"]) for job in calls()] == [("DONE", "stopped")]
    assert tenant.tables() == ("plans",)


async def test_rows_that_break_the_schema_fail_in_bigquery(place: Place, tenant: Warehouse) -> None:
    tenant.query("INSERT INTO plans VALUES (NULL, NUMERIC '1', NULL)", purpose="test")
    with pytest.raises(ConfigurationError, match="demo_days failed"):
        await place.call(tenant, CONFIG)
    assert tenant.tables() == ("plans",)


def test_validate_finds_a_procedure_that_is_not_there_and_wrong_parameters(
    place: Place, tmp_path: Path
) -> None:
    engine = get_engine()
    assert list(engine.config_problems(CONFIG, place.root)) == []
    for changes, at, said in (
        ({"procedure": "demo_dayz"}, ("procedure",), "no file under procedures/ holds demo_dayz"),
        ({"parameters": {"first": "x"}}, ("parameters",), "needs last DATE"),
        ({"returns": None}, ("returns",), "go together"),
    ):
        problems = list(engine.config_problems({**CONFIG, **changes}, place.root))
        assert problems[0][0] == at
        assert said in problems[0][1]

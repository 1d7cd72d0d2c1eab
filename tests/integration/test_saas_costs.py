"""SaaS plans in the warehouse: the procedure computes what the reference does, and changes are not lost."""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine.artifacts import Artifacts
from engine.catalog import Catalog
from engine.central import Central
from engine.clients import Clients
from engine.errors import ConfigurationError, MantaError
from engine.ledger import Ledger
from engine.log import JsonLog
from engine.procedures.files import read_procedures
from engine.procedures.sync import Procedures
from engine.publish import publish
from engine.saas.costs import DayCost, daily_costs
from engine.saas.plans import SaasPlan
from engine.saas.table import PLANS, PlanTable
from engine.schemas import Schema
from engine.types import Unit
from engine.unit import run_unit
from engine.views import ensure_view
from engine.warehouse import Dataset, Warehouse
from processors import resolve
from tests.integration.conftest import BYTES_BILLED, ROOT
from tests.property.saas_plans import subscriptions

COSTS = "saas_subscription_plan_costs_daily"
PATH = "saas_subscription/costs/saas_cost"
SLACK = SaasPlan(
    subscription_id="slack",
    vendor="Slack",
    plan_name="Business+",
    effective_from=date(2024, 1, 31),
    start_date=date(2024, 1, 31),
    billing_cycle="monthly",
    seats=40,
    unit_price=Decimal("12.50"),
    currency="EUR",
    team="platform",
)


@pytest.fixture(scope="module")
def procedures(clients: Clients, _central: Central) -> Procedures:
    """The procedure, synced as `manta up` does it."""
    dataset = Dataset(
        clients,
        dataset=_central.dataset,
        location="US",
        maximum_bytes_billed=BYTES_BILLED,
        labels={},
        patience=Warehouse(clients, org="o", dataset="o", maximum_bytes_billed=1).patience,
    )
    found = Procedures(dataset, read=lambda: read_procedures(ROOT))
    found.sync(domain="saas_subscription")
    return found


@pytest.fixture
def plans(warehouse: Warehouse, schemas: dict[str, Schema]) -> PlanTable:
    return PlanTable(warehouse, schemas[PLANS], now=now)


@pytest.fixture
def context(warehouse: Warehouse, schemas: dict[str, Schema], procedures: Procedures) -> dict[str, Any]:
    return {
        "org_slug": warehouse.org,
        "run_id": "run-1",
        "pipeline_id": "p",
        "variables": {},
        "warehouse": warehouse,
        "procedures": procedures,
        "schemas": schemas,
        "log": JsonLog(lambda _: None, now=now),
        "clock": now,
    }


def now() -> datetime:
    """The real time: the staging table expires a day after it."""
    return datetime.now(UTC)


def computed(context: dict[str, Any], first: date, last: date) -> pa.Table:
    """The rows of the pipeline's own step."""
    step = Catalog.load(ROOT).pipeline(PATH).steps[0]
    days = {"start_date": first, "end_date": last}
    config = {**step.config, "parameters": days}
    answer = asyncio.run(resolve(step.ps_type).execute(config, {**context, "dates": (first, last)}))
    found: pa.Table = answer["tables"][COSTS]
    return found


@given(st.lists(subscriptions(), min_size=60, max_size=60), st.randoms(use_true_random=False))
# Not shrunk: each example is a dataset of its own, and the rows that differ say enough.
@settings(max_examples=3, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_the_procedure_computes_what_the_reference_does(
    clients: Clients,
    schemas: dict[str, Schema],
    procedures: Procedures,
    drawn: list[list[SaasPlan]],
    rand: random.Random,
) -> None:
    """Many subscriptions in one call, each row compared with the pure Python rule."""
    org = f"org_{uuid4().hex[:12]}"
    warehouse = Warehouse(clients, org=org, dataset=f"{org}_local", maximum_bytes_billed=BYTES_BILLED)
    warehouse.ensure_dataset()
    rows = [
        row.model_copy(
            update={"subscription_id": f"s{n}", "status": "VOID" if rand.random() < 0.1 else row.status}
        )
        for n, found in enumerate(drawn)
        for row in found
    ]
    PlanTable(warehouse, schemas[PLANS]).change(lambda book: rows, by="test")
    first = date(2024, 2, 1) + timedelta(days=rand.randint(-600, 600))
    last = first + timedelta(days=120)
    given_to = {"warehouse": warehouse, "procedures": procedures, "schemas": schemas, "run_id": "r"}
    log = JsonLog(lambda _: None, now=now)
    found = computed({**given_to, "log": log, "clock": now}, first, last)
    names = [field.name for field in fields(DayCost)]
    expected = {
        (row.subscription_id, row.usage_date): {name: getattr(row, name) for name in names}
        for n in range(len(drawn))
        for row in daily_costs([row for row in rows if row.subscription_id == f"s{n}"], first, last)
    }
    rows_found = {(row["subscription_id"], row["usage_date"]): row for row in found.select(names).to_pylist()}
    wrong = [(row, rows_found.get(key)) for key, row in expected.items() if rows_found.get(key) != row]
    assert wrong[:2] == []
    assert found.num_rows == len(expected) == len(rows_found)
    assert found["daily_cost"] == found["total_cost"]


@pytest.mark.slow
def test_what_plans_cost_is_published_and_reported(
    plans: PlanTable,
    context: dict[str, Any],
    warehouse: Warehouse,
    schemas: dict[str, Schema],
    ledger: Ledger,
    tmp_path: Path,
) -> None:
    free = SLACK.model_copy(update={"subscription_id": "free", "unit_price": Decimal(0), "team": None})
    plans.change(lambda book: [SLACK, free], by="test")
    dearer = {"subscription_id": "slack", "effective_from": date(2024, 2, 10), "unit_price": Decimal(15)}
    plans.change(lambda book: [book.agreed("slack", dearer)], by="test")
    catalog = Catalog.load(ROOT)
    pipeline = catalog.pipeline(PATH)
    days = tuple(date(2024, 1, 25) + timedelta(days=n) for n in range(40))
    unit = Unit(warehouse.org, PATH, days)

    def put(tables: Any) -> Any:
        return publish(
            unit,
            tables,
            schemas={output.table: schemas[output.schema_] for output in pipeline.outputs},
            checks={output.table: output.checks for output in pipeline.outputs},
            run_id="run-1",
            attempt=1,
            provisional=frozenset(),
            warehouse=warehouse,
            ledger=ledger,
            artifacts=Artifacts(str(tmp_path), connect=lambda: None),
            now=now,
        )

    async def run() -> Any:
        return await run_unit(
            unit,
            pipeline,
            catalog,
            attempt=1,
            resolve=resolve,
            context={**context, "dates": days},
            publish=put,
            rand=lambda: 0.0,
        )

    outcome = asyncio.run(run())
    assert outcome.error is None
    rows = [p.rows for p in outcome.publications if p.partition.table == COSTS]
    assert rows == [0] * 6 + [2] * (len(days) - 6)
    assert {p.how for p in asyncio.run(run()).publications} == {"unchanged"}
    ensure_view(warehouse, schemas["saas_subscription_cost_daily"])
    spent = warehouse.query(
        "SELECT model, project_id, currency, SUM(total_cost) AS cost, COUNT(*) AS days "
        "FROM saas_subscription_cost_daily WHERE usage_date < DATE '2024-02-29' GROUP BY ALL ORDER BY cost",
        purpose="test",
    ).to_pylist()
    # 10 of 29 days at 500 a month, 19 at 600: the term that begins on 31 January ends before 29 February.
    cost = Decimal("172.413793103") + Decimal("393.103448276")
    assert spent == [
        {"model": "Slack Business+", "project_id": None, "currency": "EUR", "cost": Decimal(0), "days": 29},
        {"model": "Slack Business+", "project_id": "platform", "currency": "EUR", "cost": cost, "days": 29},
    ]


def test_without_plans_it_says_so(context: dict[str, Any]) -> None:
    with pytest.raises(MantaError, match="There are no plans yet"):
        computed(context, date(2024, 1, 1), date(2024, 1, 2))


@pytest.mark.parametrize(
    "broken",
    [
        {"billing_cycle": "fortnightly"},
        {"seats": -1},
        {"discount_type": "percent", "discount_value": Decimal(101)},
        {"end_date": date(2023, 1, 1)},
        {"status": "CANCELLED"},
    ],
)
def test_a_row_that_no_command_wrote_is_named(
    plans: PlanTable, context: dict[str, Any], broken: dict[str, Any]
) -> None:
    # Past the model, as a statement of somebody else would be.
    plans.change(lambda book: [SLACK.model_copy(update=broken)], by="test")
    with pytest.raises(ConfigurationError, match="Plan slack from 2024-01-31 is none that can be computed"):
        computed(context, date(2024, 1, 1), date(2024, 1, 2))


def test_writers_at_one_moment_both_get_in(warehouse: Warehouse, schemas: dict[str, Schema]) -> None:
    warehouse.ensure_table(schemas[PLANS])
    names = [f"p{n}" for n in range(4)]
    failures: list[BaseException] = []

    def write(name: str) -> None:
        try:
            wanted = SLACK.model_copy(update={"subscription_id": name})
            PlanTable(warehouse, schemas[PLANS]).change(lambda book: book.news([wanted]), by=name)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    writers = [threading.Thread(target=write, args=(name,)) for name in names]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    book = PlanTable(warehouse, schemas[PLANS]).book()
    assert sorted(book.subscriptions()) == names
    assert sorted(one.change_number for one in book.standing.values()) == [1, 2, 3, 4]


def test_plans_of_an_organisation_that_comes_back_under_its_old_name(
    plans: PlanTable, warehouse: Warehouse, clients: Clients, schemas: dict[str, Schema]
) -> None:
    """BigQuery remembers job ids for longer than a dataset lives."""
    plans.change(lambda book: [SLACK], by="test")
    warehouse.drop(PLANS)
    again = Warehouse(
        clients, org=warehouse.org, dataset=warehouse.dataset, maximum_bytes_billed=BYTES_BILLED
    )
    made = PlanTable(again, schemas[PLANS])
    assert made.change(lambda book: book.news([SLACK]), by="test") == (SLACK,)
    assert made.book().last_change == 1


def test_the_same_again_writes_nothing(plans: PlanTable) -> None:
    assert plans.change(lambda book: book.news([SLACK]), by="test") == (SLACK,)
    assert plans.change(lambda book: book.news([SLACK]), by="test") == ()
    ended = plans.change(lambda book: book.ending("slack", date(2024, 5, 10)), by="test")
    assert [(one.end_date, one.status) for one in ended] == [(date(2024, 5, 10), "CANCELLED")]
    assert plans.book().last_versions == {"slack": 2}

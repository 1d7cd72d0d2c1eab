"""SaaS costs of 10,000 plans over 365 days on the embedded BigQuery, from CSV to published partitions.

    python -m benchmarks.saas [--plans 10000] [--days 365]

The plans (every cycle, anchor days 1 to 31, discounts, a price change in mid-term for every tenth) are read
from CSV and appended; then each unit of the pipeline's own width runs as the product runs it: the procedure
through `generic.procedure_executor`, the rows read back, audited, hashed and published. It ends with the
proof that no money was lost: each charge against the sum of its days. Peak memory is this process's, which is
what a worker would need; BigQuery here is DuckDB in a process of its own, on the same CPUs.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster import services
from engine.artifacts import Artifacts
from engine.catalog import Catalog
from engine.central import Central
from engine.clients import Clients, connect
from engine.foreign import Patience
from engine.ledger import Ledger
from engine.log import JsonLog
from engine.procedures.files import read_procedures
from engine.procedures.sync import Procedures
from engine.publish import publish
from engine.saas.csv_file import read_plans
from engine.saas.table import PLANS, PlanTable
from engine.types import Outcome, Publication, Unit
from engine.unit import run_unit
from engine.warehouse import Dataset, Warehouse
from processors import resolve

ROOT = Path(__file__).parents[1]
PATH = "saas_subscription/costs/saas_cost"
COSTS = "saas_subscription_plan_costs_daily"
ORG = "bench"
FIRST = date(2025, 1, 1)
BYTES_BILLED = 10**12
CYCLES = ("weekly", "monthly", "monthly", "monthly", "quarterly", "semi_annual", "annual")
HEADER = (
    "subscription_id,vendor,plan_name,start_date,effective_from,billing_cycle,billing_anchor_day,unit_price,seats,"
    "currency,discount_type,discount_value,team"
)
PROOF = f"""
WITH numbered AS (
  SELECT *, COUNTIF(charge_day) OVER (PARTITION BY subscription_id ORDER BY usage_date) AS charge_number
  FROM {COSTS}
), charges AS (
  SELECT
    subscription_id, charge_number, SUM(daily_cost) AS days, MAX(charge_amount) AS charge,
    MAX(usage_date) AS last_day
  FROM numbered WHERE charge_number > 0 GROUP BY subscription_id, charge_number
)
SELECT COUNT(*) AS charges, COUNTIF(days != charge) AS wrong
FROM charges
WHERE last_day < @last
"""


def csv_text(count: int) -> str:
    """A file of `count` subscriptions."""
    rand = random.Random(7)
    rows = [HEADER]
    for n in range(count):
        start = FIRST - timedelta(days=rand.randrange(700))
        cycle = rand.choice(CYCLES)
        anchor = "" if cycle == "weekly" else rand.choice(("", str(rand.randint(1, 31))))
        discount = rand.choice((",", "percent,12.5", "fixed,1"))
        terms = f"{cycle},{anchor},{rand.randrange(100, 99999)}.{rand.randrange(100):02}"
        more = f"EUR,{discount},team {n % 40}"
        named = f"plan-{n:05},Vendor {n % 300},Plan {n % 7},{start}"
        rows.append(f"{named},,{terms},{rand.randrange(1, 400)},{more}")
        if n % 10 == 0:
            changed = FIRST + timedelta(days=rand.randrange(365))
            rows.append(f"{named},{changed},{terms},{rand.randrange(1, 400)},{more}")
    return "\n".join(rows)


def run(clients: Clients, home: Path, *, plans: int, days: int) -> bool:
    """Measure and print; true when every charge is the sum of its days."""
    catalog = Catalog.load(ROOT)
    central = Central(clients, schemas=catalog.schemas, maximum_bytes_billed=BYTES_BILLED)
    central.ensure()
    warehouse = Warehouse(clients, org=ORG, dataset=f"{ORG}_local", maximum_bytes_billed=BYTES_BILLED)
    warehouse.ensure_dataset()
    whole = Dataset(
        clients,
        dataset=central.dataset,
        location="US",
        maximum_bytes_billed=BYTES_BILLED,
        labels={},
        patience=Patience(),
    )
    procedures = Procedures(whole, read=lambda: read_procedures(ROOT))
    procedures.sync(domain="saas_subscription")
    text, started = csv_text(plans), time.perf_counter()
    read = read_plans(text, name="plans.csv")
    parsed = time.perf_counter()
    if read.problems:
        raise SystemExit(str(read.problems[0]))
    PlanTable(warehouse, catalog.schemas[PLANS]).change(lambda book: book.news(read.plans), by="benchmark")
    print(f"import: {len(read.plans):,} rows, read and checked {parsed - started:.1f} s, ", end="")
    print(f"appended {time.perf_counter() - parsed:.1f} s", flush=True)
    print(
        "| unit | rows | procedure and reading s | audit, hash, publish s | peak MB |\n|---|---|---|---|---|"
    )
    rows = step = put = 0.0
    width = catalog.pipeline(PATH).partition.max_days_per_unit
    for offset in range(0, days, width):
        chosen = tuple(FIRST + timedelta(days=n) for n in range(offset, min(days, offset + width)))
        unit = Unit(ORG, PATH, chosen)
        outcome = asyncio.run(one_unit(unit, catalog, warehouse, central, procedures, home))
        if outcome.error is not None:
            raise outcome.error
        seconds = {timing.stage: timing.seconds for timing in outcome.timings}
        made = sum(publication.rows for publication in outcome.publications)
        rows, step, put = rows + made, step + seconds["daily_costs"], put + seconds["publish"]
        print(f"| {unit.days[0]}..{unit.days[-1]} | {made:,} | {seconds['daily_costs']:.1f} ", end="")
        print(f"| {seconds['publish']:.1f} | {peak_mb():,.0f} |", flush=True)
    print(f"| all | {rows:,.0f} | {step:.1f} | {put:.1f} | {peak_mb():,.0f} |")
    print(f"{rows / (step + put):,.0f} rows a second from plan to partition")
    return proven(warehouse)


async def one_unit(
    unit: Unit,
    catalog: Catalog,
    warehouse: Warehouse,
    central: Central,
    procedures: Procedures,
    home: Path,
) -> Outcome:
    """One unit, as a worker runs it."""
    pipeline = catalog.pipeline(PATH)

    def put(tables: Mapping[str, pa.Table]) -> tuple[Publication, ...]:
        return publish(
            unit,
            {COSTS: tables[COSTS]},
            schemas={COSTS: catalog.schemas[COSTS]},
            checks={COSTS: pipeline.outputs[0].checks},
            run_id="benchmark",
            attempt=1,
            provisional=frozenset(),
            warehouse=warehouse,
            ledger=Ledger(central),
            artifacts=Artifacts(str(home / "artifacts"), connect=lambda: None),
            now=_now,
        )

    context: dict[str, Any] = {
        "org_slug": ORG,
        "dates": unit.days,
        "run_id": "benchmark",
        "pipeline_id": pipeline.id_for(ORG),
        "variables": {},
        "warehouse": warehouse,
        "procedures": procedures,
        "schemas": catalog.schemas,
        "log": JsonLog(lambda _: None, now=_now),
        "clock": _now,
    }
    # The step alone: what else the pipeline does with its rows is measured elsewhere.
    alone = pipeline.model_copy(
        update={"steps": pipeline.steps[:1], "outputs": pipeline.outputs[:1]},
    )
    return await run_unit(
        unit, alone, catalog, attempt=1, resolve=resolve, context=context, publish=put, rand=random.random
    )


def proven(warehouse: Warehouse) -> bool:
    """Every charge whose days all lie in the year is the sum of them, to the last digit."""
    last = warehouse.query(f"SELECT MAX(usage_date) AS day FROM {COSTS}", purpose="bench")["day"][0].as_py()
    found = warehouse.query(PROOF, {"last": last}, purpose="bench").to_pylist()[0]
    print(f"{found['charges']:,} charges that end in time, {found['wrong']} not the sum of their days")
    return bool(found["charges"]) and not found["wrong"]


def peak_mb() -> float:
    """The most this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _now() -> datetime:
    return datetime.now(UTC)


def main() -> int:
    """Start an embedded BigQuery, measure, stop it; 1 when money was lost."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.saas", description="SaaS costs.")
    options.add_argument("--plans", type=int, default=10_000)
    options.add_argument("--days", type=int, default=365)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="manta-bench-") as folder:
        home = Path(folder)
        service = services.start_warehouse(home, project="local")
        try:
            clients = connect(
                project="local",
                rest_host=service.endpoints["rest"],
                grpc_host=service.endpoints["grpc"],
                credentials="anonymous",
                transport="plaintext",
            )
            right = run(clients, home, plans=given.plans, days=given.days)
        finally:
            services.stop(home)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())

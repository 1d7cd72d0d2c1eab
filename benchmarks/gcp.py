"""A billing export from a customer's BigQuery to published partitions, against the plain way.

    python -m benchmarks.gcp [--rows 300000] [--days 30] [--unit-days 7] [--focus] [--quick]

Both sides read the same generated export (nested, in Google's schema) from the same embedded BigQuery, each
in a process of its own. Plain: `query().to_arrow()` over the Storage Read API of all columns and rows,
written to Parquet and loaded by one job: nothing is flattened, made exact, checked, hashed or recorded.
Manta: a unit of `--unit-days` at a time, each in a process of its own, by the product's processor and its
publishing with ledger, artifacts and swaps. Seconds are without start-up and imports; memory is the child's
largest.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from google.cloud import bigquery

from engine.artifacts import Artifacts
from engine.catalog import Catalog
from engine.central import Central
from engine.clients import Clients, connect
from engine.gcp.source import open_source
from engine.ledger import Ledger
from engine.log import JsonLog
from engine.publish import publish
from engine.settings import Settings
from engine.types import Unit
from engine.unit import run_unit
from engine.vault import Secret
from engine.warehouse import Warehouse
from processors import resolve
from sandbox import gcp_export as export
from tests.integration.bigquery_server import BigQueryServer
from tests.integration.gcp_front import Front, key_json

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "acme-billing"
DATASET = f"{PROJECT}.billing"
FIRST = date(2025, 9, 1)
ORG = "acme"
TABLE = "gcp_billing_daily_raw"
BYTES_BILLED = 10**12
#: Rows drawn and loaded at once.
WAVE_DAYS = 5


def clients(state: dict[str, Any], project: str) -> Clients:
    """Ways into the embedded BigQuery."""
    return connect(
        project=project,
        rest_host=state["rest"],
        grpc_host=state["grpc"],
        credentials="anonymous",
        transport="plaintext",
    )


def generate(state: dict[str, Any], rows: int, days: int) -> int:
    """Write the export; answers its number of rows, which is a little over `rows`."""
    client = clients(state, PROJECT).bigquery
    client.create_dataset(DATASET)
    written = 0
    for start in range(0, days, WAVE_DAYS):
        count = min(WAVE_DAYS, days - start)
        drawn = export.draw(FIRST + timedelta(days=start), count, rows_per_day=rows // days, seed=start)
        export.write(client, drawn, dataset=DATASET)
        written += drawn.table.num_rows
    return written


def plain(state: dict[str, Any]) -> dict[str, Any]:
    """Read the export as it is and load it again."""
    work = clients(state, PROJECT)
    source = f"{DATASET}.{export.table_name('detailed')}"
    started = time.perf_counter()
    table = work.bigquery.query(f"SELECT * FROM `{source}`").to_arrow(bqstorage_client=work.read)
    read = time.perf_counter()
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    sink.seek(0)
    options: Any = bigquery.format_options
    parquet = options.ParquetOptions()
    parquet.enable_list_inference = True
    config = bigquery.LoadJobConfig(source_format="PARQUET", write_disposition="WRITE_TRUNCATE")
    config.parquet_options = parquet
    work.bigquery.load_table_from_file(sink, f"{DATASET}.plain_copy", job_config=config).result()
    ended = time.perf_counter()
    return {"rows": table.num_rows, "seconds": ended - started, "read_s": read - started, "mb": peak_mb()}


def unit(state: dict[str, Any], first: int, days: int) -> dict[str, Any]:
    """Read, check and publish some days, as a unit does."""
    work = clients(state, "local")
    catalog = Catalog.load(ROOT)
    central = Central(work, schemas=catalog.schemas, maximum_bytes_billed=BYTES_BILLED)
    warehouse = Warehouse(work, org=ORG, dataset=f"{ORG}_local", maximum_bytes_billed=BYTES_BILLED)
    whole = catalog.pipeline("gcp/cost/billing")
    # What the plain way does not do either is left out: the conversion to FOCUS, with its own table.
    alone = {"steps": whole.steps[:1], "outputs": whole.outputs[:1]}
    pipeline = whole if state["focus"] else whole.model_copy(update=alone)
    settings = Settings(
        root=ROOT,
        home=Path(state["home"]),
        gcp_bigquery_base_url=state["front"],
        gcp_bigquery_storage_host=state["grpc"],
        gcp_oauth_base_url=state["front"],
    )
    secret = Secret(state["key"])
    wanted = Unit(ORG, pipeline.path, tuple(FIRST + timedelta(days=first + n) for n in range(days)))

    def publish_tables(tables: Any) -> Any:
        return publish(
            wanted,
            tables,
            schemas={output.table: catalog.schemas[output.schema_] for output in pipeline.outputs},
            checks={output.table: output.checks for output in pipeline.outputs},
            run_id="run-1",
            attempt=1,
            provisional=frozenset(),
            warehouse=warehouse,
            ledger=Ledger(central),
            artifacts=Artifacts(str(Path(state["home"]) / "artifacts")),
            now=lambda: datetime.now(UTC),
        )

    context = {
        "org_slug": ORG,
        "dates": wanted.days,
        "run_id": "run-1",
        "pipeline_id": pipeline.id_for(ORG),
        "variables": dict(pipeline.variables),
        "http": {},
        "secrets": {"cred": secret},
        "bigquery": lambda _: open_source(secret.reveal(), settings, org=ORG, run_id="run-1"),
        "warehouse": warehouse,
        "tables": {},
        "log": JsonLog(lambda _: None, now=lambda: datetime.now(UTC)),
        "clock": lambda: datetime.now(UTC),
    }
    before = peak_mb()
    started = time.perf_counter()
    outcome = asyncio.run(
        run_unit(
            wanted,
            pipeline,
            catalog,
            attempt=1,
            resolve=resolve,
            context=context,
            publish=publish_tables,
            rand=random.random,
        )
    )
    if outcome.error is not None:
        raise outcome.error
    read = outcome.timings[0]
    return {
        "rows": read.rows,
        "seconds": time.perf_counter() - started,
        "read_s": read.seconds,
        "mb": peak_mb(),
        "start_mb": before,
    }


def peak_mb() -> float:
    """This process's largest resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(state: dict[str, Any], *what: object) -> dict[str, Any]:
    """Run one side in a process of its own."""
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks.gcp", "--child", json.dumps(state), *map(str, what)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    found: dict[str, Any] = json.loads(said.stdout.splitlines()[-1])
    return found


def prepare(state: dict[str, Any]) -> None:
    """Make the datasets and tables that an organisation has before its first run."""
    work = clients(state, "local")
    schemas = Catalog.load(ROOT).schemas
    Central(work, schemas=schemas, maximum_bytes_billed=BYTES_BILLED).ensure()
    warehouse = Warehouse(work, org=ORG, dataset=f"{ORG}_local", maximum_bytes_billed=BYTES_BILLED)
    warehouse.ensure_dataset()
    for table in (TABLE, "focus_gcp_daily"):
        warehouse.ensure_table(schemas[table])


def compare(rows: int, days: int, unit_days: int, *, focus: bool) -> None:
    """Generate, run both sides and print what they took."""
    with tempfile.TemporaryDirectory(prefix="manta-gcp-") as folder:
        server = BigQueryServer(Path(folder))
        server.start()
        try:
            with Front(server.rest) as front:
                key = key_json(manta={"billing_dataset": DATASET})
                state = {
                    "rest": server.rest,
                    "grpc": server.grpc,
                    "front": front.url,
                    "home": folder,
                    "key": key,
                    "focus": focus,
                }
                started = time.perf_counter()
                written = generate(state, rows, days)
                print(f"{written:,} rows of {days} days written in {time.perf_counter() - started:.0f} s")
                prepare(state)
                one = child(state, "plain")
                parts = [
                    child(state, "unit", first, min(unit_days, days - first))
                    for first in range(0, days, unit_days)
                ]
        finally:
            server.stop()
    ours = {name: sum(part[name] for part in parts) for name in ("rows", "seconds", "read_s")}
    if ours["rows"] != one["rows"] or one["rows"] != written:
        raise AssertionError(f"{written} rows written, {one['rows']} read plainly, {ours['rows']} by Manta")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs; {len(parts)} units of {unit_days} days")
    print(f"{'':<8}{'seconds':>9}{'of it reading':>15}{'rows/s':>10}{'peak MB':>9}")
    for name, found, peak in (
        ("plain", one, one["mb"]),
        ("manta", ours, max(part["mb"] for part in parts)),
    ):
        print(
            f"{name:<8}{found['seconds']:>9.1f}{found['read_s']:>15.1f}"
            f"{found['rows'] / found['seconds']:>10,.0f}{peak:>9,.0f}"
        )
    largest = max(parts, key=lambda part: part["rows"])
    print(
        f"largest unit: {largest['rows']:,} rows, {largest['mb']:,.0f} MB ({largest['start_mb']:,.0f} before)"
    )
    print(f"manta / plain = {ours['seconds'] / one['seconds']:.2f} (goal: at most 2)")


def main() -> None:
    """Compare, or be one side of the comparison."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--rows", type=int, default=300_000)
    options.add_argument("--days", type=int, default=30)
    options.add_argument("--unit-days", type=int, default=7)
    options.add_argument("--focus", action="store_true", help="with the conversion to FOCUS and its table")
    options.add_argument("--quick", action="store_true", help="40,000 rows of 6 days")
    options.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        state, side = json.loads(given.child[0]), given.child[1]
        found = plain(state) if side == "plain" else unit(state, *map(int, given.child[2:]))
        print(json.dumps(found))
        return
    if given.quick:
        given.rows, given.days, given.unit_days = 40_000, 6, 3
    compare(given.rows, given.days, given.unit_days, focus=given.focus)


if __name__ == "__main__":
    main()

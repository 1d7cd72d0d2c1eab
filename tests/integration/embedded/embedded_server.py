"""A real embedded BigQuery in a process of its own, and what the tests say to it with the real client."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

DAY, NEXT = dt.date(2025, 12, 8), dt.date(2025, 12, 9)
SCHEMA = [
    bigquery.SchemaField("day", "DATE", mode="REQUIRED"),
    bigquery.SchemaField("n", "INT64"),
    bigquery.SchemaField("raw", "BYTES"),
    bigquery.SchemaField("tags", "BYTES", mode="REPEATED"),
]
ARROW = pa.schema(
    [
        pa.field("day", pa.date32()),
        pa.field("n", pa.int64()),
        pa.field("raw", pa.binary()),
        pa.field("tags", pa.list_(pa.binary())),
    ]
)


def command(data_dir: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "cluster.embedded", "--data-dir", str(data_dir), *arguments]


class Server:
    """One launched server process."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.data_dir, self.log = data_dir, data_dir.with_suffix(".log")
        # A killed server leaves its address behind; only the new one's counts here.
        (data_dir / "address.json").unlink(missing_ok=True)
        env = os.environ | {"HOME": str(data_dir.parent / "nobody")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command(data_dir, *arguments), stdout=log, stderr=log, env=env)
        until = time.monotonic() + 60
        while not (data_dir / "address.json").exists():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)
        self.address: dict[str, Any] = json.loads((data_dir / "address.json").read_text())

    def client(self) -> bigquery.Client:
        options = ClientOptions(api_endpoint=self.address["rest"])
        return bigquery.Client(project="local", credentials=AnonymousCredentials(), client_options=options)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(timeout=15)


def make_table(client: bigquery.Client, name: str, schema: Any = None, unit: str = "DAY") -> str:
    table = bigquery.Table(f"local.shop.{name}", schema=schema or SCHEMA)
    table.time_partitioning = bigquery.TimePartitioning(type_=unit, field="day")
    client.create_table(table)
    return f"local.shop.{name}"


def rows(day: dt.date | None, *numbers: int) -> pa.Table:
    data = [{"day": day, "n": n, "raw": b"\x00\xff", "tags": [b"\xfe", b"a"]} for n in numbers]
    return pa.Table.from_pylist(data, schema=ARROW)


def load(
    client: bigquery.Client,
    table: pa.Table,
    destination: str,
    disposition: str = "WRITE_TRUNCATE",
    job_id: str | None = None,
    **options: Any,
) -> bigquery.LoadJob:
    file = io.BytesIO()
    pq.write_table(table, file)
    file.seek(0)
    config = bigquery.LoadJobConfig(source_format="PARQUET", write_disposition=disposition, **options)
    return client.load_table_from_file(file, destination, job_id=job_id, job_config=config)


def content(client: bigquery.Client, table: str) -> list[tuple[str, int]]:
    sql = f"SELECT CAST(day AS STRING) AS day, n FROM `{table}` ORDER BY 1, 2"
    return [(row["day"], row["n"]) for row in client.query(sql).result()]

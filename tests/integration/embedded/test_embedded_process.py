"""The process: one for a data dir, on loopback, offline, ready when it says so, gone when asked."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from google.cloud import bigquery
from google.cloud import bigquery_storage_v1 as storage
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

from tests.integration.embedded.embedded_server import DAY, Server, command, content, load, make_table, rows


def _refused(data_dir: Path, *arguments: str) -> str:
    done = subprocess.run(
        command(data_dir, *arguments), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    return line


def test_a_second_server_names_the_holder(server: Server) -> None:
    line = _refused(server.data_dir)
    assert f"process {server.process.pid}" in line
    assert str(server.data_dir) in line
    assert json.loads((server.data_dir / "address.json").read_text()) == server.address


@pytest.mark.parametrize("flag", ["--port", "--grpc-port"])
def test_a_busy_port_is_named(tmp_path: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        line = _refused(tmp_path / "bq", f"{flag}={port}")
    assert f"127.0.0.1:{port} " in line
    assert f"another {flag} (0 is any free port)" in line
    assert not (tmp_path / "bq" / "address.json").exists()


def test_the_address_is_true_and_answers_at_once(server: Server) -> None:
    assert server.address["pid"] == server.process.pid
    url = f"{server.address['rest']}/bigquery/v2/projects/local/datasets"
    with urllib.request.urlopen(url) as answer:
        assert answer.status == 200


def test_only_loopback_listens(server: Server) -> None:
    inodes = set()
    for entry in Path(f"/proc/{server.process.pid}/fd").iterdir():
        inodes.add(str(entry.readlink()))
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                listening.append(fields[1].rpartition(":")[0])
    # 127.0.0.1, and the same mapped into IPv6.
    assert sorted(listening) == ["0000000000000000FFFF00000100007F", "0100007F"]


def test_nobodys_home_is_touched(server: Server) -> None:
    assert not (server.data_dir.parent / "nobody").exists()
    links = list((server.data_dir / "home" / ".duckdb").rglob("*.duckdb_extension"))
    assert {link.name.partition(".")[0] for link in links} >= {"icu", "ducklake", "spatial"}


def test_the_log_is_quiet(server: Server, client: bigquery.Client) -> None:
    list(client.list_datasets())
    assert server.log.read_text() == ""


def test_storage_read_brings_arrow(server: Server, client: bigquery.Client) -> None:
    table = make_table(client, "arrow")
    load(client, rows(DAY, *range(1000)), f"{table}$20251208").result()
    channel = grpc.insecure_channel(server.address["grpc"])
    reader = storage.BigQueryReadClient(  # type: ignore[no-untyped-call]
        transport=BigQueryReadGrpcTransport(channel=channel)
    )
    found = client.query(f"SELECT n FROM `{table}`").to_arrow(bqstorage_client=reader)
    assert isinstance(found, pa.Table)
    assert sum(found["n"].to_pylist()) == 499500


def test_sigterm_ends_cleanly_and_everything_is_there_again(launch: Callable[..., Server]) -> None:
    server = launch()
    client = server.client()
    client.create_dataset("shop")
    table = make_table(client, "kept")
    load(client, rows(DAY, 1), f"{table}$20251208", job_id="kept-1").result()
    numbers = "UNNEST(GENERATE_ARRAY(1, 200000))"
    slow = f"SELECT COUNT(*) FROM {numbers} a CROSS JOIN {numbers} b WHERE MOD(a * b, 7) = 1"
    client.query(slow, job_id="slow", job_retry=None)
    began = time.monotonic()
    assert server.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 6
    assert not (server.data_dir / "address.json").exists()

    client = launch().client()
    assert content(client, table) == [("2025-12-08", 1)]
    assert client.get_table(table).time_partitioning.field == "day"
    assert client.get_job("kept-1").error_result is None
    assert client.get_job("slow").error_result["reason"] == "stopped"


def test_a_dead_holder_is_no_obstacle(launch: Callable[..., Server]) -> None:
    first = launch()
    first.end(signal.SIGKILL)
    assert (first.data_dir / "server.lock").read_text().strip() == str(first.process.pid)
    second = launch()
    assert second.address["pid"] == second.process.pid

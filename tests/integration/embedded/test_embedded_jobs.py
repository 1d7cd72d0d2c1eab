"""Job ids and job records: executed at most once, and truthful after the server was killed."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from google.api_core.exceptions import Conflict, GoogleAPICallError, NotFound
from google.cloud import bigquery

from tests.integration.embedded.embedded_server import DAY, Server, content, load, make_table, rows


def _try(client: bigquery.Client, table: str, job_id: str, number: int) -> str:
    try:
        load(client, rows(DAY, number), table, "WRITE_APPEND", job_id).result()
    except GoogleAPICallError as error:
        return type(error).__name__
    return "done"


def test_a_used_job_id_is_409(client: bigquery.Client) -> None:
    table = make_table(client, "used")
    load(client, rows(DAY, 1), table, "WRITE_APPEND", "used-1").result()
    with pytest.raises(Conflict):
        load(client, rows(DAY, 2), table, "WRITE_APPEND", "used-1")
    with pytest.raises(Conflict):
        client.query("SELECT 1", job_id="used-1", job_retry=None)
    assert content(client, table) == [("2025-12-08", 1)]


@pytest.mark.parametrize("attempt", range(3))
def test_of_many_at_once_one_is_executed_and_all_others_are_409(server: Server, attempt: int) -> None:
    clients = [server.client() for _ in range(8)]
    table = make_table(clients[0], f"race{attempt}")
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(_try, c, table, f"race-{attempt}", i) for i, c in enumerate(clients)]
        answers = sorted(job.result() for job in jobs)
    assert answers == ["Conflict"] * 7 + ["done"]
    assert len(content(clients[0], table)) == 1


def test_a_refused_upload_leaves_no_file(server: Server, client: bigquery.Client) -> None:
    table = make_table(client, "upload")
    for _ in range(2):
        _try(client, table, "upload-1", 1)
    assert list((server.data_dir / "uploads").iterdir()) == []


def test_kill_during_a_load_leaves_record_and_data_in_agreement(launch: Callable[..., Server]) -> None:
    server = launch()
    client = server.client()
    client.create_dataset("shop")
    table = make_table(client, "big")
    load(client, rows(DAY, 1), f"{table}$20251208", job_id="before").result()
    count = 2_000_000
    big = pa.table({"day": pa.array([DAY] * count, pa.date32()), "n": range(count)})

    def submit() -> None:
        # In a thread, because the server answers a submit only after a second or when the job is done; left
        # behind, because the client goes on trying for a minute once the server is gone.
        with suppress(Exception):
            load(server.client(), big, f"{table}$20251208", job_id="killed")

    threading.Thread(target=submit, daemon=True).start()
    state = None
    until = time.monotonic() + 30
    while state != "RUNNING" and time.monotonic() < until:
        with suppress(NotFound):
            state = client.get_job("killed").state
    server.end(signal.SIGKILL)
    assert state == "RUNNING"

    client = launch().client()
    job = client.get_job("killed")
    (row,) = client.query(f"SELECT COUNT(*) AS c FROM `{table}`").result()
    assert job.state == "DONE"
    assert row["c"] == (count if job.error_result is None else 1), job.error_result
    if job.error_result is not None:
        assert job.error_result["reason"] == "stopped"
    assert client.get_job("before").error_result is None


def _forget_the_end(data_dir: Path, job_id: str, new_id: str) -> None:
    """Put a finished job's record back to RUNNING, as if the server had been killed before writing it."""
    with duckdb.connect(data_dir / "emulator.duckdb") as con:
        [(text,)] = con.execute("SELECT resource FROM jobs WHERE job_id = ?", [job_id]).fetchall()
        job = json.loads(text)
        job["status"] = {"state": "RUNNING"}
        job["jobReference"]["jobId"] = new_id
        for gone in ("load", "endTime"):
            job["statistics"].pop(gone, None)
        con.execute(
            "INSERT OR REPLACE INTO jobs VALUES ('local', ?, NULL, 'RUNNING', 0, ?)",
            [new_id, json.dumps(job)],
        )


def test_a_restart_ends_lost_jobs_and_knows_which_had_committed(launch: Callable[..., Server]) -> None:
    server = launch()
    client = server.client()
    client.create_dataset("shop")
    table = make_table(client, "lost")
    load(client, rows(DAY, 1, 2), f"{table}$20251208", job_id="partition", labels={"org": "acme"}).result()
    load(client, rows(DAY, 3), table, "WRITE_APPEND", "whole").result()
    server.end(signal.SIGKILL)
    for job_id in ("partition", "whole"):
        _forget_the_end(server.data_dir, job_id, job_id)
    _forget_the_end(server.data_dir, "whole", "never-committed")

    client = launch().client()
    told = {job_id: client.get_job(job_id) for job_id in ("partition", "whole", "never-committed")}
    assert {job.state for job in told.values()} == {"DONE"}
    assert [told[k].error_result for k in ("partition", "whole")] == [None, None]
    assert [told[k].output_rows for k in ("partition", "whole")] == [2, 1]
    assert told["partition"].labels == {"org": "acme"}
    assert told["never-committed"].error_result["reason"] == "stopped"
    with pytest.raises(GoogleAPICallError, match="killed while the job was running"):
        told["never-committed"].result()
    assert content(client, table) == [("2025-12-08", n) for n in (1, 2, 3)]
    with pytest.raises(Conflict):
        load(client, rows(DAY, 4), table, "WRITE_APPEND", "never-committed")
    with pytest.raises(NotFound):
        client.get_job("never-heard-of")

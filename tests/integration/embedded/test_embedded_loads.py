"""Load jobs through the real client: partition decorators, dispositions, BYTES, what get_job tells."""

from __future__ import annotations

import datetime as dt

import pytest
from google.api_core.exceptions import BadRequest, Conflict, GoogleAPICallError
from google.cloud import bigquery

from tests.integration.embedded.embedded_server import DAY, NEXT, content, load, make_table, rows


def test_truncate_replaces_one_partition_only(client: bigquery.Client) -> None:
    table = make_table(client, "truncate")
    load(client, rows(DAY, 1, 2), f"{table}$20251208").result()
    load(client, rows(NEXT, 3), f"{table}$20251209").result()
    load(client, rows(DAY, 9), f"{table}$20251208").result()
    assert content(client, table) == [("2025-12-08", 9), ("2025-12-09", 3)]
    assert [t.table_id for t in client.list_tables("shop") if "$" in t.table_id] == []


def test_append_adds_and_empty_refuses(client: bigquery.Client) -> None:
    table = make_table(client, "append")
    load(client, rows(DAY, 1), f"{table}$20251208", "WRITE_EMPTY").result()
    load(client, rows(DAY, 2), f"{table}$20251208", "WRITE_APPEND").result()
    load(client, rows(NEXT, 3), f"{table}$20251209", "WRITE_EMPTY").result()
    with pytest.raises(GoogleAPICallError, match="Already Exists") as refused:
        load(client, rows(DAY, 4), f"{table}$20251208", "WRITE_EMPTY").result()
    assert refused.type is Conflict
    assert content(client, table) == [("2025-12-08", 1), ("2025-12-08", 2), ("2025-12-09", 3)]


def test_zero_rows_leave_an_empty_partition(client: bigquery.Client) -> None:
    table = make_table(client, "zero")
    load(client, rows(DAY, 1, 2), f"{table}$20251208").result()
    load(client, rows(NEXT, 3), f"{table}$20251209").result()
    job = load(client, rows(DAY), f"{table}$20251208").result()
    assert (job.state, job.error_result, job.output_rows) == ("DONE", None, 0)
    assert content(client, table) == [("2025-12-09", 3)]


@pytest.mark.parametrize("day", [NEXT, None])
def test_a_stranger_row_fails_the_load_whole(client: bigquery.Client, day: dt.date | None) -> None:
    table = make_table(client, f"stranger_{day is None}".lower())
    load(client, rows(DAY, 1), f"{table}$20251208").result()
    with pytest.raises(BadRequest, match="belong to different partitions"):
        load(client, rows(day, 2), f"{table}$20251208").result()
    assert content(client, table) == [("2025-12-08", 1)]


@pytest.mark.parametrize("decorator", ["202512", "20251308", "__NULL__", "2025120800"])
def test_a_decorator_that_does_not_fit_is_refused(client: bigquery.Client, decorator: str) -> None:
    table = client.get_table(make_table(client, f"unfit_{decorator}")).reference
    with pytest.raises(BadRequest, match="Partition decorator"):
        load(client, rows(DAY, 1), f"{table}${decorator}").result()


def test_timestamp_columns_are_cut_in_utc(client: bigquery.Client) -> None:
    schema = [bigquery.SchemaField("day", "TIMESTAMP"), bigquery.SchemaField("n", "INT64")]
    table = make_table(client, "stamps", schema)
    last = "TIMESTAMP '2025-12-08 23:59:59.999999+00'"
    config = bigquery.QueryJobConfig(destination=f"{table}$20251208", write_disposition="WRITE_TRUNCATE")
    client.query(f"SELECT {last} AS day, 1 AS n", job_config=config).result()
    with pytest.raises(BadRequest, match="different partitions"):
        client.query(
            f"SELECT TIMESTAMP_ADD({last}, INTERVAL 1 MICROSECOND) AS day, 1 AS n", job_config=config
        ).result()
    (count,) = client.query(f"SELECT COUNT(*) AS c FROM `{table}`").result()
    assert count["c"] == 1


def test_months_are_partitions_too(client: bigquery.Client) -> None:
    table = make_table(client, "months", unit="MONTH")
    load(client, rows(dt.date(2025, 12, 31), 1), f"{table}$202512").result()
    load(client, rows(dt.date(2026, 1, 1), 2), f"{table}$202601").result()
    load(client, rows(DAY, 3), f"{table}$202512").result()
    assert content(client, table) == [("2025-12-08", 3), ("2026-01-01", 2)]


def test_bytes_arrive_as_they_are(client: bigquery.Client) -> None:
    table = make_table(client, "binary")
    load(client, rows(DAY, 1), f"{table}$20251208", schema=client.get_table(table).schema).result()
    (row,) = client.query(f"SELECT raw, tags FROM `{table}`").result()
    assert (row["raw"], row["tags"]) == (b"\x00\xff", [b"\xfe", b"a"])


def test_get_job_tells_labels_configuration_and_statistics(client: bigquery.Client) -> None:
    table = make_table(client, "told")
    load(client, rows(DAY, 1, 2, 3), f"{table}$20251208", job_id="told-1", labels={"org": "acme"}).result()
    job = client.get_job("told-1")
    assert isinstance(job, bigquery.LoadJob)
    assert (job.state, job.labels, job.output_rows, job.source_format) == (
        "DONE",
        {"org": "acme"},
        3,
        "PARQUET",
    )
    assert (job.write_disposition, job.destination.table_id) == ("WRITE_TRUNCATE", "told$20251208")
    assert job.input_files == 1
    assert job.input_file_bytes
    assert job.created is not None
    assert job.started is not None
    assert job.ended is not None

"""Which load jobs committed their data: the job id, written into the very DuckLake snapshot it made.

Data and job records live in two databases (`{project}.ducklake` and `emulator.duckdb`) and are committed one
after the other, data first. A server killed between the two leaves rows that are there and a record that
says RUNNING. The mark is committed with the rows, so at the next start the record can be told the truth.

Only loads are marked. A killed query job (DML, script) ends as "stopped" although statements or whole
transactions of it may have been committed, as a cancelled script's may be on BigQuery itself: whoever
repeats it has to write the same rows again (delete and insert), not more rows.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from local_bigquery.engine import database, results
from local_bigquery.jobs import runner

AUTHOR = "cluster.embedded"

#: The load job that runs in this thread, as (project, job id).
_loading: ContextVar[tuple[str, str] | None] = ContextVar("loading", default=None)
_execute, _materialise = runner._execute, results.materialise


def install() -> None:
    """Have every load job commit its id with its rows."""
    runner._execute, results.materialise = execute, materialise


def execute(job: Any, job_type: str, *rest: Any) -> None:
    """Run a job, remembering which it is while it is a load."""
    reference = job.jobReference
    token = _loading.set((reference.projectId, reference.jobId) if job_type == "load" else None)
    try:
        _execute(job, job_type, *rest)
    finally:
        _loading.reset(token)


def materialise(
    cur: Any,
    query: str,
    name: str,
    params: dict[str, Any] | None = None,
    append: bool = False,
    writer: Any = None,
) -> None:
    """Write a query's rows into a table; a load's rows and its mark in one transaction."""
    if _loading.get() is None or writer is not None:
        # With a writer of its own the caller also has a transaction of its own, and signs it.
        _materialise(cur, query, name, params, append, writer)
        return
    cur.execute("BEGIN TRANSACTION")
    try:
        sign(cur, name, query, params)
        _materialise(cur, query, name, params, append, None)
        cur.execute("COMMIT")
    except BaseException:
        cur.execute("ROLLBACK")
        raise


def sign(cur: Any, name: str, query: str, params: dict[str, Any] | None) -> None:
    """Mark the open transaction of `cur`, which writes the query's rows into `name`, with the load's id."""
    if (job := _loading.get()) is None:
        return
    [(rows,)] = cur.sql(f"SELECT count(*) FROM ({query})", params=params).fetchall()
    catalog = name.partition('"."')[0].removeprefix('"')
    statement = f"CALL {database.quote(catalog)}.set_commit_message(?, ?, extra_info => ?)"
    cur.execute(statement, [AUTHOR, ":".join(job), str(rows)])


def committed_rows(project: str, job_id: str, catalogs: list[str]) -> int | None:
    """How many rows the load job committed; None when it committed nothing.

    A load that changed nothing (an empty file into an empty partition) makes no snapshot and so has no mark:
    it counts as not committed, and running it again is harmless.
    """
    for catalog in catalogs:
        found = database.fetch(
            f"SELECT commit_extra_info FROM {database.quote(catalog)}.snapshots() "
            "WHERE author = ? AND commit_message = ?",
            [AUTHOR, f"{project}:{job_id}"],
        )
        if found:
            return int(found[0][0])
    return None

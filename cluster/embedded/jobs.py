"""Job records: one execution for one id, and no job that runs for ever after its server died."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from local_bigquery.engine import database
from local_bigquery.errors import BigQueryError
from local_bigquery.jobs import runner
from local_bigquery.models import Job, JobStatistics

from cluster.embedded import marks

LOST = "Job execution was stopped: the embedded BigQuery was killed while the job was running"

_submit = runner.submit
# Striped, so that submits of different jobs do not wait for each other and nothing has to be forgotten.
_claims = tuple(threading.Lock() for _ in range(64))


def install() -> None:
    """Make submitting a job id one step instead of a look and a write."""
    runner.submit = submit


def submit(project: str, job_id: str, configuration: Any, upload: str | None = None) -> Any:
    """Start a job, or answer 409 for an id that has been used.

    local-bigquery looks the id up and then writes it with INSERT OR REPLACE: two clients at once could
    both pass the look, and then either execute twice or fail with a constraint violation (400).
    """
    try:
        with _claims[hash((project, job_id)) % len(_claims)]:
            return _submit(project, job_id, configuration, upload)
    except BaseException:
        # Only a job that started removes its upload itself.
        if upload:
            Path(upload).unlink(missing_ok=True)
        raise


def end_lost() -> int:
    """End every job that a killed server left unfinished; say how many there were.

    To be called before the first request: whatever is unfinished then has nobody left to finish it.
    """
    rows = database.fetch("SELECT resource FROM emulator.jobs WHERE state <> 'DONE'")
    for (resource,) in rows:
        runner.store.save(_ended(Job.model_validate_json(resource)))
    return len(rows)


def _ended(job: Any) -> Any:
    """The job as it has to be told: a load that committed its rows is done, everything else was stopped."""
    if job.configuration.load is not None:
        reference = job.jobReference
        rows = marks.committed_rows(reference.projectId, reference.jobId, database.projects())
        if rows is not None:
            statistics = JobStatistics.model_validate({"load": {"outputRows": str(rows), "badRecords": "0"}})
            return runner._done(job, statistics)
    return runner._done(job, JobStatistics(), BigQueryError("stopped", LOST))


def stop_running() -> None:
    """Interrupt every running job, so that it ends with a record that says stopped."""
    for running in list(runner._running.values()):
        running.cancelled = True
        if running.cursor is not None:
            running.cursor.interrupt()
    runner._executor.shutdown(wait=False, cancel_futures=True)

"""What a stopped publisher left open: its job is ended, and what won is put on record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime

from engine.ledger import Ledger, Target
from engine.moves import Record, next_move
from engine.warehouse import Warehouse

CANCEL_TIMEOUT_S = 600.0


def settle(
    table: str,
    days: Sequence[date],
    *,
    warehouse: Warehouse,
    ledger: Ledger,
    now: Callable[[], datetime],
    cancel: bool,
) -> bool:
    """Bring the table's open intents to an end; returns whether there was one with a job.

    `days` are the stopped unit's, at least one.
    With `cancel` a running job is asked to stop first. Only DONE decides: a job that won all the same is
    recorded as committed, one that was stopped as failed. An intent without a job stays; the next publisher
    finds and supersedes it.
    """
    target = Target(warehouse.org, warehouse.dataset, table)
    head = ledger.head(target, days)
    job = warehouse.job(target.job_id(head.version + 1, head.attempt)) if head.open else None
    if job is None:
        return False
    if not job.done:
        if cancel:
            warehouse.cancel(job.job_id)
        job = warehouse.wait(job.job_id, timeout_s=CANCEL_TIMEOUT_S)
    move = next_move(head, job, ())
    if isinstance(move, Record):
        if move.error is None:
            ledger.commit(target, move.intent, move.lost, now=now())
        else:
            ledger.fail(target, move.intent, move.lost, error=move.error.message, now=now())
    return True

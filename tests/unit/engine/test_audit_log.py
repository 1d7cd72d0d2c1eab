"""The audit log: batches, what waits while the warehouse is away, and what is said of what was lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest

from engine.audit import Audit
from engine.audit_log import BATCH, LONGEST_TEXT, AuditLog, Entry, _place
from engine.errors import InternalError, TransientError, UsageError

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
NEVER_S = 3600.0
SOON_S = 20.0


class Warehouse:
    """Takes rows, or raises what it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.refuse: Callable[[list[dict[str, Any]]], Exception | None] = lambda rows: None
        self.written = threading.Event()

    def append(self, rows: list[dict[str, Any]]) -> None:
        if error := self.refuse(rows):
            raise error
        self.batches.append(list(rows))
        self.written.set()

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for batch in self.batches for row in batch]


def a_log(warehouse: Warehouse, *, flush_s: float = NEVER_S, most: int = 20_000) -> AuditLog:
    numbers = count(1)
    return AuditLog(
        warehouse.append, now=lambda: NOW, flush_s=flush_s, new_id=lambda: f"id{next(numbers)}", most=most
    )


def said(number: int = 1, **changes: Any) -> Audit:
    return Audit("acme", "run.start", "key:1f", "run", f"run-{number}", status="REFUSED", **changes)


def away(rows: list[dict[str, Any]]) -> Exception:
    return TransientError("away")


def test_close_writes_what_waits_in_order() -> None:
    warehouse = Warehouse()
    with a_log(warehouse) as log:
        for number in range(3):
            log.note(said(number, detail="no scope", ip_address="127.0.0.1"))
        assert warehouse.batches == []
    assert [row["resource_id"] for row in warehouse.rows] == ["run-0", "run-1", "run-2"]
    assert warehouse.rows[0] == {
        "audit_id": "id1",
        "org_slug": "acme",
        "action": "run.start",
        "actor": "key:1f",
        "user_id": None,
        "resource_type": "run",
        "resource_id": "run-0",
        "status": "REFUSED",
        "detail": "no scope",
        "ip_address": "127.0.0.1",
        "user_agent": None,
        "request_id": None,
        "created_at": NOW,
    }


def test_it_is_written_by_itself_after_a_moment() -> None:
    warehouse = Warehouse()
    log = a_log(warehouse, flush_s=0.01)
    log.note(said())
    assert warehouse.written.wait(SOON_S)
    log.close()
    assert len(warehouse.rows) == 1


def test_a_full_batch_does_not_wait() -> None:
    warehouse = Warehouse()
    log = a_log(warehouse)
    for number in range(BATCH):
        log.note(said(number))
    assert warehouse.written.wait(SOON_S)
    log.close()
    assert max(len(batch) for batch in warehouse.batches) <= BATCH
    assert len(warehouse.rows) == BATCH


def test_many_threads_lose_nothing() -> None:
    warehouse = Warehouse()
    log = a_log(warehouse, flush_s=0.001)

    def note() -> None:
        for number in range(300):
            log.note(said(number))

    threads = [threading.Thread(target=note) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert len({row["audit_id"] for row in warehouse.rows}) == len(warehouse.rows) == 1200


def test_entries_wait_while_the_warehouse_is_away() -> None:
    warehouse = Warehouse()
    log = a_log(warehouse)
    warehouse.refuse = away
    log.note(said(1))
    with pytest.raises(TransientError):
        log.flush()
    log.note(said(2))
    warehouse.refuse = lambda rows: None
    log.close()
    assert [row["resource_id"] for row in warehouse.rows] == ["run-1", "run-2"]


def test_the_background_thread_outlives_an_absence_and_a_fault() -> None:
    warehouse = Warehouse()
    failures = iter([TransientError("away"), RuntimeError("a fault of ours")])
    warehouse.refuse = lambda rows: next(failures, None)
    log = a_log(warehouse, flush_s=0.001)
    log.note(said())
    assert warehouse.written.wait(SOON_S)
    log.close()
    assert len(warehouse.rows) == 1


def test_the_oldest_go_and_one_entry_counts_them() -> None:
    warehouse = Warehouse()
    log = a_log(warehouse, most=5)
    for number in range(8):
        log.note(said(number))
    log.close()
    lost, *kept = warehouse.rows
    assert [row["resource_id"] for row in kept] == [f"run-{number}" for number in range(3, 8)]
    assert (lost["action"], lost["org_slug"], lost["status"]) == ("audit.dropped", "-", "FAILED")
    assert lost["detail"] == "3 entries could not be written and are lost."


def test_a_row_that_does_not_fit_stands_in_nobodys_way() -> None:
    warehouse = Warehouse()
    warehouse.refuse = lambda rows: (
        InternalError("does not fit") if any(row["resource_id"] == "run-2" for row in rows) else None
    )
    log = a_log(warehouse)
    for number in range(5):
        log.note(said(number))
    log.close()
    assert [row["resource_id"] for row in warehouse.rows] == ["run-0", "run-1", "run-3", "run-4", None]
    assert warehouse.rows[-1]["detail"] == "1 entries could not be written and are lost."


def test_text_from_outside_is_made_to_fit() -> None:
    warehouse = Warehouse()
    with a_log(warehouse) as log:
        log.note(said(user_agent="curl\ud800\0" + "x" * 5000))
    agent = warehouse.rows[0]["user_agent"]
    assert agent.startswith("curl??x")
    assert len(agent) == LONGEST_TEXT


def test_a_cursor_comes_back_as_it_went() -> None:
    entry = Entry("a/1", "acme", "org.add", "root", None, "org", None, "OK", None, None, None, None, NOW)
    assert _place(entry.cursor) == (NOW, "a/1")


@pytest.mark.parametrize("cursor", ["", "x", "é", "bnVsbA", "WyIyMDI2LTExLTIzIiwgImEiXQ", "W10"])
def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    with pytest.raises(UsageError, match="cursor"):
        _place(cursor)

"""The audit trail on the embedded BigQuery: changes and requests in one view, by organisation, in pages."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import count

import pytest

from engine.audit import Audit
from engine.audit_log import REQUESTS, AuditLog, Entry, read
from engine.central import Central
from engine.history import RunHistory
from engine.runs import Run
from engine.types import RunRequest

START = datetime(2026, 11, 23, 12, tzinfo=UTC)


def by(org: str, action: str, number: int = 1) -> Audit:
    return Audit(
        org,
        action,
        "key:1f0c",
        "run",
        f"run-{number}",
        status="REFUSED",
        detail='says "no", größer',
        user_id="ann",
        ip_address="127.0.0.1",
        user_agent="curl/8",
        request_id="req-1",
    )


@pytest.fixture
def log(central: Central, org: str) -> AuditLog:
    ticks, ids = count(), count(1)
    return AuditLog(
        lambda rows: central.append(REQUESTS, rows),
        now=lambda: START + timedelta(seconds=next(ticks)),
        flush_s=3600,
        new_id=lambda: f"{org}-{next(ids)}",
    )


def test_a_request_is_read_as_it_was_noted(central: Central, org: str, log: AuditLog) -> None:
    with log:
        log.note(by(org, "run.read"))
        log.note(by(f"{org}_too", "run.read"))
    (entry,) = read(central, org)
    assert entry == Entry(
        audit_id=f"{org}-1",
        org_slug=org,
        action="run.read",
        actor="key:1f0c",
        user_id="ann",
        resource_type="run",
        resource_id="run-1",
        status="REFUSED",
        detail='says "no", größer',
        ip_address="127.0.0.1",
        user_agent="curl/8",
        request_id="req-1",
        created_at=START,
    )


def test_what_arrived_twice_is_shown_once(central: Central, org: str) -> None:
    rows: list[dict[str, object]] = []
    ids = count(1)
    with AuditLog(rows.extend, now=lambda: START, flush_s=3600, new_id=lambda: f"{org}-{next(ids)}") as log:
        log.note(by(org, "run.read"))
    for _ in range(2):
        central.append(REQUESTS, rows)
    assert len(read(central, org)) == 1


def test_pages_and_bounds_leave_nothing_out(central: Central, org: str, log: AuditLog) -> None:
    with log:
        for number in range(5):
            log.note(by(org, "run.read", number))
    pages, after = [], None
    while page := read(central, org, limit=2, after=after):
        pages.append([entry.resource_id for entry in page])
        after = page[-1].cursor
    assert pages == [["run-4", "run-3"], ["run-2", "run-1"], ["run-0"]]
    bounded = read(central, org, since=START + timedelta(seconds=1), until=START + timedelta(seconds=3))
    assert [entry.resource_id for entry in bounded] == ["run-2", "run-1"]


def test_every_table_of_changes_is_in_the_trail(central: Central, org: str) -> None:
    """One row each, as short as its schema allows; the id comes from the row where the entry has none."""
    audit = Audit(org, "x.change", "root", "thing").column()
    common = {"org_slug": org, "version": 2, "created_at": START, "written_at": START, "audit": audit}
    sealed = {"wrapped_key": b"", "key_name": "k"}
    profile = {"company_name": "A", "admin_email": "a@b.example", "org_dataset_id": "d", "status": "ACTIVE"}
    central.append(
        "org_profiles", [{**common, **profile}, {**common, **profile, "version": 3, "audit": None}]
    )
    key = {"org_api_key_id": "k1", "name": "n", "org_api_key_hash": "h", "encrypted_hash_key": b""}
    central.append("org_api_keys", [{**common, **sealed, **key, "scopes": [], "is_active": True}])
    plan = {"plan_name": "SCALE", "status": "ACTIVE", "is_custom": False}
    central.append("org_subscriptions", [{**common, **plan}])
    held = {"credential_id": "c1", "provider": "openai", "credential_name": "n", "encrypted_credential": b""}
    central.append("org_integration_credentials", [{**common, **sealed, **held, "is_active": True}])
    request = RunRequest(org, "p", date(2026, 11, 1), date(2026, 11, 1))
    run = Run("run-7", request, "key", "pipe", "CANCELLING", 1, 2, "api", "key:1f", START)
    RunHistory(central).save(run, now=START, audit=Audit(org, "run.cancel", "key:1f", "run"))

    found = {(entry.audit_id, entry.action, entry.resource_id) for entry in read(central, org)}

    assert found == {
        (f"org_profiles/{org}/2", "x.change", org),
        ("org_api_keys/k1/2", "x.change", "k1"),
        (f"org_subscriptions/{org}/2", "x.change", org),
        ("org_integration_credentials/c1/2", "x.change", "c1"),
        ("org_meta_pipeline_runs/run-7/2", "run.cancel", "run-7"),
    }

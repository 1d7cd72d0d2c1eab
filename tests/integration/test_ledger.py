"""The ledger's two statements on the embedded BigQuery."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from engine.ledger import Entry, Intent, Ledger, Target
from engine.types import Partition

DAYS = [date(2025, 12, number) for number in range(1, 5)]
NOW = datetime(2025, 12, 20, tzinfo=UTC)


@pytest.fixture
def target(org: str) -> Target:
    return Target(org, f"{org}_local", "t_daily")


def intent(target: Target, version: int, *days: date, attempt: int = 1, id: str = "one") -> Intent:  # noqa: A002
    return Intent(
        id=id,
        version=version,
        attempt=attempt,
        job_id=target.job_id(version, attempt),
        run_id="run-1",
        pipeline="p",
        schema_version=1,
        entries=tuple(Entry(day, f"v1:{version}", 3, False, "file") for day in days),
    )


def test_the_job_id_is_a_name_for_table_and_version_alone(target: Target) -> None:
    assert target.job_id(7, 2) == target.job_id(7, 2)
    assert target.job_id(7, 2).endswith("-v7-a2")
    others = {target.job_id(7, 1), target.job_id(8, 2), replace(target, table="u").job_id(7, 2)}
    assert target.job_id(7, 2) not in others


def test_a_table_nobody_has_written_stands_at_zero(ledger: Ledger, target: Target) -> None:
    head = ledger.head(target, DAYS)

    assert (head.version, head.attempt, head.open) == (0, 1, ())
    assert (head.published, head.doubtful) == ({}, frozenset())


def test_the_head_through_a_tables_life(ledger: Ledger, target: Target) -> None:
    first = intent(target, 1, *DAYS[:2])
    ledger.intend(target, first, now=NOW)
    assert ledger.head(target, DAYS).open == (first,)

    ledger.commit(target, first, [], now=NOW)
    ledger.commit(target, first, [], now=NOW)
    head = ledger.head(target, DAYS)
    assert (head.version, head.attempt, head.open) == (1, 1, ())
    assert set(head.published) == set(DAYS[:2])

    broken = intent(target, 2, DAYS[1], id="two")
    rival = intent(target, 2, DAYS[2], id="rival")
    for one in (broken, rival):
        ledger.intend(target, one, now=NOW)
    assert [one.id for one in ledger.head(target, DAYS).open] == ["rival", "two"]
    ledger.fail(target, broken, [rival], error="no", now=NOW)
    head = ledger.head(target, DAYS)
    assert (head.version, head.attempt, head.open) == (1, 2, ())
    assert head.doubtful == {DAYS[1]}

    third = intent(target, 2, DAYS[1], attempt=2, id="three")
    ledger.commit(target, third, [], now=NOW)
    head = ledger.head(target, DAYS)
    assert (head.version, head.attempt, head.doubtful) == (2, 1, frozenset())
    assert {day.day: found.table_version for day, found in head.published.items()} == {1: 1, 2: 2}


def test_the_version_counts_all_days_of_the_table_and_no_other_table(ledger: Ledger, target: Target) -> None:
    ledger.commit(target, intent(target, 5, DAYS[3]), [], now=NOW)
    other = replace(target, table="u_daily")
    ledger.commit(other, intent(other, 9, DAYS[0]), [], now=NOW)

    head = ledger.head(target, DAYS[:1])

    assert head.version == 5
    assert head.published == {}


def test_the_view_shows_the_latest_commit_and_what_failed_since(ledger: Ledger, target: Target) -> None:
    ledger.commit(target, intent(target, 1, *DAYS), [], now=NOW)
    ledger.fail(target, intent(target, 2, DAYS[0], DAYS[1]), [], error="no", now=NOW)
    ledger.commit(target, intent(target, 2, DAYS[0], attempt=2), [], now=NOW)
    other = replace(target, table="u_daily")
    ledger.fail(other, intent(other, 1, DAYS[0]), [], error="no", now=NOW)

    view = ledger.view(target.org, target.dataset, ["t_daily", "u_daily"], DAYS[0], DAYS[2])

    versions = {which: found.table_version for which, found in view.published.items()}
    assert versions == {Partition(target.org, "t_daily", day): 1 + (day == DAYS[0]) for day in DAYS[:3]}
    assert view.failed == {
        Partition(target.org, "t_daily", DAYS[1]),
        Partition(target.org, "u_daily", DAYS[0]),
    }
    assert not ledger.view(target.org, target.dataset, [], DAYS[0], DAYS[2]).published

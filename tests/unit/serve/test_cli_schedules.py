"""`manta schedule`: what is due, and what cron starts."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from engine.catalog import Catalog
from engine.errors import LimitError
from engine.schedules import Schedule
from engine.types import RunRequest
from serve.cli.main import run
from tests.unit.serve.doubles import NOW, Table, a_table
from tests.unit.serve.test_cli import jsons

PIPELINE = "openai/cost/usage_cost"


def scheduled(
    table: Table, schedule: Schedule, *, holders: tuple[str, ...] = ("acme_corp", "globex")
) -> None:
    """Give the shipped OpenAI pipeline this schedule, and no other pipeline one."""
    catalog: Catalog = table.desk.work.catalog
    pipelines = {
        path: one.model_copy(update={"schedule": schedule if path == PIPELINE else None})
        for path, one in catalog.pipelines.items()
    }
    table.desk.work.catalog = replace(catalog, pipelines=pipelines)
    one = SimpleNamespace(provider="openai", is_active=True)
    table.desk.work.tenants.credentials = lambda slug: [one] if slug in holders else []


def before(hours: int) -> Schedule:
    tick = NOW - timedelta(hours=hours)
    return Schedule(cron=f"{tick.minute} {tick.hour} * * *")


def tick_of(hours: int) -> datetime:
    return (NOW - timedelta(hours=hours)).replace(second=0, microsecond=0)


def test_due_is_shown_and_nothing_started() -> None:
    table = a_table()
    scheduled(table, before(2), holders=("globex",))
    assert run(["schedule", "due", "--json"], table.desk) == 0
    (due,) = jsons(table.out)
    assert (due["org_slug"], due["pipeline"]) == ("globex", PIPELINE)
    assert date.fromisoformat(due["date"]) == tick_of(2).date() - timedelta(days=1)
    assert datetime.fromisoformat(due["tick"]) == tick_of(2)
    assert table.runs.submitted == []


def test_each_tick_is_submitted_under_a_key_of_its_own() -> None:
    table = a_table()
    scheduled(table, before(2))
    assert run(["schedule", "due", "--submit"], table.desk) == 0
    assert run(["schedule", "due", "--submit"], table.desk) == 0
    day = tick_of(2).date() - timedelta(days=1)
    assert table.runs.submitted[:2] == [
        RunRequest(org, PIPELINE, day, day) for org in ("acme_corp", "globex")
    ]
    # Twice the same key: to the API that is one run.
    assert set(table.runs.idempotency_keys) == {f"schedule {PIPELINE} {tick_of(2).isoformat()}"}


@pytest.mark.parametrize(("hours", "found"), [("3", 0), ("5", 2)])
def test_an_old_tick_is_left_alone(hours: str, found: int) -> None:
    table = a_table()
    scheduled(table, before(4))
    assert run(["schedule", "due", "--hours", hours, "--json"], table.desk) == 0
    assert len(jsons(table.out)) == found


def test_one_refusal_does_not_keep_the_others() -> None:
    table = a_table()
    scheduled(table, before(1))
    submit = table.runs.submit

    def refusing(request: RunRequest, **given: Any) -> Any:
        if request.org == "acme_corp":
            raise LimitError(
                "6 runs a day are used.", kind="daily_quota", retry_after=timedelta(hours=1), fix="Wait."
            )
        return submit(request, **given)

    table.runs.submit = refusing
    assert run(["schedule", "due", "--submit"], table.desk) == 1
    assert [request.org for request in table.runs.submitted] == ["globex"]
    assert "6 runs a day are used." in table.err


def test_list_names_the_ticks() -> None:
    table = a_table()
    scheduled(table, before(2))
    assert run(["schedule", "list", "--json"], table.desk) == 0
    (row,) = jsons(table.out)
    assert datetime.fromisoformat(row["last_tick"]) == tick_of(2)
    assert datetime.fromisoformat(row["next_tick"]) == tick_of(2) + timedelta(days=1)

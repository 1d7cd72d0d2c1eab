"""Subscriptions and views on the embedded BigQuery, and the commands over them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from engine.audit import Audit
from engine.catalog import Catalog
from engine.central import Central
from engine.clients import Clients
from engine.errors import InternalError, UsageError
from engine.history import RunHistory
from engine.plans import LARGEST_LIMIT, SUBSCRIPTIONS, Limits, Plans, Subscriptions
from engine.quota import Usage
from engine.schemas import Schema
from engine.types import RunRequest
from engine.usage import recorded_usage
from serve.cli.main import run
from tests.integration.conftest import BYTES_BILLED, ROOT
from tests.unit.serve.doubles import NOW as DESK_NOW
from tests.unit.serve.doubles import Table, a_run, a_table

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
VIEW = "org_usage_quotas"
STARTER, SCALE = Limits(6, 180, 1), Limits(100, 3000, 5)


@pytest.fixture(scope="session")
def plans() -> Plans:
    return Catalog.load(ROOT).plans


@pytest.fixture
def subscriptions(central: Central, plans: Plans) -> Subscriptions:
    ticks = iter(range(1000))
    return Subscriptions(central, plans, now=lambda: NOW + timedelta(minutes=next(ticks)))


def rows(central: Central, org: str) -> list[dict[str, Any]]:
    sql = f"SELECT * FROM {SUBSCRIPTIONS} WHERE org_slug = @org_slug ORDER BY version"
    found: list[dict[str, Any]] = central.query(sql, org=org, purpose="test").to_pylist()
    return found


def test_a_plan_is_set_changed_and_kept(subscriptions: Subscriptions, central: Central, org: str) -> None:
    nothing = subscriptions.get(org)
    assert (nothing.plan, nothing.limits, nothing.version, nothing.is_custom) == ("SCALE", SCALE, 0, False)

    audit = Audit(org, "plan.set", "cli:tess", "subscription", org)
    first = subscriptions.set_plan(org, "STARTER", audit=audit)
    assert (first.plan, first.limits, first.version) == ("STARTER", STARTER, 1)
    assert subscriptions.get(org) == first
    assert subscriptions.set_plan(org, "STARTER") == first

    second = subscriptions.set_plan(org, "ENTERPRISE")
    assert second.limits == Limits(None, None, 50)
    assert subscriptions.get(org) == second
    one, two = rows(central, org)
    assert json.loads(one["audit"]) == json.loads(audit.column())
    assert two["audit"] is None
    assert (one["created_at"], two["created_at"]) == (NOW, NOW)
    assert two["written_at"] > one["written_at"]
    with pytest.raises(UsageError, match="no plan 'FREE'"):
        subscriptions.set_plan(org, "FREE")
    assert len(rows(central, org)) == 2


def test_the_default_plan_can_be_put_on_record(subscriptions: Subscriptions, org: str) -> None:
    assert subscriptions.set_plan(org, "SCALE").version == 1
    assert subscriptions.get(org).limits == SCALE


@pytest.mark.slow
def test_what_is_on_record_outlives_the_plans_file(central: Central, plans: Plans, org: str) -> None:
    Subscriptions(central, plans).set_plan(org, "STARTER")
    other = Subscriptions(central, Plans(default="TINY", plans={"TINY": Limits(1, 1, 1)}))
    assert other.get(org).limits == STARTER
    assert other.get(f"{org}x").limits == Limits(1, 1, 1)


def test_a_quota_changes_what_it_names(subscriptions: Subscriptions, org: str) -> None:
    subscriptions.set_plan(org, "STARTER")
    assert subscriptions.set_quota(org, daily=50).limits == Limits(50, 180, 1)
    changed = subscriptions.set_quota(org, monthly=None, concurrent=LARGEST_LIMIT)
    assert (changed.plan, changed.limits, changed.is_custom, changed.version) == (
        "STARTER",
        Limits(50, None, LARGEST_LIMIT),
        True,
        3,
    )
    assert subscriptions.get(org) == changed
    assert subscriptions.set_quota(org) == changed
    assert subscriptions.set_quota(org, daily=50) == changed
    back = subscriptions.set_plan(org, "STARTER")
    assert (back.limits, back.is_custom, back.version) == (STARTER, False, 4)


@pytest.mark.parametrize(
    ("name", "value"), [("daily", 0), ("monthly", -1), ("concurrent", LARGEST_LIMIT + 1)]
)
def test_a_quota_out_of_range_is_refused(
    subscriptions: Subscriptions, central: Central, org: str, name: str, value: int
) -> None:
    given: dict[str, Any] = {name: value}
    with pytest.raises(UsageError, match=name) as caught:
        subscriptions.set_quota(org, **given)
    assert caught.value.field == name
    assert rows(central, org) == []


def test_a_tie_has_one_winner_whatever_the_order(central: Central, plans: Plans, org: str) -> None:
    twins = [
        {
            "org_slug": slug,
            "version": 1,
            "plan_name": plan,
            "status": "ACTIVE",
            "daily_limit": limit,
            "is_custom": False,
            "created_at": NOW,
            "written_at": NOW,
        }
        for slug, order in ((f"{org}a", 1), (f"{org}b", -1))
        for plan, limit in [("B", 1), ("A", 2), ("A", 3)][::order]
    ]
    for row in twins:
        central.append(SUBSCRIPTIONS, [row])
    won = [Subscriptions(central, plans).get(f"{org}{end}") for end in "ab"]
    assert [(one.plan, one.limits.daily) for one in won] == [("A", 2), ("A", 2)]


def save(history: RunHistory, org: str, run_id: str, at: datetime, *statuses: str) -> None:
    for version, status in enumerate(statuses, start=1):
        made = a_run(RunRequest(org, "p", at.date(), at.date()), status=status, run_id=run_id)
        history.save(replace(made, start_time=at, version=version), now=at + timedelta(minutes=version))


def usage(central: Central, org: str) -> list[tuple[object, ...]]:
    sql = f"SELECT * FROM {VIEW} WHERE org_slug = @org_slug ORDER BY usage_date"
    found = central.query(sql, org=org, purpose="test").to_pylist()
    return [tuple(row.values())[1:] for row in found]


def test_the_view_counts_runs_by_day_and_month(
    central: Central, subscriptions: Subscriptions, org: str
) -> None:
    history = RunHistory(central)
    midnight = datetime(2026, 11, 24, tzinfo=UTC)
    save(history, org, "october", datetime(2026, 10, 31, 23, 59, tzinfo=UTC), "PENDING", "RUNNING", "SUCCESS")
    save(history, org, "stuck", datetime(2026, 11, 1, tzinfo=UTC), "PENDING", "CANCELLING")
    for n, end in enumerate(("SUCCESS", "FAILED", "PARTIAL", "CANCELLED", "RUNNING")):
        save(history, org, f"run-{n}", midnight + timedelta(hours=n), "PENDING", end)
    save(history, f"{org}x", "other", midnight, "PENDING")

    no_limit = (None, None, None)
    assert usage(central, org) == [
        (date(2026, 10, 31), 1, 1, 0, 1, 0, *no_limit),
        (date(2026, 11, 1), 1, 0, 0, 1, 1, *no_limit),
        (date(2026, 11, 24), 5, 1, 2, 6, 2, *no_limit),
    ]
    subscriptions.set_plan(org, "SCALE")
    subscriptions.set_plan(org, "STARTER")
    assert {row[-3:] for row in usage(central, org)} == {(6, 180, 1)}
    assert usage(central, f"{org}x")[0][-3:] == no_limit

    for now, expected in (
        (midnight, Usage(5, 6, 2)),
        (midnight + timedelta(days=1), Usage(0, 6, 2)),
        (midnight + timedelta(days=8), Usage(0, 0, 2)),
    ):
        assert recorded_usage(central, org, now=now) == expected
    assert recorded_usage(central, f"{org}y", now=NOW) == Usage(0, 0, 0)


def test_every_view_has_the_columns_that_its_file_says(central: Central, schemas: dict[str, Schema]) -> None:
    views = [schema for schema in schemas.values() if schema.view and schema.scope == "central"]
    assert VIEW in {schema.table for schema in views}
    for schema in views:
        sql = f"SELECT * FROM {schema.table} WHERE org_slug = @org_slug"
        found = central.query(sql, org="nobody", purpose="test").schema
        assert [(f.name, f.type) for f in found] == [(f.name, f.type) for f in schema.arrow], schema.table


def test_a_view_takes_no_rows_and_needs_the_predicate(central: Central) -> None:
    with pytest.raises(InternalError, match="is a view"):
        central.append(VIEW, [{"org_slug": "acme"}])
    with pytest.raises(InternalError, match="lacks the predicate"):
        central.query(f"SELECT * FROM {VIEW}", org="acme", purpose="test")


def test_a_view_is_made_again_only_when_its_file_changed(
    clients: Clients, schemas: dict[str, Schema], org: str
) -> None:
    wanted = {name: schemas[name] for name in (VIEW, "org_meta_pipeline_runs", SUBSCRIPTIONS)}

    def made(view: Schema) -> Any:
        central = Central(
            clients,
            schemas={**wanted, VIEW: view},
            dataset=f"{org}_orgs",
            maximum_bytes_billed=BYTES_BILLED,
        )
        central.ensure()
        assert usage(central, org) == []
        return clients.bigquery.get_table(f"local.{org}_orgs.{VIEW}")

    first = made(wanted[VIEW])
    assert (first.table_type, first.description) == ("VIEW", wanted[VIEW].description)
    assert [field.description for field in first.schema] == [c.description for c in wanted[VIEW].columns]
    assert made(wanted[VIEW]).modified == first.modified
    changed = made(wanted[VIEW].model_copy(update={"description": "Other."}))
    assert changed.description == "Other."
    assert changed.modified > first.modified


@pytest.fixture
def table(central: Central, plans: Plans) -> Table:
    made = a_table(width=200)
    made.work.central = central
    made.work.subscriptions = Subscriptions(central, plans, now=lambda: DESK_NOW)
    made.work.tenants = SimpleNamespace(get=lambda slug: slug)
    return made


def said(table: Table, *arguments: str) -> list[Mapping[str, Any]]:
    before = len(table.out)
    assert run([*arguments, "--json"], table.desk) == 0, table.err
    return [json.loads(text) for text in table.out[before:].splitlines()]


def test_plans_are_listed(table: Table) -> None:
    assert run(["plan", "list"], table.desk) == 0
    words = [line.split() for line in table.out.splitlines()]
    assert ["ENTERPRISE", "unlimited", "unlimited", "50"] in words
    assert "has SCALE" in table.out
    found = {row["plan"]: row for row in said(table, "plan", "list")}
    assert found["STARTER"]["limits"] == {"daily": 6, "monthly": 180, "concurrent": 1}
    assert [name for name, row in found.items() if row["is_default"]] == ["SCALE"]


@pytest.mark.slow
def test_a_plan_and_a_quota_by_command(table: Table, central: Central, org: str) -> None:
    assert run(["plan", "set", org, "starter"], table.desk) == 0, table.err
    assert f"{org} is on plan STARTER: 6 runs a day, 180 a month, 1 at once." in table.out
    assert "within 15 seconds" in table.out
    (changed,) = said(table, "quota", "set", org, "--daily", "50", "--monthly", "unlimited")
    limits = {"daily": 50, "monthly": None, "concurrent": 1}
    assert changed == {"org_slug": org, "plan": "STARTER", "is_custom": True, "limits": limits}
    audits = [json.loads(row["audit"]) for row in rows(central, org)]
    assert [(one["action"], one["actor"], one["detail"]) for one in audits] == [
        ("plan.set", "cli:tess", "plan=STARTER"),
        ("quota.set", "cli:tess", "daily=50 monthly=unlimited"),
    ]

    save(RunHistory(central), org, "one", DESK_NOW, "PENDING")
    assert said(table, "quota", "show", org) == [
        {**changed, "used": {"today": 1, "month": 1, "concurrent": 1}}
    ]
    assert run(["quota", "show", org], table.desk) == 0
    words = [line.split() for line in table.out.splitlines()]
    assert ["today", "1", "50", "49"] in words
    assert ["this", "month", "1", "unlimited", "unlimited"] in words
    assert ["at", "once", "1", "1", "0"] in words


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["quota", "set"], "No limit is given"),
        (["quota", "set", "--daily", "many"], "--daily many"),
        (["quota", "set", "--daily", "-1"], "--daily -1"),
        (["quota", "set", "--concurrent", "0"], "concurrent limit 0"),
        (["quota", "set", "--monthly", "²"], "--monthly ²"),
    ],
)
def test_commands_refuse_what_is_no_quota(
    table: Table, central: Central, org: str, arguments: list[str], error: str
) -> None:
    assert run([*arguments[:2], org, *arguments[2:]], table.desk) == 2
    assert error in table.err
    assert "fix: " in table.err
    assert rows(central, org) == []

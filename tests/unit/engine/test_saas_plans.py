"""Plans and terms by example, among them what the replaced service computed wrong."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from engine.located import Document
from engine.saas.costs import daily_costs
from engine.saas.plans import SaasPlan
from engine.saas.terms import Term, term_of

BASE: dict[str, Any] = {
    "subscription_id": "slack",
    "vendor": "Slack",
    "plan_name": "Business+",
    "start_date": date(2024, 1, 31),
    "billing_cycle": "monthly",
    "unit_price": Decimal("12.50"),
    "seats": 3,
    "currency": "USD",
}


def a_plan(**changed: Any) -> SaasPlan:
    return SaasPlan.model_validate({**BASE, **changed})


def total(plan: SaasPlan, first: date, last: date) -> Decimal:
    return sum((row.daily_cost for row in daily_costs([plan], first, last)), Decimal(0))


@pytest.mark.parametrize(
    ("changed", "field", "said"),
    [
        ({"end_date": date(2024, 1, 1)}, "end_date", "lies before start_date"),
        ({"seats": -1}, "seats", "greater than or equal to 0"),
        ({"unit_price": Decimal(-1)}, "unit_price", "greater than or equal to 0"),
        ({"unit_price": Decimal("0.0000000001")}, "unit_price", "no more than 9 decimal places"),
        ({"unit_price": Decimal("NaN")}, "unit_price", "finite"),
        ({"discount_type": "percent", "discount_value": Decimal("100.01")}, "discount_value", "over 100 %"),
        ({"discount_type": "fixed", "discount_value": Decimal("37.51")}, "discount_value", "over the 37.50"),
        ({"discount_type": "percent"}, "discount_value", "does not go"),
        ({"currency": "XYZ"}, "currency", "no currency of ISO 4217"),
        ({"currency": "usd"}, "currency", "no currency of ISO 4217"),
        ({"billing_cycle": "daily"}, "billing_cycle", "should be 'weekly'"),
        ({"billing_cycle": "custom"}, "custom_days", "does not go with billing_cycle custom"),
        ({"custom_days": 30}, "custom_days", "does not go with billing_cycle monthly"),
        ({"billing_anchor_day": 32}, "billing_anchor_day", "less than or equal to 31"),
        ({"billing_anchor_month": 4}, "billing_anchor_month", "needs billing_anchor_day"),
        ({"billing_cycle": "weekly", "billing_anchor_day": 3}, "billing_anchor_day", "weekly"),
        ({"status": "CANCELLED"}, "end_date", "is missing"),
        ({"effective_from": date(2024, 1, 1)}, "effective_from", "lies before start_date"),
        ({"trial_end_date": date(2024, 1, 30)}, "trial_end_date", "outside"),
        ({"unit_price": Decimal(10**14), "seats": 10}, "unit_price", "check"),
        ({"colour": "red"}, "colour", "unknown key"),
        ({"vendor": " "}, "vendor", "at least 1 character"),
        ({"subscription_id": "a b"}, "subscription_id", "pattern"),
    ],
)
def test_what_makes_no_plan_is_named(changed: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        a_plan(**changed)
    found = Document("plans.csv", {}, {(): 7}).problems(caught.value)
    assert [problem.field for problem in found] == [field]
    assert (found[0].file, found[0].line) == ("plans.csv", 7)
    assert said in f"{found[0].problem}: {found[0].fix}"


@pytest.mark.parametrize(
    ("changed", "cost"),
    [
        ({}, "37.50"),
        ({"pricing_model": "FLAT_FEE"}, "12.50"),
        ({"discount_type": "percent", "discount_value": Decimal(15)}, "31.875"),
        ({"discount_type": "percent", "discount_value": Decimal(100)}, "0"),
        # Off the whole term, not off each seat.
        ({"discount_type": "fixed", "discount_value": Decimal("7.50")}, "30"),
        # Half a billionth goes up: 0.000000005 x 0.1.
        (
            {"unit_price": Decimal("5E-9"), "seats": 1, "discount_type": "percent", "discount_value": 90},
            "1E-9",
        ),
        ({"seats": 0}, "0"),
    ],
)
def test_a_full_term_costs(changed: dict[str, Any], cost: str) -> None:
    assert a_plan(**changed).cycle_cost == Decimal(cost)


@pytest.mark.parametrize(
    ("changed", "day", "start", "end"),
    [
        # From the anchor each time: the 31st comes back after a short month.
        ({}, "2024-02-10", "2024-01-31", "2024-02-29"),
        ({}, "2024-02-29", "2024-02-29", "2024-03-31"),
        ({}, "2025-03-30", "2025-02-28", "2025-03-31"),
        ({"billing_anchor_day": 15}, "2024-01-31", "2024-01-15", "2024-02-15"),
        ({"billing_anchor_day": 31}, "2024-04-30", "2024-04-30", "2024-05-31"),
        (
            {"billing_cycle": "annual", "start_date": date(2024, 2, 29)},
            "2025-02-28",
            "2025-02-28",
            "2026-02-28",
        ),
        (
            {"billing_cycle": "annual", "start_date": date(2024, 2, 29)},
            "2028-03-01",
            "2028-02-29",
            "2029-02-28",
        ),
        ({"billing_cycle": "quarterly", "billing_anchor_day": 1}, "2024-03-31", "2024-02-01", "2024-05-01"),
        (
            {"billing_cycle": "semi_annual", "billing_anchor_day": 1, "billing_anchor_month": 4},
            "2025-01-10",
            "2024-10-01",
            "2025-04-01",
        ),
        ({"billing_cycle": "weekly"}, "2024-02-07", "2024-02-07", "2024-02-14"),
        ({"billing_cycle": "custom", "custom_days": 45}, "2024-03-15", "2024-01-31", "2024-03-16"),
        ({"trial_end_date": date(2024, 2, 13)}, "2024-03-14", "2024-03-14", "2024-04-14"),
    ],
)
def test_the_term_around_a_day(changed: dict[str, Any], day: str, start: str, end: str) -> None:
    term = Term(date.fromisoformat(start), date.fromisoformat(end))
    assert term_of(a_plan(**changed), date.fromisoformat(day)) == term


@pytest.mark.parametrize("start", [date(2023, 7, 1), date(2024, 7, 1), date(2024, 2, 29)])
def test_an_annual_contract_costs_what_it_costs(start: date) -> None:
    """The replaced service spread it by fiscal years: 1201.65 for the first, 1198.35 for the next."""
    plan = a_plan(billing_cycle="annual", unit_price=Decimal(1200), seats=1, start_date=start)
    term = term_of(plan, start)
    assert total(plan, term.start, term.end - timedelta(days=1)) == Decimal(1200)


@pytest.mark.parametrize("month", range(1, 13))
@pytest.mark.parametrize(("cycle", "count"), [("quarterly", 4), ("semi_annual", 2)])
def test_fiscal_terms_have_the_right_length(month: int, cycle: str, count: int) -> None:
    """Terms by the fiscal year's months; the replaced service took windows of the wrong year."""
    first = date(2023, month, 1)
    plan = a_plan(
        billing_cycle=cycle, start_date=first, billing_anchor_day=1, billing_anchor_month=month, seats=1
    )
    day, costs = first, []
    for _ in range(count):
        term = term_of(plan, day)
        costs.append(total(plan, term.start, term.end - timedelta(days=1)))
        day = term.end
    assert (day.year, day.month, day.day) == (2024, month, 1)
    assert costs == [Decimal("12.50")] * count


def test_a_cancelled_plan_costs_nothing_afterwards_and_its_days_their_share() -> None:
    plan = a_plan(start_date=date(2024, 4, 1), end_date=date(2024, 4, 10), status="CANCELLED")
    rows = list(daily_costs([plan], date(2024, 3, 1), date(2024, 12, 31)))
    assert [row.usage_date.day for row in rows] == list(range(1, 11))
    assert sum(row.daily_cost for row in rows) == Decimal("12.50") == rows[0].charge_amount


def test_free_plans_and_trials_have_rows_of_zero() -> None:
    free = a_plan(unit_price=Decimal(0))
    trial = a_plan(trial_end_date=date(2024, 2, 2))
    found = list(daily_costs([free], date(2024, 2, 1), date(2024, 2, 3)))
    assert [(row.status, row.daily_cost) for row in found] == [("FREE", Decimal(0))] * 3
    states = [row.status for row in daily_costs([trial], date(2024, 1, 31), date(2024, 2, 3))]
    assert states == ["TRIAL", "TRIAL", "TRIAL", "ACTIVE"]


def test_a_price_change_in_mid_term_is_charged_from_its_day_on() -> None:
    april = {"start_date": date(2024, 4, 1), "seats": 1}
    rows = [
        a_plan(**april, unit_price=Decimal(30)),
        a_plan(**april, unit_price=60, effective_from=date(2024, 4, 11)),
    ]
    found = list(daily_costs(rows, date(2024, 4, 1), date(2024, 4, 30)))
    assert [row.usage_date.day for row in found if row.charge_day] == [1, 11]
    assert [row.charge_amount for row in found if row.charge_day] == [Decimal(10), Decimal(40)]
    assert {row.daily_cost for row in found} == {Decimal(1), Decimal(2)}
    assert {(row.term_start, row.term_end) for row in found} == {(date(2024, 4, 1), date(2024, 5, 1))}

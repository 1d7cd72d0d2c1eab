"""SaaS subscriptions as charges: billed once, used by the day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from engine.focus import saas
from engine.focus.checks import check
from tests.focus.rows import table

START, END = date(2026, 10, 1), date(2026, 11, 1)
PLAN: dict[str, Any] = {
    "subscription_id": "s1",
    "plan_version": 1,
    "vendor": "Slack",
    "plan_name": "Business",
    "category": "Collaboration",
    "status": "ACTIVE",
    "pricing_model": "PER_SEAT",
    "seats": 10,
    "billing_cycle": "monthly",
    "term_start": START,
    "term_end": END,
    "term_days": 31,
    "unit_price": Decimal("12.5"),
    "list_cycle_cost": Decimal(125),
    "cycle_cost": Decimal(125),
    "currency": "USD",
    "fiscal_year": 2026,
    "fiscal_half": 2,
    "fiscal_quarter": 4,
}


def charges(day: date = START, **changes: Any) -> list[dict[str, Any]]:
    due = day == changes.get("charged", START)
    row = {**PLAN, "usage_date": day, "charge_day": due, "charge_amount": Decimal(125 if due else 0),
           "daily_cost": Decimal("4.032258065"), **changes}  # fmt: skip
    row.pop("charged", None)
    made = saas.convert(
        table("saas_subscription_plan_costs_daily", [{**row, "total_cost": row["daily_cost"]}])
    )
    check(made, table="focus_saas_subscription_daily")
    return made.to_pylist()


def test_the_charge_day_has_a_purchase_and_its_own_use() -> None:
    purchase, use = charges()
    assert (purchase["ChargeCategory"], use["ChargeCategory"]) == ("Purchase", "Usage")
    assert (purchase["BilledCost"], purchase["EffectiveCost"]) == (125, 0)
    assert (use["BilledCost"], use["EffectiveCost"]) == (0, Decimal("4.032258065"))
    assert purchase["ChargePeriodStart"] == datetime(2026, 10, 1, tzinfo=UTC)
    assert purchase["ChargePeriodEnd"] == datetime(2026, 11, 1, tzinfo=UTC)
    assert use["ChargePeriodEnd"] == datetime(2026, 10, 2, tzinfo=UTC)
    assert (purchase["PricingQuantity"], purchase["PricingUnit"]) == (10, "Seats")
    assert (use["ConsumedQuantity"], use["ConsumedUnit"]) == (10, "Seat-Days")
    assert purchase["ListUnitPrice"] == purchase["ContractedUnitPrice"] == Decimal("12.5")
    assert (purchase["x_Derivation"], use["x_Derivation"]) == (None, "amortized")
    assert {purchase["ProviderName"], purchase["InvoiceIssuerName"], purchase["ServiceProviderName"]} == {
        "Slack"
    }
    assert (purchase["ServiceName"], purchase["BillingAccountId"]) == ("Slack Business", "s1")


def test_another_day_has_its_use_alone() -> None:
    (use,) = charges(START + timedelta(days=3))
    assert (use["ChargeCategory"], use["BilledCost"]) == ("Usage", 0)


def test_a_discount_leaves_the_list_price_and_no_contracted_one() -> None:
    purchase, use = charges(
        cycle_cost=Decimal(100), charge_amount=Decimal(100), daily_cost=Decimal("3.225806452")
    )
    assert (purchase["ListCost"], purchase["ContractedCost"]) == (125, 100)
    assert (purchase["ListUnitPrice"], purchase["ContractedUnitPrice"]) == (Decimal("12.5"), None)
    assert (use["ListCost"], use["EffectiveCost"]) == (Decimal("4.032258065"), Decimal("3.225806452"))


def test_a_part_of_a_term_has_that_part_of_the_list_price() -> None:
    purchase, _ = charges(
        date(2026, 10, 16),
        charged=date(2026, 10, 16),
        cycle_cost=Decimal(100),
        charge_amount=Decimal("51.612903226"),
    )
    assert purchase["ListCost"] == Decimal("64.516129032")
    assert purchase["ListUnitPrice"] is None


@pytest.mark.parametrize("price", ["0", "12.5"])
def test_free_plans_and_trials_are_charges_of_zero(price: str) -> None:
    found = charges(unit_price=Decimal(price), list_cycle_cost=Decimal(0), cycle_cost=Decimal(0),
                    charge_amount=Decimal(0), daily_cost=Decimal(0))  # fmt: skip
    assert [c["ChargeCategory"] for c in found] == ["Purchase", "Usage"]
    assert {
        c[name] for c in found for name in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")
    } == {0}
    assert found[0]["ListUnitPrice"] == (0 if price == "0" else None)


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        ("DESIGN", ("Media", "Content Creation")),
        ("their own word", ("Business Applications", "Other (Business Applications)")),
        (None, ("Business Applications", "Other (Business Applications)")),
    ],
)
def test_categories(category: str | None, expected: tuple[str, str]) -> None:
    charge = charges(category=category)[0]
    assert (charge["ServiceCategory"], charge["ServiceSubcategory"]) == expected


def test_flat_fees_frequencies_and_tags() -> None:
    terms = {"pricing_model": "FLAT_FEE", "billing_cycle": "custom", "team": "core", "cost_center": "7"}
    purchase, use = charges(unit_price=Decimal(125), **terms)
    assert (purchase["PricingQuantity"], purchase["PricingUnit"], purchase["ListUnitPrice"]) == (
        1,
        "Plans",
        125,
    )
    assert (purchase["ChargeFrequency"], use["ChargeFrequency"]) == ("One-Time", "Usage-Based")
    assert purchase["Tags"] == use["Tags"] == '{"cost_center": "7", "team": "core"}'
    assert charges()[0]["Tags"] is None

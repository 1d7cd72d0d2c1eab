"""Google Cloud's billing rows as charges, credits of their own rows."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from engine.errors import DataError
from engine.focus import gcp
from engine.focus.checks import check, reconcile
from tests.focus import rows

DAY = date(2026, 10, 31)
ROW: dict[str, Any] = {
    "usage_date": DAY,
    "row_id": "r1",
    "billing_account_id": "A1",
    "invoice_month": "202610",
    "cost_type": "regular",
    "service_id": "6F81-5844-456A",
    "service_description": "Compute Engine",
    "sku_id": "S1",
    "sku_description": "N2 Core",
    "usage_start_time": datetime(2026, 10, 31, 5, tzinfo=UTC),
    "usage_end_time": datetime(2026, 10, 31, 6, tzinfo=UTC),
    "project_id": "shop",
    "project_name": "The shop",
    "cost": Decimal(10),
    "credits_total": Decimal(0),
    "net_cost": Decimal(10),
    "currency": "EUR",
    "usage_amount": Decimal(7200),
    "usage_unit": "seconds",
    "usage_amount_in_pricing_units": Decimal(2),
    "usage_pricing_unit": "gibibyte month",
    "x_credential_id": "c1",
}


def charges(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    given = [{**ROW, "row_id": f"r{n}", **change} for n, change in enumerate(changes)]
    made = gcp.convert(rows.table("gcp_billing_daily_raw", given))
    check(made, table="focus_gcp_daily")
    return made.to_pylist()


def credit(amount: str, kind: str = "PROMOTION") -> dict[str, str | None]:
    return {"amount": amount, "full_name": f"A {kind}", "id": "i", "name": "n", "type": kind}


def test_a_row_is_a_charge() -> None:
    (charge,) = charges(
        {"cost_at_list": Decimal(12), "price_effective": Decimal(5), "price_tier_start_amount": Decimal(100)}
    )
    assert [charge[n] for n in ("BilledCost", "EffectiveCost", "ContractedCost", "ListCost")] == [
        10,
        10,
        10,
        12,
    ]
    assert (charge["ChargeCategory"], charge["ChargeClass"]) == ("Usage", None)
    assert (charge["ServiceCategory"], charge["ServiceSubcategory"]) == ("Compute", "Virtual Machines")
    assert (charge["SubAccountId"], charge["SubAccountName"], charge["SubAccountType"]) == (
        "shop",
        "The shop",
        "Project",
    )
    assert (charge["ConsumedQuantity"], charge["ConsumedUnit"]) == (7200, "Seconds")
    assert (charge["PricingQuantity"], charge["PricingUnit"]) == (2, "GiB-Months")
    assert (charge["ContractedUnitPrice"], charge["SkuPriceId"]) == (5, "S1/100")
    assert (charge["ChargePeriodStart"], charge["ChargePeriodEnd"]) == (
        ROW["usage_start_time"],
        ROW["usage_end_time"],
    )
    assert (charge["x_ChargeId"], charge["x_InvoiceMonth"], charge["BillingCurrency"]) == (
        "r0",
        "202610",
        "EUR",
    )


def test_invoices_are_cut_by_pacific_time() -> None:
    (charge,) = charges({})
    assert charge["BillingPeriodStart"] == datetime(2026, 10, 1, 7, tzinfo=UTC)
    # Daylight saving ends on that very day.
    assert charge["BillingPeriodEnd"] == datetime(2026, 11, 1, 7, tzinfo=UTC)
    (winter,) = charges({"invoice_month": "202611"})
    assert winter["BillingPeriodEnd"] == datetime(2026, 12, 1, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("quantity", "price", "per", "expected"),
    [
        ("2", "5", "1", Decimal(5)),
        ("3", "5", "1", None),
        ("2", "5", "1000", None),
        ("2", "5", None, Decimal(5)),
    ],
)
def test_a_unit_price_stands_only_where_it_explains_the_cost(
    quantity: str, price: str, per: str | None, expected: Decimal | None
) -> None:
    (charge,) = charges(
        {
            "usage_amount_in_pricing_units": Decimal(quantity),
            "price_effective": Decimal(price),
            "price_pricing_unit_quantity": per and Decimal(per),
        }
    )
    assert charge["ContractedUnitPrice"] == expected


def test_credits_are_rows_of_their_own_and_lose_nothing() -> None:
    found = charges(
        {
            "credits": json.dumps([credit("-1.5"), credit("-1.5"), credit("0.000000001", "FREE_TIER")]),
            "credits_total": Decimal("-2.999999999"),
            "net_cost": Decimal("7.000000001"),
        }
    )
    assert [c["ChargeCategory"] for c in found] == ["Usage", "Credit", "Credit", "Credit"]
    assert sum(c["BilledCost"] for c in found) == Decimal("7.000000001")
    for row in found[1:]:
        assert len({row[name] for name in ("BilledCost", "EffectiveCost", "ContractedCost", "ListCost")}) == 1
        assert (row["PricingQuantity"], row["ConsumedQuantity"], row["SkuPriceId"]) == (None, None, None)
        assert row["SkuId"] == "S1"
    assert [c["x_CreditType"] for c in found] == [None, "PROMOTION", "PROMOTION", "FREE_TIER"]
    assert len({c["x_ChargeId"] for c in found}) == 4


@pytest.mark.parametrize("given", [None, json.dumps([credit("-1")])])
def test_credits_that_are_not_their_total_are_refused(given: str | None) -> None:
    with pytest.raises(DataError, match="credits_total is -2"):
        charges({"credits": given, "credits_total": Decimal(-2)})


@pytest.mark.parametrize(
    ("cost_type", "category"),
    [("regular", "Usage"), ("tax", "Tax"), ("adjustment", "Adjustment"), ("rounding_error", "Adjustment"),
     ("something new", "Adjustment"), (None, "Usage")],
)  # fmt: skip
def test_cost_types(cost_type: str | None, category: str) -> None:
    (charge,) = charges({"cost_type": cost_type})
    assert charge["ChargeCategory"] == category
    if category != "Usage":
        assert charge["PricingQuantity"] is charge["ConsumedQuantity"] is charge["PricingCategory"] is None
        assert charge["ChargeFrequency"] == "One-Time"
    if category == "Tax":
        assert charge["SkuId"] is charge["SkuMeter"] is charge["SkuPriceId"] is None


@pytest.mark.parametrize(
    ("kind", "month", "expected"),
    [
        ("PRICE_CORRECTION", "202611", "Correction"),
        ("PRICE_CORRECTION", "202610", None),
        (None, "202611", None),
    ],
)
def test_only_a_correction_of_an_earlier_invoice_is_one(
    kind: str | None, month: str, expected: str | None
) -> None:
    (charge,) = charges({"adjustment_type": kind, "invoice_month": month, "cost": Decimal(-3)})
    assert (charge["ChargeClass"], charge["BilledCost"]) == (expected, -3)


def test_labels_and_tags_become_one_object() -> None:
    (charge,) = charges(
        {
            "labels": json.dumps({"team": "a", "spot": ""}),
            "project_labels": json.dumps({"team": "b"}),
            "tags": json.dumps([{"inherited": True, "key": "cc", "namespace": "12", "value": "7"}]),
            "system_labels": json.dumps({"compute.googleapis.com/cores": "4"}),
        }
    )
    assert json.loads(charge["Tags"]) == {
        "team": "a",
        "spot": True,
        "project:team": "b",
        "tag:12/cc": "7",
        "compute.googleapis.com/cores": "4",
    }


def test_resources_sellers_and_what_is_unknown() -> None:
    (charge,) = charges(
        {
            "resource_global_name": "//compute.googleapis.com/projects/p/zones/z/instances/7",
            "resource_name": "web",
            "seller_name": "A Vendor",
            "service_description": "Nobody Filed This",
            "project_id": None,
        }
    )
    assert (charge["ResourceType"], charge["ResourceName"]) == ("instances", "web")
    assert (charge["PublisherName"], charge["ProviderName"], charge["InvoiceIssuerName"]) == (
        "A Vendor",
        *["Google Cloud"] * 2,
    )
    assert (charge["ServiceCategory"], charge["ServiceSubcategory"]) == ("Other", "Other (Other)")
    assert charge["SubAccountId"] is charge["SubAccountName"] is charge["SubAccountType"] is None


def test_rows_that_lack_what_the_export_may_lack() -> None:
    sparse = {
        name: ROW[name] for name in ("usage_date", "row_id", "currency", "credits_total", "x_credential_id")
    }
    made = gcp.convert(
        pa.Table.from_pylist(
            [{**sparse, "net_cost": Decimal(0)}], schema=rows.table("gcp_billing_daily_raw", []).schema
        )
    )
    check(made, table="focus_gcp_daily")
    (charge,) = made.to_pylist()
    assert (charge["BilledCost"], charge["ServiceName"]) == (0, "Google Cloud")
    assert charge["ChargePeriodEnd"] == datetime(2026, 10, 31, 1, tzinfo=UTC)


def test_an_older_table_without_later_columns() -> None:
    table = rows.gcp(50, seed=3).drop_columns(["price_list", "price_tier_start_amount", "seller_name"])
    made = gcp.convert(table)
    check(made, table="focus_gcp_daily")
    reconcile(made, table, table="focus_gcp_daily", column="net_cost")


def test_text_that_is_coded_by_a_dictionary_is_text() -> None:
    table = rows.gcp(50, seed=3)
    coded = table.set_column(
        table.schema.get_field_index("currency"), "currency", table["currency"].dictionary_encode()
    )
    made = gcp.convert(coded)
    check(made, table="focus_gcp_daily")
    reconcile(made, coded, table="focus_gcp_daily", column="net_cost")
    assert made.equals(gcp.convert(table))

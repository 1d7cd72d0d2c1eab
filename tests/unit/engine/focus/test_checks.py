"""Each rule refuses the charge that breaks it, and says which rule, column and value."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from engine.errors import AuditError
from engine.focus import ai, gcp
from engine.focus.checks import check, reconcile
from engine.focus.shape import ARROW, frame_of
from processors.openai.cost import MODEL
from tests.focus import rows

ONE = Decimal(1)


@cache
def good() -> pa.Table:
    """Charges of every category: those of usage and those of billing rows."""
    usage, costs = rows.ai(MODEL, 40, seed=1)
    made = ai.convert(ai.OPENAI, MODEL, usage, costs, rows.book("openai"))[0]
    return pa.concat_tables([made, gcp.convert(rows.gcp(60, seed=1))])


def broken(where: dict[str, Any], change: dict[str, Any]) -> pa.Table:
    """The charges with `change` in the first row where `where` holds."""
    frame = frame_of(good()).with_row_index("n")
    fitting = frame.filter(*(pl.col(name).eq_missing(value) for name, value in where.items()))
    number = fitting.row(0, named=True)["n"]
    changed = frame.with_columns(
        pl.when(pl.col("n") == number)
        .then(pl.lit(value, dtype=frame.schema[name]))
        .otherwise(pl.col(name))
        .alias(name)
        for name, value in change.items()
    )
    return changed.drop("n").to_arrow().cast(pa.schema([field.with_nullable(True) for field in ARROW]))


def test_good_charges_pass() -> None:
    check(good(), table="t")
    assert {"Usage", "Credit", "Tax", "Adjustment"} <= set(good()["ChargeCategory"].to_pylist())


USAGE = {"ChargeCategory": "Usage", "x_Source": "openai"}
EARLY = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("where", "change", "rule", "column"),
    [
        (USAGE, {"BilledCost": None}, "not null", "BilledCost"),
        (USAGE, {"x_ChargeId": None}, "not null", "x_ChargeId"),
        (USAGE, {"AvailabilityZone": ""}, "NULL for nothing", "AvailabilityZone"),
        (USAGE, {"ChargeCategory": "Subscription"}, "allowed values", "ChargeCategory"),
        (USAGE, {"ChargeClass": "None"}, "allowed values", "ChargeClass"),
        (USAGE, {"ChargeFrequency": "Daily"}, "allowed values", "ChargeFrequency"),
        (USAGE, {"PricingCategory": "On-Demand"}, "allowed values", "PricingCategory"),
        (USAGE, {"ServiceCategory": "genai"}, "category of the subcategory", "ServiceSubcategory"),
        (USAGE, {"ServiceSubcategory": "Caching"}, "category of the subcategory", "ServiceSubcategory"),
        (USAGE, {"BillingCurrency": "usd"}, "currency code", "BillingCurrency"),
        (USAGE, {"ChargePeriodEnd": EARLY}, "exclusive end", "ChargePeriodEnd"),
        (USAGE, {"BillingPeriodEnd": EARLY}, "exclusive end", "BillingPeriodEnd"),
        (USAGE, {"ListUnitPrice": -ONE}, "not negative", "ListUnitPrice"),
        (USAGE, {"ConsumedUnit": None}, "goes with ConsumedQuantity", "ConsumedUnit"),
        (USAGE, {"PricingQuantity": None}, "goes with PricingQuantity", "PricingUnit"),
        (USAGE, {"RegionId": "us"}, "goes with RegionId", "RegionName"),
        (USAGE, {"ResourceId": "r"}, "goes with ResourceId", "ResourceType"),
        (USAGE, {"ResourceName": "r"}, "NULL without ResourceId", "ResourceName"),
        (USAGE, {"SkuId": None}, "NULL without SkuId", "SkuMeter"),
        (USAGE, {"SkuPriceId": None}, "NULL without SkuPriceId", "SkuPriceDetails"),
        (USAGE, {"PricingCategory": None}, "named on usage and purchases", "PricingCategory"),
        (USAGE, {"ListCost": ONE}, "unit price x quantity", "ListCost"),
        (USAGE, {"ContractedCost": ONE}, "unit price x quantity", "ContractedCost"),
        (USAGE, {"ProviderName": "Somebody"}, "0 where another is paid", "BilledCost"),
        (
            USAGE, {"ChargeCategory": "Purchase", "ConsumedQuantity": None, "ConsumedUnit": None},
            "no purchase", "ChargeFrequency",
        ),
        (
            {**USAGE, "x_TokenKind": "output"},
            {"ChargeCategory": "Purchase", "ChargeFrequency": "Recurring", "ConsumedQuantity": None,
             "ConsumedUnit": None},
            "0 on a prepayment", "EffectiveCost",
        ),
        ({"ChargeCategory": "Credit"}, {"EffectiveCost": ONE}, "BilledCost on a credit", "EffectiveCost"),
        ({"ChargeCategory": "Credit"}, {"ListCost": ONE}, "BilledCost on a credit", "ListCost"),
        ({"ChargeCategory": "Tax"}, {"SkuId": "S"}, "NULL on a tax", "SkuId"),
        ({"ChargeCategory": "Tax"}, {"PricingCategory": "Other"}, "NULL on a tax", "PricingCategory"),
        (
            {"ChargeCategory": "Tax"}, {"ConsumedQuantity": ONE, "ConsumedUnit": "Hours"},
            "NULL but on usage", "ConsumedQuantity",
        ),
        (USAGE, {"ServiceName": "Compute Engine"}, "one ServiceCategory each", "ServiceName"),
        (USAGE, {"SkuId": "another"}, "one SkuId each", "SkuPriceId"),
        (USAGE, {"Tags": "no JSON"}, "key-value", "Tags"),
        (USAGE, {"Tags": '{"a": {"b": 1}}'}, "key-value", "Tags"),
        (USAGE, {"SkuPriceDetails": '{"Model": "m"}'}, "x_ keys", "SkuPriceDetails"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_named(
    where: dict[str, Any], change: dict[str, Any], rule: str, column: str
) -> None:
    with pytest.raises(
        AuditError, match=re.escape(f"focus_x: FOCUS rule {rule} failed on {column}")
    ) as refused:
        check(broken(where, change), table="focus_x")
    assert refused.value.field == column


def test_columns_and_their_order() -> None:
    with pytest.raises(AuditError, match="rule columns failed on Tags"):
        check(good().drop_columns(["Tags"]), table="t")
    with pytest.raises(AuditError, match="rule columns failed on their order"):
        check(good().select([*ARROW.names[1:], ARROW.names[0]]), table="t")


def test_a_correction_may_differ_from_its_unit_price() -> None:
    check(broken(USAGE, {"ListCost": ONE, "ChargeClass": "Correction"}), table="t")


def test_charges_that_are_not_the_costs_are_refused() -> None:
    usage, costs = rows.ai(MODEL, 12, seed=1)
    made = ai.convert(ai.OPENAI, MODEL, usage, costs, rows.book("openai"))[0]
    reconcile(made, costs, table="t", column="total_cost")
    with pytest.raises(
        AuditError, match=r"t: FOCUS rule sum failed on BilledCost: on 2026-10-1\d the charges sum"
    ):
        reconcile(made.slice(1), costs, table="t", column="total_cost")
    with pytest.raises(AuditError, match="rule sum"):
        reconcile(made, costs.slice(costs.num_rows), table="t", column="total_cost")


def test_no_charges_are_good_charges() -> None:
    check(ARROW.empty_table(), table="t")

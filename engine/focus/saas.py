"""SaaS subscriptions as charges: a purchase where a charge falls due, and each day's use of what is paid.

The purchase carries what is billed and costs nothing by itself; the days' rows bill nothing and carry what
the day has of it. So BilledCost is spent on the day it is due, and EffectiveCost is the daily cost.
"""

from __future__ import annotations

from typing import Final

import polars as pl
import pyarrow as pa

from engine.focus.exact import day_share, product, scaled
from engine.focus.services import BUSINESS, SAAS
from engine.focus.shape import (
    MONEY,
    constants,
    day_period,
    frame_of,
    in_slices,
    midnight,
    month_period,
    parties,
    slices_of,
    with_tags,
)

_ZERO: Final = pl.lit(0, dtype=MONEY)
_TAGS: Final = ("department", "team", "cost_center")
#: SaaS plans are read from the warehouse, with nobody's key.
NO_CREDENTIAL: Final = "none"


def convert(costs: pa.Table) -> pa.Table:
    """The charges of `saas_subscription_plan_costs_daily` rows."""
    names = ("vendor", "plan_name", "category")
    # One service has one category, also where two plans of a name are filed differently.
    filed = frame_of(costs.select(names)).select(
        pl.col("category").str.to_lowercase().min().over("vendor", "plan_name")
    )
    rows = costs.append_column("filed", filed["category"].to_arrow())
    return in_slices(slices_of(rows), _converted)


def _converted(frame: pl.DataFrame) -> pl.DataFrame:
    rows = _common(frame)
    return pl.concat([_purchases(rows), _days(rows)], how="diagonal")


def _common(rows: pl.DataFrame) -> pl.DataFrame:
    """What a purchase and its days share."""
    per_seat = pl.col("pricing_model") == "PER_SEAT"
    service = pl.concat_str("vendor", "plan_name", separator=" ")
    filed = pl.col("filed")
    sku = pl.concat_str("vendor", "plan_name", "pricing_model", separator="/")
    return with_tags(rows, _TAGS).with_columns(
        *parties(pl.col("vendor")),
        *month_period(pl.col("usage_date")),
        pl.col("subscription_id").alias("BillingAccountId"),
        pl.col("currency").alias("BillingCurrency"),
        service.alias("ServiceName"),
        *(
            filed.replace_strict(
                {n: pair[place] for n, pair in SAAS.items()}, default=BUSINESS[place], return_dtype=pl.String
            ).alias(name)
            for place, name in enumerate(("ServiceCategory", "ServiceSubcategory"))
        ),
        sku.alias("SkuId"),
        pl.when(per_seat).then(pl.lit("Seats")).otherwise(pl.lit("Plans")).alias("SkuMeter"),
        pl.concat_str(sku, "billing_cycle", separator="/").alias("SkuPriceId"),
        pl.when(per_seat)
        .then(pl.col("seats"))
        .otherwise(1)
        .cast(pl.Decimal(38, 0))
        .cast(MONEY)
        .alias("units"),
        pl.when(per_seat).then(pl.lit("Seat")).otherwise(pl.lit("Plan")).alias("unit"),
        pl.col("usage_date").alias("x_UsageDate"),
        pl.col("subscription_id").alias("x_SubscriptionId"),
        pl.col("term_start").alias("x_TermStart"),
        pl.col("term_end").alias("x_TermEnd"),
        *constants(
            {
                "BillingAccountType": "Subscription",
                "PricingCategory": "Standard",
                "x_Source": "saas_subscription",
                "x_credential_id": NO_CREDENTIAL,
            }
        ),
    )


def _purchases(rows: pl.DataFrame) -> pl.DataFrame:
    """What falls due on a charge day, for the days up to the term's end."""
    due = rows.filter(pl.col("charge_day"))
    charged, listed = pl.col("charge_amount"), pl.col("list_cycle_cost")
    whole = charged == pl.col("cycle_cost")
    # A part of a term has that part of its list price too.
    list_cost = (
        pl.when(whole)
        .then(listed)
        .otherwise(pl.coalesce(scaled(charged, to=listed, of=pl.col("cycle_cost")), charged))
    )
    price, units = pl.col("unit_price"), pl.col("units")
    per_unit = [
        pl.when(product(price, units) == pl.col(cost)).then(price).alias(name)
        for cost, name in (("ContractedCost", "ContractedUnitPrice"), ("ListCost", "ListUnitPrice"))
    ]
    once = pl.col("billing_cycle") == "custom"
    return due.with_columns(
        charged.alias("BilledCost"),
        _ZERO.alias("EffectiveCost"),
        charged.alias("ContractedCost"),
        list_cost.alias("ListCost"),
        midnight(pl.col("usage_date")).alias("ChargePeriodStart"),
        midnight(pl.col("term_end")).alias("ChargePeriodEnd"),
        pl.lit("Purchase").alias("ChargeCategory"),
        pl.when(once).then(pl.lit("One-Time")).otherwise(pl.lit("Recurring")).alias("ChargeFrequency"),
        pl.concat_str(pl.col("ServiceName"), pl.lit(", "), "billing_cycle", pl.lit(" term")).alias(
            "ChargeDescription"
        ),
        units.alias("PricingQuantity"),
        pl.concat_str("unit", pl.lit("s")).alias("PricingUnit"),
        pl.concat_str("subscription_id", "usage_date", pl.lit("purchase"), separator="/").alias("x_ChargeId"),
    ).with_columns(per_unit)


def _days(rows: pl.DataFrame) -> pl.DataFrame:
    """Each day's use of a term: derived, as `x_Derivation` says."""
    number = (pl.col("usage_date") - pl.col("term_start")).dt.total_days() + 1
    length = (pl.col("term_end") - pl.col("term_start")).dt.total_days()
    unit = pl.concat_str("unit", pl.lit("-Days"))
    return rows.with_columns(
        *day_period(pl.col("usage_date")),
        _ZERO.alias("BilledCost"),
        pl.col("daily_cost").alias("EffectiveCost"),
        pl.col("daily_cost").alias("ContractedCost"),
        day_share(pl.col("list_cycle_cost"), day=number, days=length).alias("ListCost"),
        *constants(
            {"ChargeCategory": "Usage", "ChargeFrequency": "Usage-Based", "x_Derivation": "amortized"}
        ),
        pl.concat_str(pl.col("ServiceName"), pl.lit(", one day of a term")).alias("ChargeDescription"),
        *(pl.col("units").alias(name) for name in ("PricingQuantity", "ConsumedQuantity")),
        *(unit.alias(name) for name in ("PricingUnit", "ConsumedUnit")),
        pl.concat_str("subscription_id", "usage_date", pl.lit("day"), separator="/").alias("x_ChargeId"),
    )

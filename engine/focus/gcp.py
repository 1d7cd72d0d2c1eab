"""Google Cloud's billing rows as charges: one for each row, and one for each credit of it."""

from __future__ import annotations

from typing import Final

import polars as pl
import pyarrow as pa

from engine.errors import DataError
from engine.focus.exact import product
from engine.focus.gcp_names import tags_of, unit_name
from engine.focus.services import GCP, NOTHING_FITS
from engine.focus.shape import MONEY, UTC_US, constants, in_slices, midnight, parties, slices_of

#: What `gcp_billing_daily_raw` has for us; an older table may lack some of it.
_MONEY_COLUMNS: Final = (
    "cost",
    "credits_total",
    "cost_at_list",
    "usage_amount",
    "usage_amount_in_pricing_units",
    "price_effective",
    "price_list",
    "price_pricing_unit_quantity",
    "price_tier_start_amount",
)
_TEXT_COLUMNS: Final = (
    "billing_account_id",
    "service_id",
    "service_description",
    "sku_id",
    "sku_description",
    "project_id",
    "project_name",
    "region",
    "zone",
    "resource_name",
    "resource_global_name",
    "cost_type",
    "invoice_month",
    "currency",
    "usage_unit",
    "usage_pricing_unit",
    "credits",
    "labels",
    "tags",
    "system_labels",
    "project_labels",
    "adjustment_type",
    "transaction_type",
    "seller_name",
    "row_id",
    "x_credential_id",
)
_CREDITS: Final = pl.List(
    pl.Struct(dict.fromkeys(("id", "full_name", "type", "name", "amount"), pl.String()))
)
#: Invoices are cut by this clock.
_PACIFIC: Final = "America/Los_Angeles"
_NAME: Final = "Google Cloud"
_CATEGORIES: Final = {"regular": "Usage", "tax": "Tax"}
_COSTS: Final = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")


def convert(billing: pa.Table) -> pa.Table:
    """The charges of `gcp_billing_daily_raw` rows. Raises DataError for credits that are not their total."""
    return in_slices(slices_of(billing), _converted)


def _converted(frame: pl.DataFrame) -> pl.DataFrame:
    rows = _common(_complete(frame))
    return pl.concat([_charges(rows), _credits(rows)], how="diagonal")


def _complete(frame: pl.DataFrame) -> pl.DataFrame:
    kinds: dict[str, pl.DataType] = dict.fromkeys(_MONEY_COLUMNS, MONEY)
    kinds |= dict.fromkeys(_TEXT_COLUMNS, pl.String())
    kinds |= {"usage_date": pl.Date(), "usage_start_time": UTC_US, "usage_end_time": UTC_US}
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in kinds.items()
    ).with_columns(
        # A row without a cost is of its credits alone; one without a start is filed under the day of export.
        pl.col("cost").fill_null(0),
        pl.coalesce("usage_start_time", midnight(pl.col("usage_date"))).alias("usage_start_time"),
        pl.coalesce("billing_account_id", "x_credential_id").alias("billing_account_id"),
    )


def _common(rows: pl.DataFrame) -> pl.DataFrame:
    """What a charge and its credits share."""
    start, end = pl.col("usage_start_time"), pl.col("usage_end_time")
    service = pl.coalesce("service_description", "service_id", pl.lit(_NAME))
    used_in = start.dt.convert_time_zone(_PACIFIC).dt.truncate("1mo").dt.replace_time_zone(None)
    invoiced = pl.col("invoice_month").str.strptime(pl.Datetime("us"), "%Y%m", strict=False)
    month = pl.coalesce(invoiced, used_in)
    seller = pl.coalesce("seller_name", pl.lit(_NAME))
    return tags_of(rows).with_columns(
        *parties(pl.lit(_NAME), sold_by=seller),
        _pacific(month).alias("BillingPeriodStart"),
        _pacific(month.dt.offset_by("1mo")).alias("BillingPeriodEnd"),
        start.alias("ChargePeriodStart"),
        # Usage is cut by the hour; a row that names no end is one of them.
        pl.when(end > start).then(end).otherwise(start.dt.offset_by("1h")).alias("ChargePeriodEnd"),
        pl.when(pl.col("adjustment_type").is_not_null() & (used_in < month))
        .then(pl.lit("Correction"))
        .alias("ChargeClass"),
        pl.col("billing_account_id").alias("BillingAccountId"),
        pl.col("currency").alias("BillingCurrency"),
        pl.col("project_id").alias("SubAccountId"),
        pl.when(pl.col("project_id").is_not_null())
        .then(pl.coalesce("project_name", "project_id"))
        .alias("SubAccountName"),
        pl.when(pl.col("project_id").is_not_null()).then(pl.lit("Project")).alias("SubAccountType"),
        pl.col("region").alias("RegionId"),
        # The export has no display names, and FOCUS wants one beside each id.
        pl.col("region").alias("RegionName"),
        pl.col("zone").alias("AvailabilityZone"),
        *_resource(service),
        service.alias("ServiceName"),
        *_category(service),
        pl.col("usage_date").alias("x_UsageDate"),
        pl.col("cost_type").alias("x_CostType"),
        pl.col("invoice_month").alias("x_InvoiceMonth"),
        pl.col("adjustment_type").alias("x_AdjustmentType"),
        pl.col("transaction_type").alias("x_TransactionType"),
        *constants({"BillingAccountType": "Billing Account", "x_Source": "gcp"}),
    )


def _pacific(month: pl.Expr) -> pl.Expr:
    return month.dt.replace_time_zone(_PACIFIC).dt.convert_time_zone("UTC")


def _resource(service: pl.Expr) -> list[pl.Expr]:
    """`//compute.googleapis.com/projects/p/zones/z/instances/7` is of type instances."""
    found = pl.coalesce("resource_global_name", "resource_name")
    kind = pl.col("resource_global_name").str.extract(r"/([^/]+)/[^/]+$")
    name = pl.col("resource_name")
    return [
        found.alias("ResourceId"),
        pl.when(found.is_not_null()).then(pl.coalesce(kind, service)).alias("ResourceType"),
        pl.when(name != found).then(name).alias("ResourceName"),
    ]


def _category(service: pl.Expr) -> list[pl.Expr]:
    category = service.replace_strict({n: pair[0] for n, pair in GCP.items()}, default=NOTHING_FITS[0])
    sub = service.replace_strict({n: pair[1] for n, pair in GCP.items()}, default=NOTHING_FITS[1])
    return [category.alias("ServiceCategory"), sub.alias("ServiceSubcategory")]


def _charges(rows: pl.DataFrame) -> pl.DataFrame:
    category = pl.coalesce("cost_type", pl.lit("regular")).replace_strict(_CATEGORIES, default="Adjustment")
    usage, taxed = category == "Usage", category == "Tax"
    quantity = pl.coalesce("usage_amount_in_pricing_units", "usage_amount")
    unit = pl.coalesce(
        pl.when(pl.col("usage_amount_in_pricing_units").is_not_null()).then(pl.col("usage_pricing_unit")),
        pl.col("usage_unit"),
    )
    listed = pl.coalesce("cost_at_list", "cost")
    priced = usage & quantity.is_not_null() & unit.is_not_null()
    consumed = usage & pl.col("usage_amount").is_not_null() & pl.col("usage_unit").is_not_null()
    # What the pricing export finds a price by.
    tier = pl.col("price_tier_start_amount").cast(pl.String).str.replace(r"\.?0+$", "")
    sku_price = pl.concat_str("sku_id", tier, separator="/")
    return rows.with_columns(
        category.alias("ChargeCategory"),
        pl.when(usage).then(pl.lit("Usage-Based")).otherwise(pl.lit("One-Time")).alias("ChargeFrequency"),
        pl.when(usage).then(pl.lit("Standard")).alias("PricingCategory"),
        pl.col("sku_description").alias("ChargeDescription"),
        *(pl.col("cost").alias(name) for name in ("BilledCost", "EffectiveCost", "ContractedCost")),
        listed.alias("ListCost"),
        pl.when(consumed).then("usage_amount").alias("ConsumedQuantity"),
        pl.when(consumed).then(unit_name(pl.col("usage_unit"))).alias("ConsumedUnit"),
        pl.when(priced).then(quantity).alias("PricingQuantity"),
        pl.when(priced).then(unit_name(unit)).alias("PricingUnit"),
        pl.when(priced)
        .then(_price("price_effective", quantity, pl.col("cost")))
        .alias("ContractedUnitPrice"),
        pl.when(priced).then(_price("price_list", quantity, listed)).alias("ListUnitPrice"),
        pl.when(~taxed).then("sku_id").alias("SkuId"),
        pl.when(~taxed & pl.col("sku_id").is_not_null()).then("sku_description").alias("SkuMeter"),
        pl.when(usage).then(sku_price).alias("SkuPriceId"),
        pl.col("row_id").alias("x_ChargeId"),
    )


def _price(column: str, quantity: pl.Expr, cost: pl.Expr) -> pl.Expr:
    """A unit price where it times the quantity is the cost, as FOCUS demands: not with tiers and rounding."""
    per_one = pl.col("price_pricing_unit_quantity").fill_null(1) == 1
    price = pl.col(column)
    return pl.when(per_one & (price >= 0) & (product(price, quantity) == cost)).then(price)


def _credits(rows: pl.DataFrame) -> pl.DataFrame:
    given = rows.filter(pl.col("credits").is_not_null() & (pl.col("credits") != "[]"))
    entries = (
        given.with_columns(pl.col("credits").str.json_decode(_CREDITS).alias("credit"))
        .with_columns(pl.int_ranges(1, pl.col("credit").list.len() + 1).alias("number"))
        .explode("credit", "number")
        .with_columns(pl.col("credit").struct.field("amount").cast(MONEY).alias("amount"))
    )
    _refuse_other_total(rows, entries)
    credit = pl.col("credit").struct
    named = pl.coalesce(credit.field("full_name"), credit.field("name"), credit.field("id"))
    return entries.with_columns(
        *constants({"ChargeCategory": "Credit", "ChargeFrequency": "One-Time"}),
        *(pl.col("amount").alias(name) for name in _COSTS),
        named.alias("ChargeDescription"),
        pl.col("sku_id").alias("SkuId"),
        pl.when(pl.col("sku_id").is_not_null()).then("sku_description").alias("SkuMeter"),
        credit.field("type").alias("x_CreditType"),
        pl.concat_str("row_id", pl.lit("/credit/"), "number").alias("x_ChargeId"),
    )


def _refuse_other_total(rows: pl.DataFrame, entries: pl.DataFrame) -> None:
    """A credit that the JSON lost, or had twice, would change what was paid."""
    told = rows.group_by("row_id").agg(pl.col("credits_total").fill_null(0).sum().alias("told"))
    found = entries.group_by("row_id").agg(pl.col("amount").sum().alias("found"))
    off = told.join(found, on="row_id", how="left").filter(
        pl.col("told") != pl.coalesce("found", pl.lit(0, dtype=MONEY))
    )
    if off.height:
        row = off.sort("row_id").row(0, named=True)
        raise DataError(
            f"The credits of billing row {row['row_id']} sum to {row['found']}, "
            f"and credits_total is {row['told']}.",
            fix="Load the day again; report it if that does not help.",
            field="credits",
        )

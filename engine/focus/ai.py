"""OpenAI's and Anthropic's usage and cost rows as charges: one for each kind of token or call of a row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import polars as pl
import pyarrow as pa

from engine.errors import InternalError
from engine.focus.shape import (
    MONEY,
    ROWS_AT_ONCE,
    WHOLE,
    charge_ids,
    constants,
    day_period,
    frame_of,
    in_slices,
    month_period,
    parties,
)
from engine.prices.book import KEYS, PriceBook
from engine.prices.costs import CostModel
from engine.prices.money import Component
from engine.types import Finding

#: What a meter counts, and how many of it a price is for. Rates have 12 places and NUMERIC has 9: by the
#: thousand or the million each rate and each quantity stands exactly.
UNITS: Final[dict[str, str]] = {
    "character": "Characters",
    "second": "Seconds",
    "image": "Images",
    "web_search": "Requests",
    "file_search": "Requests",
    "code_session": "Sessions",
}
PER_MILLION: Final = ("Tokens", "Characters")
MILLIONTH: Final = pl.lit(Decimal("0.000001"), dtype=pl.Decimal(38, 6))
THOUSANDTH: Final = pl.lit(Decimal("0.001"), dtype=pl.Decimal(38, 3))
METER_NAMES: Final[dict[str, str]] = {
    "input": "Input Tokens",
    "input_audio": "Audio Input Tokens",
    "input_image": "Image Input Tokens",
    "cached_input": "Cached Input Tokens",
    "cached_audio": "Cached Audio Input Tokens",
    "cached_image": "Cached Image Input Tokens",
    "cache_write": "Cache Write Tokens",
    "cache_write_5m": "Cache Write Tokens (5 Minutes)",
    "cache_write_1h": "Cache Write Tokens (1 Hour)",
    "cache_write_12h": "Cache Write Tokens (12 Hours)",
    "output": "Output Tokens",
    "output_audio": "Audio Output Tokens",
    "output_image": "Image Output Tokens",
    "character": "Characters of Speech",
    "second": "Seconds of Transcription",
    "image": "Images",
    "web_search": "Web Searches",
    "file_search": "File Searches",
    "code_session": "Code Interpreter Sessions",
}
#: What a price depends on beside model and meter: columns that pricing adds, and their names in words.
_TRAITS: Final = {
    "price_tier": "tier",
    "price_window": "context window",
    "price_geo": "inference geo",
    "price_speed": "speed",
}
_PRICED_BY: Final = ("price_model", *_TRAITS)
_CREDENTIAL: Final = "x_credential_id"


@dataclass(frozen=True, slots=True)
class AiService:
    """A provider in FOCUS's words; `sub_account`, `user` and `resource` are columns of its usage rows."""

    provider: str
    service: str
    account_type: str
    sub_account: str
    sub_account_type: str
    user: str
    resource: str | None = None
    resource_type: str | None = None


OPENAI: Final = AiService(
    "OpenAI",
    "OpenAI API",
    "Organization",
    "project_id",
    "Project",
    "user_id",
    resource="vector_store_id",
    resource_type="Vector Store",
)
ANTHROPIC: Final = AiService(
    "Anthropic", "Claude API", "Organization", "workspace_id", "Workspace", "account_id"
)


def convert(
    service: AiService, model: CostModel, usage: pa.Table, costs: pa.Table, book: PriceBook
) -> tuple[pa.Table, tuple[Finding, ...]]:
    """The charges of a unit, and a finding for each day and model whose usage nobody can price.

    `costs` is the cost table made of `usage`, row by row. Raises InternalError when it is not.
    """
    rows = _beside(model, usage, costs)
    priced = rows.filter(pl.col("pricing_status") == "PRICED")
    rates = _rates(priced, model.components, book)

    def converted(some: pl.DataFrame) -> pl.DataFrame:
        charges = pl.concat([_charges(some, rates, part) for part in model.components])
        return _described(charges, service, model)

    return in_slices(priced.iter_slices(ROWS_AT_ONCE), converted), _unpriced(
        rows, f"focus_{model.provider}_daily"
    )


def _beside(model: CostModel, usage: pa.Table, costs: pa.Table) -> pl.DataFrame:
    """Usage with its quantities and price keys, and behind it what it costs."""
    identity = ["usage_date", *model.dimensions, _CREDENTIAL]
    left, right = frame_of(usage), frame_of(costs)
    if left.height != right.height or not left.select(identity).equals(right.select(identity)):
        raise InternalError(f"{model.cost_table} is not made of the rows of {model.usage_table}.")
    amounts = [part.amount for part in model.components]
    return model.mapped(left).hstack(right.select(*amounts, "currency", "pricing_status", "price_id"))


def _rates(rows: pl.DataFrame, components: Sequence[Component], book: PriceBook) -> pl.DataFrame:
    """`{meter}_rate` as the organisation pays and `{meter}_list` as the list says, by KEYS."""
    meters = tuple(dict.fromkeys(part.meter for part in components))
    wanted = rows.select(KEYS).unique()
    listed = PriceBook(book.provider, [card for card in book.cards if not card.org_slug]).resolve(
        wanted, meters
    )
    own = book.resolve(wanted, meters).drop("price_id")
    names = {f"{meter}_rate": f"{meter}_list" for meter in meters}
    return own.join(listed.drop("price_id").rename(names), on=KEYS, how="left", nulls_equal=True)


def _charges(rows: pl.DataFrame, rates: pl.DataFrame, part: Component) -> pl.DataFrame:
    """The charges of one component: a row for each usage row that has any of it."""
    unit = UNITS.get(part.meter, "Tokens")
    million = unit in PER_MILLION
    per, share = (1_000_000, MILLIONTH) if million else (1_000, THOUSANDTH)
    found = rates.select(*KEYS, pl.col(f"{part.meter}_rate").alias("rate"), _listed(part).alias("listed"))
    whole = pl.col(part.quantity).cast(WHOLE)
    by = pl.lit(Decimal(per), dtype=WHOLE)
    listed_cost = (whole * pl.col("listed")).round(9, mode="half_to_even").cast(MONEY)
    return (
        rows.filter(pl.col(part.quantity) > 0)
        .join(found, on=KEYS, how="left", nulls_equal=True, maintain_order="left")
        .with_columns(
            pl.lit(part.meter).alias("meter"),
            whole.cast(MONEY).alias("ConsumedQuantity"),
            pl.lit(unit).alias("ConsumedUnit"),
            # A whole number times a fraction is exact; dividing is not.
            (whole * share).cast(MONEY).alias("PricingQuantity"),
            pl.lit(f"{per} {unit}").alias("PricingUnit"),
            (pl.col("rate") * by).cast(MONEY).alias("ContractedUnitPrice"),
            (pl.col("listed") * by).cast(MONEY).alias("ListUnitPrice"),
            *(pl.col(part.amount).alias(name) for name in ("BilledCost", "EffectiveCost", "ContractedCost")),
            # What only an organisation's own card prices is on no list: its own cost is all there is.
            pl.coalesce(listed_cost, part.amount).alias("ListCost"),
        )
    )


def _listed(part: Component) -> pl.Expr:
    return pl.col(f"{part.meter}_list")


def _described(charges: pl.DataFrame, service: AiService, model: CostModel) -> pl.DataFrame:
    """The columns that say what was charged, to whom and when."""
    names = _skus(charges)
    known = charges.join(
        names, on=[*_PRICED_BY, "meter"], how="left", nulls_equal=True, maintain_order="left"
    )
    sub_account, resource = pl.col(service.sub_account), pl.col(service.resource or "model")
    has_resource = resource.is_not_null() if service.resource else pl.lit(value=False)
    in_us = pl.col("price_geo") == "us"
    ids = charge_ids(known, ["usage_date", *model.dimensions, _CREDENTIAL, "meter"])
    return known.with_columns(
        ids,
        *constants(
            {
                "BillingAccountType": service.account_type,
                "ChargeCategory": "Usage",
                "ChargeFrequency": "Usage-Based",
                "PricingCategory": "Standard",
                "ServiceCategory": "AI and Machine Learning",
                "ServiceSubcategory": "Generative AI",
                "ServiceName": service.service,
                "x_Source": model.provider,
            }
        ),
        *parties(pl.lit(service.provider)),
        *day_period(pl.col("usage_date")),
        *month_period(pl.col("usage_date")),
        # The reports do not name the account; the credential is one account's.
        pl.col(_CREDENTIAL).alias("BillingAccountId"),
        pl.col("currency").alias("BillingCurrency"),
        sub_account.alias("SubAccountId"),
        # Nor do they give a project's name, and FOCUS wants one beside each id.
        sub_account.alias("SubAccountName"),
        pl.when(sub_account.is_not_null()).then(pl.lit(service.sub_account_type)).alias("SubAccountType"),
        pl.when(has_resource).then(resource).alias("ResourceId"),
        pl.when(has_resource).then(pl.lit(service.resource_type)).alias("ResourceType"),
        pl.when(in_us).then(pl.lit("us")).alias("RegionId"),
        pl.when(in_us).then(pl.lit("United States")).alias("RegionName"),
        pl.col("usage_date").alias("x_UsageDate"),
        pl.col("price_model").alias("x_Model"),
        pl.col("meter").alias("x_TokenKind"),
        pl.col("price_tier").alias("x_ServiceTier"),
        pl.col("api_key_id").alias("x_ApiKeyId"),
        pl.col(service.user).alias("x_UserId"),
        pl.col("price_id").alias("x_PriceId"),
    )


def _skus(charges: pl.DataFrame) -> pl.DataFrame:
    """Names of each distinct thing that is charged: few, so that they are put together one by one.

    A SKU is a model and a meter; what changes its price but not what it does is the SKU price's.
    """
    rows = []
    for row in charges.select(*_PRICED_BY, "meter").unique().iter_rows(named=True):
        model, meter = row["price_model"], row["meter"]
        sku = f"{model}/{meter}"
        traits = {name: row[column] for column, name in _TRAITS.items() if row[column] is not None}
        price = ";".join([sku, *(f"{name.replace(' ', '_')}={value}" for name, value in traits.items())])
        details = {"x_Model": model, "x_Meter": meter, **{f"x_{_pascal(n)}": v for n, v in traits.items()}}
        title = METER_NAMES.get(meter, meter)
        said = f"{model}: {title}" + "".join(f", {name} {value}" for name, value in traits.items())
        rows.append((*row.values(), sku, title, price, json.dumps(details, sort_keys=True), said))
    made = ("SkuId", "SkuMeter", "SkuPriceId", "SkuPriceDetails", "ChargeDescription")
    return pl.DataFrame(rows, schema=dict.fromkeys([*_PRICED_BY, "meter", *made], pl.String), orient="row")


def _pascal(name: str) -> str:
    return name.title().replace(" ", "")


def _unpriced(rows: pl.DataFrame, table: str) -> tuple[Finding, ...]:
    """What is no charge: BilledCost may not be NULL, and an invented 0 would say that it is free."""
    model = pl.col("price_model").fill_null("(no model)")
    groups = (
        rows.filter(pl.col("pricing_status") != "PRICED")
        .group_by("usage_date", model)
        .agg(pl.len().alias("rows"))
        .sort("usage_date", "price_model")
    )
    return tuple(
        Finding(
            code="unpriced_not_in_focus",
            subject=name,
            table=table,
            day=day,
            rows=count,
            detail="Nobody knows a price for this usage, so it is no charge; its rows are in the cost table.",
        )
        for day, name, count in groups.iter_rows()
    )

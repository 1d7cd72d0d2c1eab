"""Exact amounts: quantity x rate, rounded once half-even to 9 places, and sums of what was rounded.

Polars' decimals lose digits in silence when two fractional ones are multiplied or any are divided; here
one factor always is a whole number, so the product is exact, and overflow raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add, or_
from typing import Final

import polars as pl
from polars.exceptions import PolarsError

from engine.errors import DataError
from engine.prices.book import KEYS, PriceBook
from engine.types import Finding

GROUPS: Final = ("input_cost", "cached_input_cost", "cache_write_cost", "output_cost", "tool_cost")
QUANTITY = pl.Decimal(38, 0)
MONEY = pl.Decimal(38, 9)
CHUNK_ROWS = 500_000
_NO_CARD = -1
_KEY = "price_key"


@dataclass(frozen=True, slots=True)
class Component:
    """One thing that is charged: column `quantity` x `meter` = column `amount`, part of `group`."""

    amount: str
    quantity: str
    meter: str
    group: str


@dataclass(frozen=True, slots=True)
class Priced:
    """Usage rows with amounts, totals, `currency`, `pricing_status`, `price_id`; and what stayed unpriced."""

    rows: pl.DataFrame
    findings: tuple[Finding, ...]


def price_usage(
    usage: pl.DataFrame,
    book: PriceBook,
    components: Sequence[Component],
    *,
    table: str,
    identity: Sequence[str],
) -> Priced:
    """Price usage rows that carry KEYS and the components' Int64 quantities; null is absent.

    Raises DataError for a negative quantity (naming it and the row's `identity` columns) and for an
    amount beyond 29 digits before the point.
    """
    refuse_negative(usage, sorted({part.quantity for part in components}), identity=identity)
    meters = tuple(dict.fromkeys(part.meter for part in components))
    keyed = usage.with_columns(_key(usage))
    wanted = keyed.unique(_KEY, keep="any").select(_KEY, *KEYS)
    resolved = wanted.join(book.resolve(wanted, meters), on=KEYS, nulls_equal=True).drop(KEYS).lazy()
    # Slices bound the memory of the joined rates; an empty table still yields its columns.
    slices = list(keyed.iter_slices(CHUNK_ROWS)) or [keyed]
    try:
        rows = pl.concat(
            with_amounts(part.lazy(), resolved, components, currency=book.currency).collect()
            for part in slices
        )
    except PolarsError as error:
        raise DataError(
            f"{table}: an amount does not fit 29 digits: {error}", fix="Check the usage rows' counts."
        ) from error
    return Priced(rows.drop("lacking", _KEY), _findings(rows, components, table))


def with_amounts(
    usage: pl.LazyFrame, resolved: pl.LazyFrame, components: Sequence[Component], *, currency: str
) -> pl.LazyFrame:
    """Join each row to the rates of its _KEY and add amounts; `lacking` says what keeps it UNPRICED."""
    priced = pl.col("lacking") == 0
    return (
        usage.join(resolved, on=_KEY, how="left", maintain_order="left")
        .with_columns(_lacking(components).alias("lacking"))
        .with_columns(pl.when(priced).then(_amount(part)).alias(part.amount) for part in components)
        .with_columns(_group(group, components, priced) for group in GROUPS)
        .with_columns(
            _sum(GROUPS).alias("total_cost"),
            pl.lit(currency).alias("currency"),
            pl.when(priced).then(pl.lit("PRICED")).otherwise(pl.lit("UNPRICED")).alias("pricing_status"),
            pl.when(priced).then(pl.col("price_id")).alias("price_id"),
        )
        .drop({f"{part.meter}_rate" for part in components})
    )


def _key(usage: pl.DataFrame) -> pl.Series:
    """One whole number for each distinct row of KEYS: joining on six columns is five times slower."""
    key = pl.zeros(usage.height, dtype=pl.Int64, eager=True)
    room = 1
    for name in KEYS:
        code, places = _code(usage[name])
        key = key * places + code
        room *= places
    if room > 2**63:
        raise DataError(
            "The usage rows name too many distinct models, tiers and days.", fix="Price fewer days at once."
        )
    return key.alias(_KEY)


def _code(column: pl.Series) -> tuple[pl.Series, int]:
    """Whole numbers from 0 for a column's values, null last, and how many there are."""
    if column.dtype == pl.Date:
        days = column.to_physical().cast(pl.Int64)
        first, last = days.min() or 0, days.max() or 0
        places = int(last) - int(first) + 1  # type: ignore[arg-type]  # whole numbers, typed as any literal
        return (days - first).fill_null(places), places + 1
    names = column.unique().drop_nulls()
    return column.cast(pl.Enum(names)).to_physical().cast(pl.Int64).fill_null(len(names)), len(names) + 1


def _amount(part: Component) -> pl.Expr:
    whole = pl.col(part.quantity).fill_null(0).cast(QUANTITY)
    # A missing rate is harmless as 0: a nonzero quantity of it leaves the whole row UNPRICED.
    exact = whole * pl.col(f"{part.meter}_rate").fill_null(0)
    return exact.round(9, mode="half_to_even").cast(MONEY)


def _group(group: str, components: Sequence[Component], priced: pl.Expr) -> pl.Expr:
    parts = [part.amount for part in components if part.group == group]
    total = _sum(parts) if parts else pl.when(priced).then(pl.lit(0, dtype=MONEY))
    return total.alias(group)


def _sum(amounts: Sequence[str]) -> pl.Expr:
    return reduce(add, (pl.col(amount) for amount in amounts))


def _lacking(components: Sequence[Component]) -> pl.Expr:
    """One bit per component that has a quantity and no rate; _NO_CARD when no card answers at all."""

    def lacks(part: Component) -> pl.Expr:
        return (pl.col(part.quantity).fill_null(0) != 0) & pl.col(f"{part.meter}_rate").is_null()

    bits = [lacks(part).cast(pl.Int32) * (1 << bit) for bit, part in enumerate(components)]
    return pl.when(pl.col("price_id").is_null()).then(_NO_CARD).otherwise(reduce(add, bits))


def refuse_negative(usage: pl.DataFrame, quantities: Sequence[str], *, identity: Sequence[str]) -> None:
    """Raise DataError naming the column and the identity of the first row that has less than nothing."""
    lowest = usage.select(pl.col(quantities).min()).row(0) if usage.height else ()
    for quantity, least in zip(quantities, lowest, strict=False):
        if least is not None and least < 0:
            row = usage.filter(pl.col(quantity) < 0).select(*identity, quantity).row(0, named=True)
            where = ", ".join(f"{name}={row[name]}" for name in identity if row[name] is not None)
            raise DataError(
                f"{quantity} is {row[quantity]}, less than nothing, in the row {where}.",
                fix="Ask the provider; nothing was published.",
                field=quantity,
            )


def _findings(rows: pl.DataFrame, components: Sequence[Component], table: str) -> tuple[Finding, ...]:
    model, tier = pl.col("price_model").fill_null("(no model)"), pl.col("price_tier").fill_null("(no tier)")
    groups = (
        rows.filter(pl.col("lacking") != 0)
        .group_by("usage_date", model, tier)
        .agg(pl.len().alias("rows"), pl.col("lacking").unique().sort())
        .sort("usage_date", "price_model", "price_tier")
    )
    return tuple(
        Finding(
            code="unpriced_model",
            subject=f"{name} / {level}",
            table=table,
            day=day,
            rows=count,
            detail=_reason(lacking, components),
        )
        for day, name, level, count, lacking in groups.iter_rows()
    )


def _reason(lacking: Sequence[int], components: Sequence[Component]) -> str:
    if _NO_CARD in lacking:
        return "No rate card answers for this model, tier, context window, geography and speed on this day."
    together = reduce(or_, lacking)
    missing = sorted({part.meter for bit, part in enumerate(components) if together >> bit & 1})
    return f"The rate card has no rate for: {', '.join(missing)}."

"""The rules of FOCUS, held against charges before they are published; the names are those of the rules."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl
import pyarrow as pa

from engine.errors import AuditError
from engine.focus.columns import ALLOWED, COLUMNS, CUSTOM, NAMES
from engine.focus.exact import product
from engine.focus.services import PAIRS
from engine.focus.shape import frame_of

SHOWN: Final = 3
#: Polars copies text out of Arrow, so that only a part of the charges is there twice.
ROWS_AT_ONCE: Final = 50_000
_COSTS: Final = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")
#: What a column needs beside it: where the first is NULL so is the second; where it is not, nor is that.
PARTNERS: Final = (
    ("ConsumedQuantity", "ConsumedUnit"),
    ("PricingQuantity", "PricingUnit"),
    ("SubAccountId", "SubAccountName"),
    ("SubAccountId", "SubAccountType"),
    ("RegionId", "RegionName"),
    ("ResourceId", "ResourceType"),
    ("CommitmentDiscountId", "CommitmentDiscountType"),
    ("CommitmentDiscountId", "CommitmentDiscountCategory"),
)
#: Where the first is NULL, so is the second.
FOLLOWERS: Final = (
    ("SkuId", "SkuMeter"),
    ("SkuId", "SkuPriceId"),
    ("SkuPriceId", "SkuPriceDetails"),
    ("ResourceId", "ResourceName"),
    ("CommitmentDiscountId", "CommitmentDiscountName"),
)
#: Each of the first has one of the second.
PARENTS: Final = (("ServiceName", "ServiceCategory"), ("SkuPriceId", "SkuId"))
NOT_ON_TAX: Final = (
    "SkuId",
    "SkuPriceId",
    "PricingQuantity",
    "PricingCategory",
    "ListUnitPrice",
    "ContractedUnitPrice",
)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of one column; `broken` is true for the rows that break it."""

    name: str
    column: str
    broken: pl.Expr


def check(charges: pa.Table, *, table: str) -> None:
    """Refuse charges that are no FOCUS data.

    Raises AuditError naming the table, the rule, the column and the first offending values.
    """
    expected = [*NAMES, *(name for name, _, _ in CUSTOM)]
    if charges.column_names != expected:
        odd = sorted(set(charges.column_names) ^ set(expected)) or ["their order"]
        raise _failure(table, "columns", ", ".join(odd), "the columns are not FOCUS's and Manta's in order")
    rules = list(_rules())
    pairs: dict[tuple[str, str], list[pl.DataFrame]] = {parents: [] for parents in PARENTS}
    for start in range(0, charges.num_rows, ROWS_AT_ONCE):
        rows = frame_of(charges.slice(start, ROWS_AT_ONCE))
        _each(rows, rules, table)
        _objects(rows, table)
        for parents, found in pairs.items():
            found.append(rows.select(parents).drop_nulls().unique())
    for (child, parent), found in pairs.items():
        if found:
            _one_parent(pl.concat(found).unique(), table, child, parent)


def _each(rows: pl.DataFrame, rules: Sequence[Rule], table: str) -> None:
    counts = rows.select(
        rule.broken.fill_null(value=False).sum().alias(str(n)) for n, rule in enumerate(rules)
    ).row(0)
    for rule, count in zip(rules, counts, strict=True):
        if count:
            found = rows.filter(rule.broken).get_column(rule.column).head(SHOWN).to_list()
            raise _failure(table, rule.name, rule.column, f"{count} rows, the first with {_shown(found)}")


def reconcile(charges: pa.Table, costs: pa.Table, *, table: str, column: str, by: str = "BilledCost") -> None:
    """Refuse charges whose `by` does not sum, per day and currency, to `column` of the cost rows.

    NULL costs are nobody's and sum to nothing. Raises AuditError naming the day and both sums.
    """
    ours = _sums(charges, "x_UsageDate", "BillingCurrency", by).rename({"amount": "charged"})
    theirs = _sums(costs, "usage_date", "currency", column).rename({"amount": "cost"})
    zero = pl.lit(0, dtype=pl.Decimal(38, 9))
    both = ours.join(theirs, on=["day", "currency"], how="full", coalesce=True).with_columns(
        pl.col("charged", "cost").fill_null(zero)
    )
    off = both.filter(pl.col("charged") != pl.col("cost")).sort("day", "currency")
    if off.height:
        day, currency, charged, cost = off.select("day", "currency", "charged", "cost").row(0)
        said = f"on {day} the charges sum to {charged} {currency}, and {column} to {cost}"
        raise _failure(table, "sum", by, said)


def _sums(table: pa.Table, day: str, currency: str, amount: str) -> pl.DataFrame:
    frame = frame_of(table.select([day, currency, amount]))
    return frame.group_by(
        pl.col(day).cast(pl.Date).alias("day"), pl.col(currency).cast(pl.String).alias("currency")
    ).agg(pl.col(amount).cast(pl.Decimal(38, 9)).sum().alias("amount"))


def _rules() -> Iterator[Rule]:
    yield from _values()
    yield from _companions()
    yield from _charges()


def _values() -> Iterator[Rule]:
    required = [c.name for c in COLUMNS if not c.nullable] + [n for n, _, nullable in CUSTOM if not nullable]
    for name in required:
        yield Rule("not null", name, pl.col(name).is_null())
    texts = [c.name for c in COLUMNS if c.kind == "STRING"] + [n for n, kind, _ in CUSTOM if kind == "STRING"]
    for name in texts:
        yield Rule("NULL for nothing", name, pl.col(name) == "")
    for name, values in ALLOWED.items():
        yield Rule("allowed values", name, ~pl.col(name).is_in(values))
    pair = pl.concat_str("ServiceCategory", "ServiceSubcategory", separator="\n")
    allowed = ["\n".join(found) for found in sorted(PAIRS)]
    yield Rule("category of the subcategory", "ServiceSubcategory", ~pair.is_in(allowed))
    for name in ("BillingCurrency",):
        yield Rule("currency code", name, ~pl.col(name).str.contains(r"^[A-Z]{3}$"))
    for period in ("BillingPeriod", "ChargePeriod"):
        end = pl.col(f"{period}End")
        yield Rule("exclusive end", f"{period}End", end <= pl.col(f"{period}Start"))
    for name in ("ListUnitPrice", "ContractedUnitPrice"):
        yield Rule("not negative", name, pl.col(name) < 0)


def _companions() -> Iterator[Rule]:
    for name, partner in PARTNERS:
        yield Rule(f"goes with {name}", partner, pl.col(name).is_null() != pl.col(partner).is_null())
    for name, follower in FOLLOWERS:
        yield Rule(f"NULL without {name}", follower, pl.col(name).is_null() & pl.col(follower).is_not_null())


def _charges() -> Iterator[Rule]:
    """Rules that hang on what kind of charge a row is."""
    category, correction = pl.col("ChargeCategory"), pl.col("ChargeClass").is_not_null()
    bought = category.is_in(["Usage", "Purchase"]) & ~correction
    for name in NOT_ON_TAX:
        yield Rule("NULL on a tax", name, (category == "Tax") & pl.col(name).is_not_null())
    yield Rule("NULL but on usage", "ConsumedQuantity", (category != "Usage") & _known("ConsumedQuantity"))
    yield Rule("named on usage and purchases", "PricingCategory", bought & ~_known("PricingCategory"))
    frequency = pl.col("ChargeFrequency")
    yield Rule("no purchase", "ChargeFrequency", (category == "Purchase") & (frequency == "Usage-Based"))
    # Each purchase we have pays for days to come, which carry its cost.
    yield Rule(
        "0 on a prepayment", "EffectiveCost", (category == "Purchase") & (pl.col("EffectiveCost") != 0)
    )
    for name in _COSTS[1:]:
        yield Rule(
            "BilledCost on a credit", name, (category == "Credit") & (pl.col(name) != pl.col(_COSTS[0]))
        )
    third = pl.col("ProviderName") != pl.col("InvoiceIssuerName")
    yield Rule("0 where another is paid", "BilledCost", third & (pl.col("BilledCost") != 0))
    for kind in ("List", "Contracted"):
        amount = product(pl.col(f"{kind}UnitPrice"), pl.col("PricingQuantity"))
        yield Rule("unit price x quantity", f"{kind}Cost", ~correction & (amount != pl.col(f"{kind}Cost")))


def _known(name: str) -> pl.Expr:
    return pl.col(name).is_not_null()


def _one_parent(pairs: pl.DataFrame, table: str, child: str, parent: str) -> None:
    twice = pairs.filter(pl.col(child).is_duplicated()).sort(child, parent)
    if twice.height:
        shown = _shown(twice.head(SHOWN).rows())
        raise _failure(table, f"one {parent} each", child, shown)


def _objects(rows: pl.DataFrame, table: str) -> None:
    """JSON columns hold one flat object; keys of SkuPriceDetails that are not FOCUS's begin with x_."""
    for column in (c.name for c in COLUMNS if c.json):
        for text in rows.get_column(column).drop_nulls().unique().to_list():
            try:
                held = json.loads(text)
            except json.JSONDecodeError:
                held = None
            flat = isinstance(held, dict) and not any(isinstance(v, dict | list) for v in held.values())
            if not flat:
                raise _failure(table, "key-value", column, text[:80])
            if column == "SkuPriceDetails" and any(not key.startswith("x_") for key in held):
                raise _failure(table, "x_ keys", column, text[:80])


def _shown(values: Sequence[object]) -> str:
    return ", ".join(str(value)[:80] for value in values)


def _failure(table: str, rule: str, column: str, what: str) -> AuditError:
    return AuditError(
        f"{table}: FOCUS rule {rule} failed on {column}: {what}. Nothing was published.",
        fix="Correct the conversion; the published partitions stay as they were.",
        field=column,
    )

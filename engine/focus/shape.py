"""What every conversion ends with: all columns in their order and types, billing months, ids of charges."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import polars as pl
import pyarrow as pa

from engine.errors import InternalError
from engine.focus.columns import COLUMNS, CUSTOM
from engine.schemas import ARROW_TYPES

MONEY: Final = pl.Decimal(38, 9)
WHOLE: Final = pl.Decimal(38, 0)
UTC_US: Final = pl.Datetime("us", "UTC")

ROWS_AT_ONCE: Final = 25_000
PRICING_CURRENCY: Final = {
    "PricingCurrency": "BillingCurrency",
    "PricingCurrencyContractedUnitPrice": "ContractedUnitPrice",
    "PricingCurrencyEffectiveCost": "EffectiveCost",
    "PricingCurrencyListUnitPrice": "ListUnitPrice",
}

ARROW: Final = pa.schema(
    [
        *(pa.field(c.name, ARROW_TYPES[c.kind], nullable=c.nullable) for c in COLUMNS),
        *(pa.field(name, ARROW_TYPES[kind], nullable=nullable) for name, kind, nullable in CUSTOM),
    ]
)


def _repeats(name: str, kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind)) and name != "x_ChargeId"


#: The same with text by its spellings, as conversions answer it: most columns say few things many times.
CODED: Final = pa.schema(
    # Nullable, so that a check and no cast finds what is missing.
    pa.field(name, pa.dictionary(pa.int32(), pa.string()) if _repeats(name, kind) else kind)
    for name, kind in zip(ARROW.names, ARROW.types, strict=True)
)
_POLARS: Final[dict[str, pl.DataType]] = {
    "STRING": pl.String(),
    "NUMERIC": MONEY,
    "TIMESTAMP": UTC_US,
    "DATE": pl.Date(),
}


def in_slices(slices: Iterable[pl.DataFrame], convert: Callable[[pl.DataFrame], pl.DataFrame]) -> pa.Table:
    """What `convert` makes of rows, some at a time: a charge has 80 columns, and on the way many more."""
    parts = [CODED.empty_table(), *(shaped(convert(part)) for part in slices)]
    return pa.concat_tables(parts).unify_dictionaries()


def slices_of(table: pa.Table) -> Iterator[pl.DataFrame]:
    """An Arrow table in parts that `in_slices` takes."""
    for start in range(0, table.num_rows, ROWS_AT_ONCE):
        yield frame_of(table.slice(start, ROWS_AT_ONCE))


def frame_of(table: pa.Table) -> pl.DataFrame:
    """An Arrow table for Polars, which copies its text; text that is coded by a dictionary is text again."""
    columns = {
        name: table[name].cast(kind.value_type) if pa.types.is_dictionary(kind) else table[name]
        for name, kind in zip(table.column_names, table.schema.types, strict=True)
    }
    frame = pl.from_arrow(pa.table(columns))
    if not isinstance(frame, pl.DataFrame):
        raise InternalError("A table became a series.")
    return frame


def shaped(rows: pl.DataFrame) -> pa.Table:
    """The rows as a table of `CODED`; a column that they lack is NULL, one that FOCUS lacks is left out.

    All our prices are in the currency of the bill, and so are the columns of the pricing currency.
    """
    rows = rows.with_columns(
        pl.col(name).alias(column) for column, name in PRICING_CURRENCY.items() if name in rows.columns
    )
    kinds = {c.name: c.kind for c in COLUMNS} | {name: kind for name, kind, _ in CUSTOM}
    columns = [
        (pl.col(name) if name in rows.columns else pl.lit(None)).cast(_POLARS[kind]).alias(name)
        for name, kind in kinds.items()
    ]
    table = rows.select(columns).to_arrow()
    coded = []
    for field in CODED:
        values = table[field.name].cast(ARROW.field(field.name).type)
        coded.append(values.dictionary_encode() if pa.types.is_dictionary(field.type) else values)
    return pa.table(coded, schema=CODED)


def constants(values: Mapping[str, str | None]) -> list[pl.Expr]:
    """Columns that say the same in each row."""
    return [pl.lit(value, dtype=pl.String).alias(name) for name, value in values.items()]


def parties(name: pl.Expr, *, sold_by: pl.Expr | None = None) -> list[pl.Expr]:
    """Who provides, hosts and invoices; the same company publishes and sells, unless `sold_by` is another."""
    seller = name if sold_by is None else sold_by
    return [
        *(name.alias(role) for role in ("ProviderName", "HostProviderName", "InvoiceIssuerName")),
        *(seller.alias(role) for role in ("PublisherName", "ServiceProviderName")),
    ]


def midnight(day: pl.Expr) -> pl.Expr:
    """The instant a UTC day begins."""
    return day.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def day_period(day: pl.Expr) -> list[pl.Expr]:
    """The charge period of a UTC day; its end is the next day's beginning."""
    return [
        midnight(day).alias("ChargePeriodStart"),
        midnight(day.dt.offset_by("1d")).alias("ChargePeriodEnd"),
    ]


def month_period(day: pl.Expr) -> list[pl.Expr]:
    """The billing period of the UTC month that a day lies in."""
    first = day.dt.truncate("1mo")
    return [
        midnight(first).alias("BillingPeriodStart"),
        midnight(first.dt.offset_by("1mo")).alias("BillingPeriodEnd"),
    ]


def charge_ids(rows: pl.DataFrame, parts: Sequence[str]) -> pl.Series:
    """One id per distinct combination of `parts`: the first 32 hex digits of a SHA-256.

    The parts are hashed as JSON, so that no value can be taken for two, nor NULL for a word.
    """
    texts = rows.select(pl.struct(parts).struct.json_encode()).to_series()
    ids = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in texts]
    return pl.Series("x_ChargeId", ids, dtype=pl.String)


def with_tags(rows: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The rows with `Tags`: a JSON object of these columns, or NULL where all are. Each set is made once."""
    sets = rows.select(names).unique()
    made = [
        json.dumps({k: v for k, v in row.items() if v}, sort_keys=True, ensure_ascii=False)
        for row in sets.iter_rows(named=True)
    ]
    known = sets.with_columns(pl.Series("Tags", [text if text != "{}" else None for text in made], pl.String))
    return rows.join(known, on=list(names), how="left", nulls_equal=True, maintain_order="left")

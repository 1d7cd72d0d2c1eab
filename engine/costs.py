"""What was spent, per group, beside the equally long period before: the query behind every cost report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Literal, get_args

import pyarrow as pa

from engine.errors import NotFoundError, UsageError
from engine.schemas import Schema
from engine.warehouse import Warehouse

Grouping = Literal["provider", "model", "project", "api_key", "day"]
GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)
#: The columns that a provider may call its project or API key; the first one the table has counts.
DIMENSIONS: Mapping[str, tuple[str, ...]] = {
    "project": ("project_id", "workspace_id"),
    "api_key": ("api_key_id",),
}
MONEY = pa.decimal128(38, 9)
#: `key` is NULL where the provider names none; a day is written YYYY-MM-DD. `cost_before` is the period
#: before (by day: the same day one period earlier). Unpriced tokens and rows are not in `cost`.
SPEND = pa.schema(
    [
        pa.field("provider", pa.string(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("currency", pa.string(), nullable=False),
        pa.field("cost", MONEY, nullable=False),
        pa.field("cost_before", MONEY, nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("unpriced_tokens", pa.int64(), nullable=False),
        pa.field("unpriced_rows", pa.int64(), nullable=False),
    ]
)
#: Wide enough for the sum of any number of NUMERICs: adding up never rounds.
EXACT = Context(prec=76)
TENTH = Decimal("0.1")


@dataclass(frozen=True, slots=True)
class Total:
    """A sum over groups of one currency."""

    currency: str
    cost: Decimal
    cost_before: Decimal
    tokens: int
    unpriced_tokens: int
    unpriced_rows: int


def cost_tables(schemas: Mapping[str, Schema], providers: Iterable[str]) -> dict[str, Schema]:
    """The `{provider}_cost_daily` schema of each provider that has one."""
    return {name: schemas[f"{name}_cost_daily"] for name in providers if f"{name}_cost_daily" in schemas}


def check_period(since: date, until: date, *, today: date) -> None:
    """Refuse a period that cannot be meant. Raises UsageError naming the field."""
    if until < since:
        raise UsageError(
            f"--until {until} lies before --since {since}.", fix="Swap --since and --until.", field="until"
        )
    if since > today:
        raise UsageError(
            f"--since {since} is in the future: today is {today}.", fix="Use an earlier day.", field="since"
        )
    if until - since >= since - date.min:
        raise UsageError(
            f"--since {since}: no calendar has an equally long period before it to compare with.",
            fix="Use a later --since.",
            field="since",
        )


def spend(
    warehouse: Warehouse, *, since: date, until: date, by: Grouping, providers: Mapping[str, Schema]
) -> pa.Table:
    """What one tenant spent from `since` to `until` (both included), as a `SPEND` table.

    `providers` maps each provider to the schema of its cost table (`cost_tables`); a table that the tenant
    does not have contributes nothing. Sorted by cost, highest first; `by="day"` is sorted by day.
    """
    parts = [
        part
        for schema in providers.values()
        if (part := _of_table(warehouse, schema, since=since, until=until, by=by)) is not None
    ]
    found = pa.concat_tables(parts) if parts else SPEND.empty_table()
    first = [("key", "ascending")] if by == "day" else [("cost", "descending")]
    return found.sort_by([*first, ("provider", "ascending"), ("key", "ascending")])


def _of_table(
    warehouse: Warehouse, schema: Schema, *, since: date, until: date, by: Grouping
) -> pa.Table | None:
    length = (until - since).days + 1
    parameters: dict[str, object] = {
        "since": since,
        "until": until,
        "before": since - timedelta(days=length),
    }
    if by == "day":
        parameters["length"] = length
    purpose = f"spend-by-{by.replace('_', '-')}"
    try:
        found = warehouse.query(statement(schema, by=by), parameters, purpose=purpose)
    except NotFoundError:
        # Never loaded for this tenant: zero rows, not an error.
        return None
    return found.select(SPEND.names).cast(SPEND)


def statement(schema: Schema, *, by: Grouping) -> str:
    """The SQL for one cost table; parameters are since, until, before, and by day also length (days)."""
    tokens = _tokens(schema)
    now = "usage_date >= @since"
    unpriced = f"{now} AND pricing_status = 'UNPRICED'"
    return f"""
SELECT provider, {_key(schema, by)} AS key, currency,
  COALESCE(SUM(IF({now}, total_cost, NULL)), NUMERIC '0') AS cost,
  COALESCE(SUM(IF({now}, NULL, total_cost)), NUMERIC '0') AS cost_before,
  CAST(COALESCE(SUM(IF({now}, {tokens}, 0)), 0) AS INT64) AS tokens,
  CAST(COALESCE(SUM(IF({unpriced}, {tokens}, 0)), 0) AS INT64) AS unpriced_tokens,
  COUNTIF({unpriced}) AS unpriced_rows
FROM {schema.table}
WHERE usage_date BETWEEN @before AND @until
GROUP BY provider, key, currency"""


def _key(schema: Schema, by: Grouping) -> str:
    names = {column.name for column in schema.columns}
    if by == "provider":
        return "CAST(NULL AS STRING)"
    if by == "day":
        shifted = "DATE_ADD(usage_date, INTERVAL @length DAY)"
        return f"CAST(IF(usage_date >= @since, usage_date, {shifted}) AS STRING)"
    if by == "model":
        # Storage and tool sessions have no model; what they are stands in the endpoint.
        return "COALESCE(model, CONCAT('(', endpoint, ')'))" if "endpoint" in names else "model"
    return next((name for name in DIMENSIONS[by] if name in names), "CAST(NULL AS STRING)")


def _tokens(schema: Schema) -> str:
    """All tokens of a row. Where `input_tokens` is the whole, its parts must not count again."""
    names = [column.name for column in schema.columns if column.name.endswith("_tokens")]
    chosen = ["input_tokens", "output_tokens"] if "input_tokens" in names else names
    return " + ".join(f"COALESCE({name}, 0)" for name in chosen) or "0"


def totals(tables: Iterable[pa.Table]) -> list[Total]:
    """One exact sum per currency of `SPEND` tables; currencies are never added up."""
    sums: dict[str, Total] = {}
    for row in (row for table in tables for row in table.to_pylist()):
        so_far = sums.get(row["currency"]) or Total(row["currency"], Decimal(0), Decimal(0), 0, 0, 0)
        sums[row["currency"]] = Total(
            row["currency"],
            EXACT.add(so_far.cost, row["cost"]),
            EXACT.add(so_far.cost_before, row["cost_before"]),
            so_far.tokens + row["tokens"],
            so_far.unpriced_tokens + row["unpriced_tokens"],
            so_far.unpriced_rows + row["unpriced_rows"],
        )
    return [sums[currency] for currency in sorted(sums)]


def change_percent(cost: Decimal, before: Decimal) -> Decimal | None:
    """The change against the period before in percent, to a tenth; None when nothing was spent then."""
    if not before:
        return None if cost else Decimal("0.0")
    share = EXACT.divide(EXACT.multiply(EXACT.subtract(cost, before), Decimal(100)), before)
    return share.quantize(TENTH, rounding=ROUND_HALF_EVEN, context=EXACT)

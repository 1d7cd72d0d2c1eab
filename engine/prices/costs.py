"""A provider's daily usage as its daily costs: what every cost processor shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from engine.errors import ConfigurationError, InternalError
from engine.prices.book import PriceBook
from engine.prices.money import GROUPS, Component, Priced, price_usage

_MONEY = pa.decimal128(38, 9)
_CREDENTIAL = "x_credential_id"


@dataclass(frozen=True, slots=True)
class CostModel:
    """How one provider charges for its usage rows.

    `mapped` adds the price keys (engine.prices.book.KEYS without the day) and the components' quantities;
    `dimensions` with the credential make a row unique, `counts` are carried over as they are.
    """

    provider: str
    usage_table: str
    cost_table: str
    dimensions: Sequence[str]
    counts: Sequence[str]
    components: Sequence[Component]
    mapped: Callable[[pl.DataFrame], pl.DataFrame]

    @property
    def amounts(self) -> tuple[str, ...]:
        """Every column of money: details, the five shared amounts, their total."""
        details = [part.amount for part in self.components if part.amount not in GROUPS]
        return (*details, *GROUPS, "total_cost")


def costs(model: CostModel, usage: pa.Table, book: PriceBook) -> tuple[pa.Table, Priced]:
    """The cost table of a usage table: one row each, in its order.

    Raises DataError for counts that contradict each other.
    """
    frame = pl.from_arrow(usage)
    if not isinstance(frame, pl.DataFrame):
        raise InternalError(f"{model.usage_table} is no table.", fix="Report this.")
    identity = ("usage_date", *model.dimensions, _CREDENTIAL)
    priced = price_usage(
        model.mapped(frame), book, model.components, table=model.cost_table, identity=identity
    )
    rows = priced.rows.with_columns(pl.lit(model.provider).alias("provider")).to_arrow()
    kept = ("usage_date", "provider", *model.dimensions, *model.counts)
    fields = [
        *(
            pa.field(name, pa.string() if name == "provider" else usage.schema.field(name).type)
            for name in kept
        ),
        *(pa.field(name, _MONEY) for name in model.amounts),
        *(pa.field(name, pa.string()) for name in ("currency", "pricing_status", "price_id", _CREDENTIAL)),
    ]
    return rows.select([field.name for field in fields]).cast(pa.schema(fields)), priced


class CostProcessor:
    """The processor of a cost model: the usage step's table times the price book."""

    def __init__(self, model: CostModel) -> None:
        self.model = model

    async def execute(self, step_config: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the cost table, a finding per unpriced model and day, and how many rows stayed unpriced."""
        model = self.model
        if step_config:
            raise ConfigurationError(
                f"{model.provider}.cost has no settings, but its config names {', '.join(step_config)}.",
                fix="Remove the step's `config`.",
            )
        usage = context["tables"].get(model.usage_table)
        if usage is None:
            raise ConfigurationError(
                f"No earlier step made the table {model.usage_table}.",
                fix=f"Put a step with ps_type {model.provider}.usage before the cost step.",
            )
        days = context["dates"]
        table, priced = costs(model, usage, context["prices"](model.provider, days[0], days[-1]))
        unpriced = sum(finding.rows for finding in priced.findings)
        context["log"].info("cost.priced", provider=model.provider, rows=table.num_rows, unpriced=unpriced)
        return {
            "status": "SUCCESS",
            "tables": {model.cost_table: table},
            "metrics": {"rows": table.num_rows, "rows_unpriced": unpriced},
            "findings": priced.findings,
            "error": None,
        }

"""`focus.convert`: a source's daily costs as charges of FOCUS 1.3, one table for each source."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from engine.errors import ConfigurationError
from engine.focus import ai, gcp, saas
from engine.focus.checks import check, reconcile
from engine.prices.costs import CostModel
from engine.types import Finding
from processors.anthropic.cost import MODEL as ANTHROPIC
from processors.openai.cost import MODEL as OPENAI

PS_TYPE = "focus.convert"
Source = Literal["openai", "anthropic", "gcp", "saas_subscription"]
Charges = tuple[pa.Table, tuple[Finding, ...]]

GCP_TABLE = "gcp_billing_daily_raw"
SAAS_TABLE = "saas_subscription_plan_costs_daily"
TABLES: Mapping[Source, str] = {
    "openai": "focus_openai_daily",
    "anthropic": "focus_anthropic_daily",
    "gcp": "focus_gcp_daily",
    "saas_subscription": "focus_saas_subscription_daily",
}
AI: Mapping[str, tuple[ai.AiService, CostModel]] = {
    "openai": (ai.OPENAI, OPENAI),
    "anthropic": (ai.ANTHROPIC, ANTHROPIC),
}


class ConvertConfig(BaseModel):
    """Keys of the step's config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Whose costs these are; earlier steps made their tables.
    source: Source


class Convert:
    """Makes `focus_{source}_daily` of the tables that earlier steps of the unit made."""

    #: `manta validate` checks a step's config against it.
    config_model = ConvertConfig

    async def execute(self, step_config: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the charges, and findings for costs that are none.

        Raises AuditError for charges that break a rule of FOCUS or do not sum to the costs.
        """
        try:
            source = ConvertConfig.model_validate(step_config).source
        except ValidationError as error:
            raise ConfigurationError(
                f"{PS_TYPE} config: {error.errors()[0]['msg']}.",
                fix="Name one source: openai, anthropic, gcp or saas_subscription.",
                field="config.source",
            ) from error
        charges, findings = await asyncio.to_thread(_converted, source, context)
        rows = charges.num_rows
        context["log"].info("focus.converted", source=source, rows=rows, findings=len(findings))
        return {
            "status": "SUCCESS",
            "tables": {TABLES[source]: charges},
            "metrics": {"rows": rows, "rows_unpriced": sum(finding.rows for finding in findings)},
            "findings": findings,
            "error": None,
        }


def _converted(source: Source, context: Mapping[str, Any]) -> Charges:
    table = TABLES[source]
    findings: tuple[Finding, ...] = ()
    if source == "gcp":
        costs = _made(context, GCP_TABLE)
        charges = gcp.convert(costs)
        reconcile(charges, costs, table=table, column="net_cost")
    elif source == "saas_subscription":
        costs = _made(context, SAAS_TABLE)
        charges = saas.convert(costs)
        reconcile(charges, costs, table=table, column="charge_amount")
        reconcile(charges, costs, table=table, column="total_cost", by="EffectiveCost")
    else:
        service, model = AI[source]
        usage, costs = _made(context, model.usage_table), _made(context, model.cost_table)
        days = context["dates"]
        book = context["prices"](source, days[0], days[-1])
        charges, findings = ai.convert(service, model, usage, costs, book)
        reconcile(charges, costs, table=table, column="total_cost")
    check(charges, table=table)
    return charges, findings


def _made(context: Mapping[str, Any], table: str) -> pa.Table:
    found = context["tables"].get(table)
    if not isinstance(found, pa.Table):
        raise ConfigurationError(
            f"No earlier step made the table {table}.",
            fix=f"Put the step that makes {table} before the one with ps_type {PS_TYPE}.",
            field="config.source",
        )
    return found


def get_engine() -> Convert:
    """Return the processor."""
    return Convert()

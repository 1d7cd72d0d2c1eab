"""`focus.convert`: from the tables of earlier steps to a table that may be published."""

from __future__ import annotations

import re
from datetime import timedelta
from logging import getLogger
from typing import Any

import pytest

from engine.checks import audit
from engine.errors import AuditError, ConfigurationError
from engine.types import Unit
from engine.unit import add_lineage
from processors.anthropic.cost import MODEL as ANTHROPIC
from processors.focus.convert import ConvertConfig, get_engine
from processors.openai.cost import MODEL as OPENAI
from tests.focus import rows

DAYS = tuple(rows.FIRST + timedelta(days=n) for n in range(3))


class Log:
    def info(self, event: str, **fields: object) -> None:
        getLogger("test").info("%s %s", event, fields)


def context(**tables: Any) -> dict[str, Any]:
    return {
        "tables": tables,
        "dates": DAYS,
        "prices": lambda provider, first, last: rows.book(provider),
        "log": Log(),
        "org_slug": "acme",
        "pipeline_id": "p",
        "run_id": "r",
        "clock": lambda: rows.datetime(2026, 11, 1, tzinfo=rows.UTC),
    }


def tables(source: str) -> dict[str, Any]:
    match source:
        case "openai" | "anthropic":
            model = OPENAI if source == "openai" else ANTHROPIC
            usage, costs = rows.ai(model, 60, seed=4)
            return {model.usage_table: usage, model.cost_table: costs}
        case "gcp":
            return {"gcp_billing_daily_raw": rows.gcp(60, seed=4)}
        case _:
            saas = rows.saas(6, seed=4)
            inside = [day in DAYS for day in saas["usage_date"].to_pylist()]
            return {"saas_subscription_plan_costs_daily": saas.filter(inside)}


@pytest.mark.parametrize("source", ["openai", "anthropic", "gcp", "saas_subscription"])
async def test_what_it_returns_passes_the_audit_of_its_schema(source: str) -> None:
    given = context(**tables(source))
    result = await get_engine().execute({"source": source}, given)
    name = f"focus_{source}_daily"
    schema = rows.catalog().schemas[name]
    made = result["tables"][name]
    assert result["status"] == "SUCCESS"
    assert result["metrics"]["rows"] == made.num_rows > 0
    whole = audit(add_lineage(made, schema, given), schema, (), Unit("acme", "p", DAYS))
    assert whole.schema.names == schema.arrow.names


async def test_unpriced_usage_is_found_and_counted() -> None:
    result = await get_engine().execute({"source": "openai"}, context(**tables("openai")))
    assert {finding.code for finding in result["findings"]} == {"unpriced_not_in_focus"}
    assert result["metrics"]["rows_unpriced"] == sum(finding.rows for finding in result["findings"]) > 0


async def test_days_without_rows_are_empty_tables() -> None:
    given = {
        name: table.slice(0, 0)
        for source in ("openai", "gcp", "saas_subscription")
        for name, table in tables(source).items()
    }
    for source in ("openai", "gcp", "saas_subscription"):
        result = await get_engine().execute({"source": source}, context(**given))
        assert result["tables"][f"focus_{source}_daily"].num_rows == 0
        assert result["findings"] == ()


@pytest.mark.parametrize("source", ["openai", "gcp", "saas_subscription"])
async def test_a_step_too_early_is_named(source: str) -> None:
    with pytest.raises(ConfigurationError, match="No earlier step made the table") as refused:
        await get_engine().execute({"source": source}, context())
    assert refused.value.field == "config.source"


@pytest.mark.parametrize("config", [{}, {"source": "aws"}, {"source": "gcp", "more": 1}])
async def test_a_config_that_is_none_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=re.escape("focus.convert config")):
        await get_engine().execute(config, context())
    assert get_engine().config_model is ConvertConfig


async def test_costs_that_do_not_add_up_publish_nothing() -> None:
    given = tables("gcp")
    billing = given["gcp_billing_daily_raw"]
    other = billing.set_column(billing.schema.get_field_index("net_cost"), "net_cost", billing["cost"])
    with pytest.raises(AuditError, match="focus_gcp_daily: FOCUS rule sum failed on BilledCost"):
        await get_engine().execute({"source": "gcp"}, context(gcp_billing_daily_raw=other))

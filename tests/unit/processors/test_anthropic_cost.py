"""`anthropic.cost` on the real price book: the worked examples of the facts, windows, geography, speed."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from engine.catalog import Catalog
from engine.errors import DataError
from engine.prices.book import PriceBook
from engine.prices.costs import costs
from engine.prices.money import GROUPS, Priced
from engine.prices.sources import cards
from processors.anthropic.cost import MODEL, get_engine

ROOT = Path(__file__).parents[3]
LATE = date(2026, 10, 15)


@cache
def book() -> PriceBook:
    return PriceBook("anthropic", [card for card in cards(ROOT) if card.provider == "anthropic"])


def priced(*rows: dict[str, Any]) -> tuple[pa.Table, Priced]:
    schema = Catalog.load(ROOT).schemas["anthropic_usage_daily_raw"].arrow
    standard = {"service_tier": "standard", "context_window": "0-200k", "inference_geo": "global"}
    given = [{"usage_date": LATE, "x_credential_id": "c1", **standard, **row} for row in rows]
    return costs(get_engine().model, pa.Table.from_pylist(given, schema=schema), book())


@pytest.mark.parametrize(
    ("values", "total"),
    [
        pytest.param(
            {"model": "claude-opus-5", "uncached_input_tokens": 1500, "cache_creation_5m_input_tokens": 500,
             "cache_creation_1h_input_tokens": 1000, "cache_read_input_tokens": 200, "output_tokens": 500,
             "web_search_requests": 10}, "0.133225", id="1 the documented row"),
        pytest.param(
            {"usage_date": date(2026, 2, 1), "model": "claude-opus-4-5-20251101", "service_tier": "batch",
             "inference_geo": "not_available", "uncached_input_tokens": 8_000_000,
             "output_tokens": 1_000_000}, "32.5", id="2 batch before genai-prices lists it"),
        pytest.param(
            {"usage_date": date(2026, 3, 1), "model": "claude-sonnet-4-6", "context_window": "200k-1M",
             "uncached_input_tokens": 900_000, "output_tokens": 10_000}, "5.625", id="3 long context"),
        pytest.param(
            {"usage_date": date(2026, 3, 13), "model": "claude-sonnet-4-6", "context_window": "200k-1M",
             "uncached_input_tokens": 900_000, "output_tokens": 10_000}, "2.85", id="3 premium dropped"),
        pytest.param(
            {"model": "claude-opus-5-5", "uncached_input_tokens": 1_000_000,
             "cache_read_input_tokens": 9_000_000, "output_tokens": 200_000}, "9.8", id="4 cheap cache read"),
        pytest.param(
            {"model": "claude-opus-5", "inference_geo": "us", "uncached_input_tokens": 1_000_000,
             "output_tokens": 100_000}, "8.25", id="5 United States"),
        pytest.param(
            {"usage_date": date(2026, 11, 15), "model": "claude-haiku-4-5-20251001", "service_tier": "batch",
             "inference_geo": "not_available", "uncached_input_tokens": 500_000,
             "cache_read_input_tokens": 3_000_000, "output_tokens": 1_000_000}, "2.9", id="6 batch cache"),
        pytest.param(
            {"model": "claude-opus-5-5", "speed": "fast", "uncached_input_tokens": 1_000_000,
             "output_tokens": 100_000}, "12", id="6 fast"),
        pytest.param(
            {"model": "claude-opus-5-5", "speed": "fast", "inference_geo": "us", "output_tokens": 1_000_000,
             "web_search_requests": 100}, "45", id="fast and us stack, the search fee does not"),
        pytest.param(
            {"model": "claude-opus-5", "inference_geo": "us", "service_tier": "batch",
             "uncached_input_tokens": 1_000_000}, "2.75", id="batch and us stack"),
        pytest.param(
            {"model": "claude-haiku-5-5", "context_window": "200k-1M", "uncached_input_tokens": 1_000_000},
            "0.5", id="every request of the window is past the step"),
        pytest.param(
            {"model": "claude-opus-4-5", "inference_geo": None, "context_window": None,
             "uncached_input_tokens": 1_000_000}, "5", id="unnamed and the same everywhere"),
    ],
)  # fmt: skip
def test_worked_examples(values: dict[str, Any], total: str) -> None:
    table, found = priced(values)
    (row,) = table.to_pylist()
    assert found.findings == ()
    assert row["total_cost"] == Decimal(total) == sum(row[group] for group in GROUPS)
    assert row["cache_write_cost"] == row["cache_write_5m_cost"] + row["cache_write_1h_cost"]


@pytest.mark.parametrize(
    "values",
    [
        {"model": "claude-opus-5", "service_tier": "priority"},
        {"model": "claude-opus-5", "service_tier": "priority_on_demand"},
        {"model": "claude-opus-5", "service_tier": "flex"},
        {"model": "claude-opus-5", "service_tier": "flex_discount"},
        {"model": "claude-opus-5", "service_tier": "batch", "speed": "fast"},
        {"model": "claude-sonnet-4-5", "speed": "fast"},
        {"model": "claude-opus-4-5", "inference_geo": "us"},
        {"model": "claude-opus-5", "inference_geo": None},
        {"model": "claude-opus-5", "inference_geo": "not_available"},
        {"model": "claude-sonnet-4-6", "context_window": None, "usage_date": date(2026, 3, 1)},
        {"model": "claude-99"},
    ],
)
def test_what_no_public_rate_covers_is_unpriced(values: dict[str, Any]) -> None:
    table, found = priced({"uncached_input_tokens": 1000, **values})
    (row,) = table.to_pylist()
    assert (row["pricing_status"], row["total_cost"], row["price_id"]) == ("UNPRICED", None, None)
    assert [finding.rows for finding in found.findings] == [1]


def test_a_negative_count_names_column_and_row() -> None:
    with pytest.raises(
        DataError, match=r"output_tokens is -4.*model=claude-opus-5, workspace_id=w1"
    ) as caught:
        priced({"model": "claude-opus-5", "workspace_id": "w1", "output_tokens": -4})
    assert caught.value.field == "output_tokens"


def test_the_table_is_the_schema_without_lineage() -> None:
    table, _ = priced({"model": "claude-opus-5", "uncached_input_tokens": 1})
    schema = Catalog.load(ROOT).schemas["anthropic_cost_daily"].arrow
    expected = [f for f in schema if not f.name.startswith("x_") or f.name == "x_credential_id"]
    assert {f.name: f.type for f in expected} == {f.name: f.type for f in table.schema}
    assert MODEL.cost_table == "anthropic_cost_daily"

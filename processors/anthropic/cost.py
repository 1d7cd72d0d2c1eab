"""`anthropic.cost`: Anthropic's usage rows at list or negotiated prices, as `anthropic_cost_daily`."""

from __future__ import annotations

import polars as pl

from engine.prices.costs import CostModel, CostProcessor
from engine.prices.money import Component

COMPONENTS = (
    Component("input_cost", "uncached_input_tokens", "input", "input_cost"),
    Component("cached_input_cost", "cache_read_input_tokens", "cached_input", "cached_input_cost"),
    Component("cache_write_5m_cost", "cache_creation_5m_input_tokens", "cache_write_5m", "cache_write_cost"),
    Component("cache_write_1h_cost", "cache_creation_1h_input_tokens", "cache_write_1h", "cache_write_cost"),
    Component("output_cost", "output_tokens", "output", "output_cost"),
    Component("web_search_cost", "web_search_requests", "web_search", "tool_cost"),
)


def mapped(usage: pl.DataFrame) -> pl.DataFrame:
    """Add to Anthropic usage rows what they are priced by (facts 3.2); token classes are disjoint already."""
    geo = pl.col("inference_geo")
    return usage.with_columns(
        pl.col("model").alias("price_model"),
        pl.col("service_tier").alias("price_tier"),
        pl.col("context_window").alias("price_window"),
        # Models before 4.6 have one price everywhere; for later ones an unknown place leaves two answers.
        pl.when(geo != "not_available").then(geo).alias("price_geo"),
        # Fast mode is asked for by a beta header; rows of reports without that grouping are standard.
        pl.col("speed").fill_null("standard").alias("price_speed"),
    )


MODEL = CostModel(
    provider="anthropic",
    usage_table="anthropic_usage_daily_raw",
    cost_table="anthropic_cost_daily",
    dimensions=(
        "model",
        "workspace_id",
        "api_key_id",
        "account_id",
        "service_account_id",
        "service_tier",
        "context_window",
        "inference_geo",
        "speed",
    ),
    counts=(
        "uncached_input_tokens",
        "cache_read_input_tokens",
        "cache_creation_5m_input_tokens",
        "cache_creation_1h_input_tokens",
        "output_tokens",
        "web_search_requests",
    ),
    components=COMPONENTS,
    mapped=mapped,
)


def get_engine() -> CostProcessor:
    """Return the processor."""
    return CostProcessor(MODEL)

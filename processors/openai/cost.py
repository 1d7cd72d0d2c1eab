"""`openai.cost`: OpenAI's usage rows at list or negotiated prices, as `openai_cost_daily`."""

from __future__ import annotations

import polars as pl

from engine.prices.costs import CostModel, CostProcessor
from engine.prices.money import Component

COMPONENTS = (
    Component("input_text_cost", "uncached_text_tokens", "input", "input_cost"),
    Component("input_audio_cost", "uncached_audio_tokens", "input_audio", "input_cost"),
    Component("input_image_cost", "uncached_image_tokens", "input_image", "input_cost"),
    Component("speech_cost", "characters", "character", "input_cost"),
    Component("transcription_cost", "seconds", "second", "input_cost"),
    Component("cached_text_cost", "cached_text_tokens", "cached_input", "cached_input_cost"),
    Component("cached_audio_cost", "cached_audio_tokens", "cached_audio", "cached_input_cost"),
    Component("cached_image_cost", "cached_image_tokens", "cached_image", "cached_input_cost"),
    Component("cache_write_short_cost", "cache_write_short_tokens", "cache_write", "cache_write_cost"),
    Component("cache_write_12h_cost", "cache_write_12h_tokens", "cache_write_12h", "cache_write_cost"),
    Component("output_text_cost", "text_output_tokens", "output", "output_cost"),
    Component("output_audio_cost", "audio_output_tokens", "output_audio", "output_cost"),
    Component("output_image_cost", "image_output_tokens", "output_image", "output_cost"),
    Component("images_cost", "images", "image", "output_cost"),
    Component("web_search_cost", "web_search_calls", "web_search", "tool_cost"),
    Component("file_search_cost", "file_search_calls", "file_search", "tool_cost"),
    Component("code_session_cost", "num_sessions", "code_session", "tool_cost"),
)


def mapped(usage: pl.DataFrame) -> pl.DataFrame:
    """Add to OpenAI usage rows what they are priced by (facts 3.1)."""
    return usage.with_columns(
        _price_model().alias("price_model"),
        _tier().alias("price_tier"),
        # The rows name no region, and long context only shows in the bill: neither is priced from here.
        *(pl.lit(None, dtype=pl.String).alias(name) for name in ("price_window", "price_geo", "price_speed")),
        *_tokens(),
        pl.when(_endpoint("web_search_calls")).then(pl.col("num_requests")).alias("web_search_calls"),
        pl.when(_endpoint("file_search_calls")).then(pl.col("num_requests")).alias("file_search_calls"),
    )


def _endpoint(name: str) -> pl.Expr:
    return pl.col("endpoint") == name


def _price_model() -> pl.Expr:
    """The name a card is looked up by: the model's, or the tool's where the fee is not the model's."""
    model = pl.col("model")
    return (
        pl.when(_endpoint("web_search_calls"))
        .then(pl.concat_str(pl.lit("web_search/"), model.fill_null("")))
        .when(_endpoint("file_search_calls"))
        .then(pl.lit("file_search"))
        .when(_endpoint("code_interpreter_sessions"))
        .then(pl.lit("code_interpreter"))
        .when(_endpoint("vector_stores"))
        .then(pl.lit("vector_storage"))
        .when(_endpoint("images") & pl.col("size").is_not_null())
        .then(pl.concat_str(model, pl.col("size"), separator="/"))
        .otherwise(model)
    )


def _tier() -> pl.Expr:
    """Batch jobs report the tier `default`, so `batch` decides first."""
    tier = pl.col("service_tier").fill_null("default")
    return (
        pl.when(pl.col("batch").fill_null(value=False))
        .then(pl.lit("batch"))
        .when(tier == "default")
        .then(pl.lit("standard"))
        .otherwise(tier)
    )


def _tokens() -> list[pl.Expr]:
    """Split tokens by modality and cache; what no modality claims is text.

    A split that claims more than its total goes negative, which pricing refuses.
    """
    cached_audio, cached_image = _count("input_cached_audio_tokens"), _count("input_cached_image_tokens")
    cached_parts = _count("input_cached_text_tokens") + cached_audio + cached_image
    cached = pl.coalesce("input_cached_tokens", cached_parts)
    kept_12h = _count("input_cache_write_12h_tokens")
    written = pl.coalesce("input_cache_write_tokens", _count("input_cache_write_30m_tokens") + kept_12h)
    uncached = pl.coalesce("input_uncached_tokens", _count("input_tokens") - cached - written)
    audio, image = _count("input_audio_tokens"), _count("input_image_tokens")
    output_audio, output_image = _count("output_audio_tokens"), _count("output_image_tokens")
    return [
        (uncached - audio - image).alias("uncached_text_tokens"),
        audio.alias("uncached_audio_tokens"),
        image.alias("uncached_image_tokens"),
        (cached - cached_audio - cached_image).alias("cached_text_tokens"),
        cached_audio.alias("cached_audio_tokens"),
        cached_image.alias("cached_image_tokens"),
        (written - kept_12h).alias("cache_write_short_tokens"),
        kept_12h.alias("cache_write_12h_tokens"),
        (_count("output_tokens") - output_audio - output_image).alias("text_output_tokens"),
        output_audio.alias("audio_output_tokens"),
        output_image.alias("image_output_tokens"),
    ]


def _count(column: str) -> pl.Expr:
    # Absent is nothing to charge for; the table itself keeps it NULL.
    return pl.col(column).fill_null(0)


MODEL = CostModel(
    provider="openai",
    usage_table="openai_usage_daily_raw",
    cost_table="openai_cost_daily",
    dimensions=(
        "endpoint",
        "model",
        "project_id",
        "user_id",
        "api_key_id",
        "batch",
        "service_tier",
        "api_source",
        "source",
        "size",
        "vector_store_id",
        "context_level",
    ),
    counts=(
        "input_tokens",
        "input_uncached_tokens",
        "input_cached_tokens",
        "input_cache_write_tokens",
        "output_tokens",
        "num_model_requests",
        "images",
        "characters",
        "seconds",
        "usage_bytes",
        "num_sessions",
        "num_requests",
    ),
    components=COMPONENTS,
    mapped=mapped,
)


def get_engine() -> CostProcessor:
    """Return the processor."""
    return CostProcessor(MODEL)

"""`openai.cost` on the real price book: the worked examples of the facts, modalities, tools, tiers."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from functools import cache
from logging import getLogger
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from engine.catalog import Catalog
from engine.errors import ConfigurationError, DataError
from engine.prices.book import PriceBook
from engine.prices.money import GROUPS
from engine.prices.sources import cards
from processors.openai.cost import COMPONENTS, get_engine

ROOT = Path(__file__).parents[3]
LATE = date(2026, 10, 15)


@cache
def book() -> PriceBook:
    return PriceBook("openai", [card for card in cards(ROOT) if card.provider == "openai"])


class Log:
    def info(self, event: str, **fields: object) -> None:
        getLogger("test").info("%s %s", event, fields)


def usage(*rows: dict[str, Any]) -> pa.Table:
    lineage = {"x_org_slug", "x_pipeline_id", "x_pipeline_run_date", "x_run_id", "x_ingested_at"}
    schema = Catalog.load(ROOT).schemas["openai_usage_daily_raw"].arrow
    fields = [field for field in schema if field.name not in lineage]
    given = [{"endpoint": "completions", "usage_date": LATE, "x_credential_id": "c1", **row} for row in rows]
    return pa.Table.from_pylist(given, schema=pa.schema(fields))


async def priced(*rows: dict[str, Any]) -> dict[str, Any]:
    context = {
        "tables": {"openai_usage_daily_raw": usage(*rows)},
        "dates": (LATE,),
        "prices": lambda provider, first, last: book(),
        "log": Log(),
    }
    return await get_engine().execute({}, context)


async def row(**values: Any) -> dict[str, Any]:
    result = await priced(values)
    return result["tables"]["openai_cost_daily"].to_pylist()[0]


@pytest.mark.parametrize(
    ("values", "total"),
    [
        pytest.param(
            {"usage_date": date(2025, 3, 1), "model": "gpt-4o-mini", "input_tokens": 5_000_000,
             "input_cached_tokens": 1_200_000, "output_tokens": 800_000}, "1.14", id="1 old row with cache"),
        pytest.param(
            {"model": "gpt-5.6-sol", "input_tokens": 250_000, "input_uncached_tokens": 100_000,
             "input_cached_tokens": 100_000, "input_cache_write_tokens": 50_000, "output_tokens": 20_000},
            "1.09", id="2 cache writes"),
        pytest.param(
            {"model": "gpt-5.6-sol", "input_tokens": 400_000, "input_uncached_tokens": 250_000,
             "input_cached_tokens": 100_000, "input_cache_write_tokens": 50_000, "output_tokens": 20_000},
            "1.69", id="2 a day's total is not a long request"),
        pytest.param(
            {"model": "gpt-4.1", "batch": True, "service_tier": "default", "input_tokens": 10_000_000,
             "output_tokens": 1_000_000}, "14", id="3 batch"),
        pytest.param(
            {"model": "o3", "service_tier": "flex", "input_tokens": 2_000_000,
             "input_cached_tokens": 500_000, "output_tokens": 300_000}, "2.825", id="4 flex"),
        pytest.param(
            {"model": "gpt-4.1", "service_tier": "priority", "input_tokens": 2_000_000,
             "input_cached_tokens": 500_000, "output_tokens": 300_000}, "9.8875", id="4 priority"),
        pytest.param(
            {"model": "gpt-audio", "input_tokens": 1_000_000, "input_uncached_tokens": 1_000_000,
             "input_text_tokens": 600_000, "input_audio_tokens": 400_000, "output_tokens": 300_000,
             "output_text_tokens": 50_000, "output_audio_tokens": 250_000}, "30.8", id="5 audio"),
        pytest.param(
            {"endpoint": "embeddings", "model": "text-embedding-3-small", "input_tokens": 12_345_678},
            "0.24691356", id="6 embeddings"),
        pytest.param(
            {"endpoint": "audio_transcriptions", "model": "whisper-1", "seconds": 5_400}, "0.54",
            id="6 whisper"),
        pytest.param(
            {"endpoint": "audio_speeches", "model": "tts-1", "characters": 100_000}, "1.5", id="6 speech"),
        pytest.param(
            {"endpoint": "web_search_calls", "model": "gpt-5", "num_requests": 250, "num_model_requests": 9},
            "2.5", id="6 web search"),
        pytest.param(
            {"endpoint": "web_search_calls", "model": "gpt-4o-search-preview", "num_requests": 1_000}, "25",
            id="web search preview"),
        pytest.param({"endpoint": "file_search_calls", "num_requests": 1_000}, "2.5", id="file search"),
        pytest.param({"endpoint": "moderations", "model": "omni-moderation-latest", "input_tokens": 9}, "0",
                     id="moderation is free"),
        pytest.param({"endpoint": "images", "model": "dall-e-2", "size": "512x512", "images": 10}, "0.18",
                     id="dall-e-2 by size"),
        pytest.param(
            {"usage_date": date(2026, 2, 1), "model": "gpt-4.1", "batch": True, "input_tokens": 10_000_000,
             "output_tokens": 1_000_000}, "14", id="batch before genai-prices lists it"),
    ],
)  # fmt: skip
async def test_worked_examples(values: dict[str, Any], total: str) -> None:
    found = await row(**values)
    assert found["pricing_status"] == "PRICED"
    assert found["total_cost"] == Decimal(total)
    assert found["total_cost"] == sum(found[group] for group in GROUPS)
    for group in GROUPS:
        assert found[group] == sum(found[part.amount] for part in COMPONENTS if part.group == group)


async def test_each_modality_has_its_own_rate() -> None:
    found = await row(
        model="gpt-realtime",
        input_tokens=1000,
        input_uncached_tokens=500,
        input_cached_tokens=500,
        input_text_tokens=400,
        input_audio_tokens=50,
        input_image_tokens=50,
        input_cached_text_tokens=300,
        input_cached_audio_tokens=150,
        input_cached_image_tokens=50,
        output_tokens=100,
        output_text_tokens=60,
        output_audio_tokens=40,
    )
    expected = {
        "input_text_cost": 400 * Decimal("0.000004"),
        "input_audio_cost": 50 * Decimal("0.000032"),
        "input_image_cost": 50 * Decimal("0.000005"),
        "cached_text_cost": 300 * Decimal("0.0000004"),
        "cached_audio_cost": 150 * Decimal("0.0000004"),
        "cached_image_cost": 50 * Decimal("0.0000005"),
        "output_text_cost": 60 * Decimal("0.000016"),
        "output_audio_cost": 40 * Decimal("0.000064"),
    }
    assert {name: found[name] for name in expected} == expected
    assert found["total_cost"] == sum(expected.values())


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model": "gpt-99", "input_tokens": 5, "output_tokens": 5}, "No rate card"),
        ({"model": "gpt-4.1", "service_tier": "scale", "input_tokens": 5}, "No rate card"),
        ({"model": "gpt-4.1", "service_tier": "priority", "usage_date": date(2026, 1, 1), "input_tokens": 5},
         "No rate card"),
        ({"model": "gpt-audio", "input_tokens": 50, "input_cached_tokens": 50,
          "input_cached_audio_tokens": 50}, "no rate for: cached_audio"),
        ({"model": "gpt-5.6-sol", "input_tokens": 50, "input_cache_write_tokens": 50,
          "input_cache_write_12h_tokens": 20}, "no rate for: cache_write_12h"),
        ({"endpoint": "audio_speeches", "model": "gpt-4o-mini-tts", "characters": 7},
         "no rate for: character"),
        ({"endpoint": "images", "model": "dall-e-3", "size": "1024x1024", "images": 1}, "No rate card"),
        ({"endpoint": "images", "model": "gpt-image-1", "images": 1}, "no rate for: image"),
        ({"endpoint": "vector_stores", "usage_bytes": 5_000_000_000}, "No rate card"),
        ({"endpoint": "code_interpreter_sessions", "num_sessions": 3}, "No rate card"),
        ({"endpoint": "completions", "model": None, "input_tokens": 3}, "No rate card"),
    ],
)  # fmt: skip
async def test_what_no_public_rate_covers_is_unpriced(values: dict[str, Any], says: str) -> None:
    result = await priced(values)
    found = result["tables"]["openai_cost_daily"].to_pylist()[0]
    assert found["pricing_status"] == "UNPRICED"
    assert found["price_id"] is None
    money = [*GROUPS, "total_cost", *(part.amount for part in COMPONENTS)]
    assert {found[name] for name in money} == {None}
    (finding,) = result["findings"]
    assert (finding.code, finding.rows, finding.table) == ("unpriced_model", 1, "openai_cost_daily")
    assert says in finding.detail


async def test_an_unpriced_row_neither_drops_nor_touches_others() -> None:
    known = {"model": "gpt-4.1", "input_tokens": 1_000_000}
    result = await priced(
        known, {"model": "gpt-99", "input_tokens": 1, "project_id": "p1"}, {"model": "gpt-99"}
    )
    table = result["tables"]["openai_cost_daily"]
    assert table["total_cost"].to_pylist() == [Decimal(2), None, None]
    assert result["metrics"] == {"rows": 3, "rows_unpriced": 2}
    assert [(finding.subject, finding.rows) for finding in result["findings"]] == [("gpt-99 / standard", 2)]


async def test_absent_counts_stay_absent() -> None:
    found = await row(model="gpt-4.1", input_tokens=1, output_tokens=0)
    assert found["input_cached_tokens"] is None
    assert found["cached_text_cost"] == 0


@pytest.mark.parametrize(
    "values",
    [
        {"input_tokens": 10, "input_cached_tokens": 11},
        {"input_tokens": -1},
        {"input_tokens": 10, "input_uncached_tokens": 5, "input_audio_tokens": 6},
        {"input_tokens": 10, "input_cached_tokens": 5, "input_cached_image_tokens": 6},
        {"input_tokens": 1, "output_tokens": 5, "output_audio_tokens": 6},
    ],
)
async def test_counts_that_contradict_each_other_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(
        DataError, match=r"tokens is -1, less than nothing, in the row usage_date=2026-10-15.*gpt-4\.1"
    ):
        await priced(
            {"model": "gpt-4.1", "input_tokens": 0, "output_tokens": 0}, {"model": "gpt-4.1", **values}
        )


async def test_the_table_is_the_schema_without_lineage_and_keeps_keys_unique() -> None:
    rows = [
        {"model": "gpt-4.1", "api_key_id": f"k{n % 3}", "project_id": f"p{n}", "input_tokens": n}
        for n in range(9)
    ]
    table = (await priced(*rows))["tables"]["openai_cost_daily"]
    schema = Catalog.load(ROOT).schemas["openai_cost_daily"]
    expected = [f for f in schema.arrow if not f.name.startswith("x_") or f.name == "x_credential_id"]
    assert {f.name: f.type for f in expected} == {f.name: f.type for f in table.schema}
    keys = [tuple(found[name] for name in schema.key) for found in table.to_pylist()]
    assert len(set(keys)) == len(keys) == 9
    assert all(table[f.name].null_count == 0 for f in expected if not f.nullable)


async def test_no_usage_is_an_empty_table() -> None:
    result = await priced()
    assert result["tables"]["openai_cost_daily"].num_rows == 0
    assert result["findings"] == ()


async def test_a_setting_or_a_missing_usage_step_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="names tariff"):
        await get_engine().execute({"tariff": 1}, {"tables": {}})
    with pytest.raises(ConfigurationError, match="openai_usage_daily_raw"):
        await get_engine().execute({}, {"tables": {}})

"""The tables that pages become are the tables the schema files describe."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from engine.catalog import Catalog
from engine.pages import anthropic, openai

ROOT = Path(__file__).parents[3]
#: Added by the unit, not by a processor.
ADDED = {"x_org_slug", "x_pipeline_id", "x_pipeline_run_date", "x_run_id", "x_ingested_at"}


@pytest.mark.parametrize(
    ("table", "arrow", "key"),
    [
        ("openai_usage_daily_raw", openai.ARROW, openai.KEY),
        ("anthropic_usage_daily_raw", anthropic.ARROW, anthropic.KEY),
    ],
)
def test_arrow_is_the_schema_file_without_the_units_lineage(
    table: str, arrow: pa.Schema, key: tuple[str, ...]
) -> None:
    schema = Catalog.load(ROOT).schemas[table]
    described = [field for field in schema.arrow if field.name not in ADDED]
    assert list(arrow) == described
    assert schema.key == key
    assert {field.name for field in schema.arrow} - {field.name for field in arrow} == ADDED

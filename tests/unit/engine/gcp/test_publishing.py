"""Text held by its spellings goes through checks, hashes and files as plain text does, and is not copied."""

from __future__ import annotations

import io
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.artifacts import parquet
from engine.checks import Accepted, audit
from engine.errors import AuditError
from engine.parts import split
from engine.schemas import Schema
from engine.types import Unit

DAYS = (date(2025, 12, 8), date(2025, 12, 9))
UNIT = Unit("acme", "gcp/cost/billing", DAYS)
SCHEMA = Schema.model_validate(
    {
        "table": "t",
        "scope": "tenant",
        "description": "d",
        "partition": "usage_date",
        "key": ["usage_date", "row_id"],
        "columns": [
            {"name": "usage_date", "type": "DATE", "mode": "REQUIRED", "description": "d"},
            {"name": "row_id", "type": "STRING", "mode": "REQUIRED", "description": "d"},
            {"name": "sku", "type": "STRING", "description": "d"},
            {"name": "x_org_slug", "type": "STRING", "mode": "REQUIRED", "description": "d"},
        ],
    }
)


def rows(*, coded: bool) -> pa.Table:
    def text(*values: str | None) -> Any:
        array = pa.array(values, pa.string())
        return array.dictionary_encode() if coded else array

    return pa.table(
        {
            "usage_date": pa.array([DAYS[0], DAYS[0], DAYS[1], DAYS[1]]),
            "row_id": text("a", "b", "a", "b"),
            "sku": text("x", None, "x", "y"),
            "x_org_slug": text("acme", "acme", "acme", "acme"),
        }
    )


def test_hashes_and_files_are_those_of_plain_text() -> None:
    plain, coded = (
        split(audit(rows(coded=coded), SCHEMA, (), UNIT), SCHEMA, DAYS, frozenset())
        for coded in (False, True)
    )
    assert [part.content_hash for part in plain] == [part.content_hash for part in coded]
    for one, other in zip(plain, coded, strict=True):
        read = [pq.read_table(io.BytesIO(parquet(part.table))) for part in (one, other)]
        assert read[0].equals(read[1])
        assert pa.types.is_dictionary(other.table["sku"].type)


@pytest.mark.parametrize("coded", [False, True])
def test_a_declared_check_sees_the_text(coded: bool) -> None:
    check = Accepted(kind="accepted", column="sku", values=("x", "z"))
    with pytest.raises(AuditError, match="1 rows, the first with y"):
        audit(rows(coded=coded), SCHEMA, (check,), UNIT)


@pytest.mark.parametrize("coded", [False, True])
def test_another_organisations_rows_are_refused(coded: bool) -> None:
    with pytest.raises(AuditError, match="x_org_slug"):
        audit(rows(coded=coded), SCHEMA, (), Unit("other", UNIT.pipeline, DAYS))


def test_a_table_in_order_is_cut_into_views() -> None:
    given = audit(rows(coded=False), SCHEMA, (), UNIT)
    shuffled = given.take(pa.array([3, 1, 0, 2]))
    views, copies = (split(table, SCHEMA, DAYS, frozenset()) for table in (given, shuffled))
    assert [part.content_hash for part in views] == [part.content_hash for part in copies]
    held = {address(given["sku"])}
    assert {address(part.table["sku"]) for part in views} == held
    assert not {address(part.table["sku"]) for part in copies} & held


def address(column: pa.ChunkedArray) -> int:
    return int(column.chunk(0).buffers()[2].address)

"""Equal content has an equal hash, and only equal content."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from engine.content_hash import content_hash
from engine.schemas import Schema

SCHEMA = Schema.model_validate(
    {
        "table": "t_daily",
        "scope": "tenant",
        "description": "All types.",
        "partition": "usage_date",
        "key": ["usage_date", "model"],
        "columns": [
            {"name": "usage_date", "type": "DATE", "mode": "REQUIRED", "description": "d"},
            {"name": "model", "type": "STRING", "mode": "REQUIRED", "description": "d"},
            {"name": "cost", "type": "NUMERIC", "description": "d"},
            {"name": "tokens", "type": "INT64", "description": "d"},
            {"name": "batch", "type": "BOOL", "description": "d"},
            {"name": "share", "type": "FLOAT64", "description": "d"},
            {"name": "digest", "type": "BYTES", "description": "d"},
            {"name": "seen_at", "type": "TIMESTAMP", "description": "d"},
            {"name": "tags", "type": "STRING", "mode": "REPEATED", "description": "d"},
            {"name": "x_credential_id", "type": "STRING", "description": "d"},
            {"name": "x_run_id", "type": "STRING", "mode": "REQUIRED", "description": "d"},
        ],
    }
)
ROW = {
    "usage_date": date(2025, 12, 1),
    "model": "gpt-4o-größer",
    "cost": Decimal("1.234567891"),
    "tokens": 12,
    "batch": True,
    "share": 0.5,
    "digest": b"\x00\xff",
    "seen_at": datetime(2025, 12, 1, 12, 30, 0, 7, tzinfo=UTC),
    "tags": ["a", "", "b"],
    "x_credential_id": "cred-1",
    "x_run_id": "run-1",
}
BARE = {"usage_date": date(2025, 12, 1), "model": "bare", "x_run_id": "run-1"}
# A change of these two strings is a new hash version: it must not happen by accident.
GOLDEN = "v1:c7bc92391e8db6d5ff9684c5110c5a9438684a42eb7faf9dc63b1b556a8e7e3f"
GOLDEN_EMPTY = "v1:5850b58d2a3693599490854628af60e0990161d493eb3b424c04a8fd633157e9"


def made(*rows: dict[str, object]) -> pa.Table:
    schema = pa.schema([field.with_nullable(True) for field in SCHEMA.arrow])
    return pa.Table.from_pylist(list(rows), schema=schema)


def test_golden() -> None:
    assert content_hash(made(ROW, BARE), SCHEMA) == GOLDEN
    assert content_hash(made(), SCHEMA) == GOLDEN_EMPTY


def test_row_order_chunks_lineage_and_offsets_do_not_matter() -> None:
    other_run = [{**row, "x_run_id": "run-2"} for row in (BARE, ROW)]

    assert content_hash(made(*other_run), SCHEMA) == GOLDEN
    assert content_hash(pa.concat_tables([made(BARE), made(), made(ROW)]), SCHEMA) == GOLDEN
    assert content_hash(made(ROW, ROW, BARE, BARE).slice(1, 2), SCHEMA) == GOLDEN


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("model", pa.large_string()),
        ("model", pa.string_view()),
        ("model", pa.dictionary(pa.int32(), pa.string())),
        ("tags", pa.large_list(pa.large_string())),
        ("cost", pa.decimal256(50, 12)),
        ("seen_at", pa.timestamp("ns", tz="Europe/Berlin")),
    ],
)
def test_the_same_values_in_other_arrow_types(column: str, kind: pa.DataType) -> None:
    table = made(ROW, BARE)
    index = table.schema.get_field_index(column)

    assert content_hash(table.set_column(index, column, table[column].cast(kind)), SCHEMA) == GOLDEN


def test_null_list_is_empty_list_and_minus_zero_is_zero() -> None:
    assert content_hash(made({**ROW, "tags": None}), SCHEMA) == content_hash(
        made({**ROW, "tags": []}), SCHEMA
    )
    assert content_hash(made({**ROW, "share": -0.0}), SCHEMA) == content_hash(
        made({**ROW, "share": 0.0}), SCHEMA
    )


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("usage_date", date(2025, 12, 2)),
        ("model", "gpt-4o"),
        ("cost", Decimal("1.234567892")),
        ("cost", None),
        ("tokens", 13),
        ("tokens", None),
        ("tokens", 0),
        ("batch", False),
        ("batch", None),
        ("share", 0.25),
        ("share", float("nan")),
        ("digest", b""),
        ("digest", None),
        ("seen_at", datetime(2025, 12, 1, 12, 30, 0, 8, tzinfo=UTC)),
        ("tags", ["a", "b"]),
        ("tags", ["a", "b", ""]),
        ("tags", ["a", "", "b", ""]),
        ("tags", []),
        ("x_credential_id", "cred-2"),
        ("x_credential_id", None),
    ],
)
def test_every_value_matters(column: str, value: object) -> None:
    assert content_hash(made({**ROW, column: value}, BARE), SCHEMA) != GOLDEN


def test_neighbouring_strings_and_lists_do_not_run_together() -> None:
    rows = [{**BARE, "model": "a", "tags": ["x"]}, {**BARE, "model": "b", "tags": ["y", "z"]}]
    moved = [{**BARE, "model": "a", "tags": ["x", "y"]}, {**BARE, "model": "b", "tags": ["z"]}]

    assert content_hash(made(*rows), SCHEMA) != content_hash(made(*moved), SCHEMA)


def test_a_new_nullable_column_leaves_old_hashes() -> None:
    columns = [*SCHEMA.model_dump()["columns"], {"name": "added", "type": "INT64", "description": "d"}]
    wider = Schema.model_validate({**SCHEMA.model_dump(), "columns": columns})
    table = made(ROW, BARE)
    with_nulls = table.append_column("added", pa.nulls(2, pa.int64()))
    with_values = table.append_column("added", pa.array([1, None]))

    assert content_hash(with_nulls, wider) == GOLDEN
    assert content_hash(with_values, wider) != GOLDEN


def test_rows_that_only_lineage_tells_apart_have_one_order() -> None:
    keyed = Schema.model_validate({**SCHEMA.model_dump(), "key": ("usage_date", "model", "x_run_id")})
    rows = [{**ROW, "tokens": number, "x_run_id": f"run-{number}"} for number in (1, 2)]
    renamed = [{**ROW, "tokens": number, "x_run_id": f"run-{9 - number}"} for number in (1, 2)]

    assert content_hash(made(*rows), keyed) == content_hash(made(*renamed), keyed)


def test_a_value_that_does_not_fit_is_refused() -> None:
    table = made(ROW).set_column(2, "cost", pa.array([Decimal("0.0000000001")]))

    with pytest.raises(pa.ArrowInvalid):
        content_hash(table, SCHEMA)

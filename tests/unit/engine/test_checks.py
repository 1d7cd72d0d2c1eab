"""A failing check names table, check, column and values; a passing table comes out in the schema's shape."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pydantic import TypeAdapter, ValidationError

from engine.checks import Check, audit, columns_of
from engine.errors import AuditError
from engine.schemas import Schema
from engine.types import Unit

DAY = date(2025, 12, 1)
UNIT = Unit("acme", "openai/cost/usage_cost", (DAY, date(2025, 12, 2)))
SCHEMA = Schema.model_validate(
    {
        "table": "t_daily",
        "scope": "tenant",
        "description": "d",
        "partition": "usage_date",
        "key": ["usage_date", "model"],
        "columns": [
            {"name": "usage_date", "type": "DATE", "mode": "REQUIRED", "description": "d"},
            {"name": "model", "type": "STRING", "description": "d"},
            {"name": "status", "type": "STRING", "description": "d"},
            {"name": "tokens", "type": "INT64", "description": "d"},
            {"name": "share", "type": "FLOAT64", "description": "d"},
            {"name": "total", "type": "NUMERIC", "description": "d"},
            {"name": "first", "type": "NUMERIC", "description": "d"},
            {"name": "second", "type": "NUMERIC", "description": "d"},
            {"name": "seen_at", "type": "TIMESTAMP", "description": "d"},
            {"name": "tags", "type": "STRING", "mode": "REPEATED", "description": "d"},
            {"name": "x_org_slug", "type": "STRING", "mode": "REQUIRED", "description": "d"},
        ],
    }
)
ROW: dict[str, Any] = {"usage_date": DAY, "model": "m", "x_org_slug": "acme"}
MONEY = pa.decimal128(38, 9)


def check(**given: Any) -> Check:
    return TypeAdapter[Check](Check).validate_python(given)


def made(*rows: dict[str, Any], **kinds: pa.DataType) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    wanted = {name: kinds.get(name, SCHEMA.arrow.field(name).type) for name in names}
    return pa.Table.from_pylist(list(rows), schema=pa.schema(list(wanted.items())))


def test_a_narrow_table_comes_out_whole() -> None:
    out = audit(made({"x_org_slug": "acme", "model": "m", "usage_date": DAY}), SCHEMA, (), UNIT)

    assert out.schema.types == SCHEMA.arrow.types
    assert out.column_names == SCHEMA.arrow.names
    assert out["total"].to_pylist() == [None]


def test_an_empty_table_passes() -> None:
    assert (
        audit(
            made(ROW).slice(0, 0), SCHEMA, (check(kind="accepted", column="status", values=["A"]),), UNIT
        ).num_rows
        == 0
    )


@pytest.mark.parametrize(
    ("column", "kind", "value"),
    [
        ("model", pa.large_string(), "m"),
        ("model", pa.string_view(), "m"),
        ("tokens", pa.int32(), 7),
        ("tokens", pa.uint64(), 7),
        ("share", pa.float32(), 0.5),
        ("total", pa.decimal128(38, 12), Decimal("1.5")),
        ("total", pa.int64(), 3),
        ("seen_at", pa.timestamp("ns", tz="UTC"), datetime(2025, 12, 1, tzinfo=UTC)),
        ("tags", pa.large_list(pa.large_string()), ["a"]),
        ("status", pa.null(), None),
    ],
)
def test_types_that_keep_their_meaning_are_cast(column: str, kind: pa.DataType, value: object) -> None:
    out = audit(made({**ROW, column: value}, **{column: kind}), SCHEMA, (), UNIT)

    assert out[column].to_pylist() in ([value], [None])
    assert out.schema.field(column).type == SCHEMA.arrow.field(column).type


@pytest.mark.parametrize(
    ("table", "column", "says"),
    [
        (made(ROW).append_column("nonsense", pa.array([1])), "nonsense", "no such column"),
        (made(ROW).drop_columns(["x_org_slug"]), "x_org_slug", "missing"),
        (made({**ROW, "total": 0.5}, total=pa.float64()), "total", "double is not NUMERIC"),
        (made({**ROW, "tokens": "7"}, tokens=pa.string()), "tokens", "string is not INT64"),
        (made({**ROW, "seen_at": datetime(2025, 12, 1)}, seen_at=pa.timestamp("us")), "seen_at", "is not"),  # noqa: DTZ001
        (made({**ROW, "total": Decimal("1E-12")}, total=pa.decimal128(38, 12)), "total", "not exactly"),
        (made({**ROW, "tokens": 2**63}, tokens=pa.uint64()), "tokens", "not exactly"),
        (made({**ROW, "usage_date": None}), "usage_date", "NULL in 1 rows"),
        (made({**ROW, "tags": ["a", None]}), "tags", "NULL inside a list"),
        (made(ROW, ROW), "usage_date, model", "1 keys appear twice"),
        (made({**ROW, "model": None}, {**ROW, "model": None}), "usage_date, model", "appear twice"),
        (made({**ROW, "usage_date": date(2025, 12, 3)}), "usage_date", "2025-12-03"),
        (made({**ROW, "x_org_slug": "other"}), "x_org_slug", "other"),
    ],
)
def test_what_every_table_must_hold(table: pa.Table, column: str, says: str) -> None:
    with pytest.raises(AuditError) as caught:
        audit(table, SCHEMA, (), UNIT)

    assert caught.value.field == column
    assert "t_daily" in caught.value.message
    assert says in caught.value.message


SUM = {"kind": "sum", "total": "total", "parts": ["first", "second"]}


@pytest.mark.parametrize(
    ("given", "row", "fine"),
    [
        ({"kind": "not_negative", "columns": ["tokens", "total"]}, {"tokens": 0, "total": None}, True),
        ({"kind": "not_negative", "columns": ["tokens"]}, {"tokens": -1}, False),
        ({"kind": "not_negative", "columns": ["total"]}, {"total": Decimal("-1E-9")}, False),
        ({"kind": "not_negative", "columns": ["share"]}, {"share": -0.5}, False),
        (SUM, {"total": Decimal("0.3"), "first": Decimal("0.1"), "second": Decimal("0.2")}, True),
        (SUM, {"total": Decimal("0.1"), "first": Decimal("0.1"), "second": None}, True),
        (SUM, {"total": None, "first": None, "second": None}, True),
        (SUM, {"total": Decimal("0.300000001"), "first": Decimal("0.1"), "second": Decimal("0.2")}, False),
        (SUM, {"total": None, "first": Decimal("0.1"), "second": None}, False),
        (SUM, {"total": Decimal(0), "first": None, "second": None}, False),
        (SUM, {"total": Decimal("9E28"), "first": Decimal("9E28"), "second": Decimal(0)}, True),
        (SUM, {"total": Decimal("9E28"), "first": Decimal("9E28"), "second": Decimal("9E28")}, False),
        ({"kind": "accepted", "column": "status", "values": ["A", "B"]}, {"status": "B"}, True),
        ({"kind": "accepted", "column": "status", "values": ["A", "B"]}, {"status": None}, True),
        ({"kind": "accepted", "column": "status", "values": ["A", "B"]}, {"status": "C"}, False),
        ({"kind": "accepted", "column": "nowhere", "values": ["A"]}, {}, False),
    ],
)
def test_declared_checks(given: dict[str, Any], row: dict[str, Any], fine: bool) -> None:
    checks = (check(**given),)
    table = made({**ROW, **row})

    if fine:
        assert audit(table, SCHEMA, checks, UNIT).num_rows == 1
        return
    with pytest.raises(AuditError, match=given["kind"]) as caught:
        audit(table, SCHEMA, checks, UNIT)
    assert caught.value.field in columns_of(checks[0])


def test_a_message_shows_few_values() -> None:
    rows = [{**ROW, "model": f"m{number}", "status": "x" * 500} for number in range(50)]

    with pytest.raises(AuditError) as caught:
        audit(made(*rows), SCHEMA, (check(kind="accepted", column="status", values=["A"]),), UNIT)

    assert "50 rows" in caught.value.message
    assert len(caught.value.message) < 600


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "unheard_of"},
        {"kind": "sum", "total": "a"},
        {"kind": "not_negative", "columns": []},
        {"kind": "accepted", "column": "a", "values": ["b"], "extra": 1},
    ],
)
def test_a_check_that_means_nothing_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        check(**given)

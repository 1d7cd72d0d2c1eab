"""Paths into answers, and JSON values as columns."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from engine.api.config import ColumnMap
from engine.api.mapping import decode
from engine.api.paths import MISSING, Reach, found, items, segments
from engine.api.values import UnfitError, column_array
from engine.api.walk import next_link

BODY = decode(
    b'{"base": "EUR", "a/b": {"~": 1}, "data": [{"start": 1, "results": [{"v": 1}, {"v": 2}]},'
    b' {"start": 2}, {"start": 3, "results": []}], "map": {"x": {"rows": [7]}, "y": {"rows": [8, 9]}}}'
)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("", BODY), ("base", "EUR"), ("/base", "EUR"), ("/a~1b/~0", 1), ("data.0.start", 1),
        ("/data/1/start", 2), ("/data/3", MISSING), ("/data/-1", MISSING), ("base.more", MISSING),
    ],
)  # fmt: skip
def test_a_path_leads_to_a_value_or_to_nothing(path: str, value: Any) -> None:
    assert found(BODY, segments(path)) is value or found(BODY, segments(path)) == value


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("/data/*/results", [{"v": 1}, {"v": 2}]),
        ("/data/*/results/*", [{"v": 1}, {"v": 2}]),
        ("/map/*/rows", [7, 8, 9]),
        ("map.*.rows", [7, 8, 9]),
        ("/map/*", [{"rows": [7]}, {"rows": [8, 9]}]),
        ("/data/0/results", [{"v": 1}, {"v": 2}]),
    ],
)
def test_rows_lie_behind_lists_and_objects(path: str, values: list[Any]) -> None:
    assert [item.value for item in items(BODY, segments(path))] == values


@pytest.mark.parametrize("path", ["/nothing", "/base", "/map", "", "/nothing/*/rows"])
def test_what_is_no_list_is_named(path: str) -> None:
    with pytest.raises(LookupError) as error:
        list(items(BODY, segments(path)))
    assert error.value.args[0] == path.split("/*")[0]


def test_a_row_reaches_what_encloses_it() -> None:
    (first, second) = items(BODY, segments("/data/*/results"))
    wanted = ("v", "@", "^1/start", "^1@", "$/base", "^2/x")
    assert [Reach.parse(path).getter(BODY)(second) for path in wanted] == [
        2, 1, 1, 0, "EUR", MISSING,
    ]  # fmt: skip
    assert Reach.parse("").getter(BODY)(first) == {"v": 1}


def column(kind: str, **more: Any) -> ColumnMap:
    return ColumnMap.model_validate({"name": "c", "path": "c", "type": kind, **more})


@pytest.mark.parametrize(
    ("given", "literal", "value"),
    [
        (column("STRING"), '"text"', "text"),
        (column("INT64"), "-9223372036854775808", -(2**63)),
        (column("INT64"), "5.0", 5),
        (column("INT64", sent_as="text"), '"18"', 18),
        (column("NUMERIC"), "0.1", Decimal("0.1")),
        (column("NUMERIC"), "1e-9", Decimal("1e-9")),
        (column("NUMERIC", sent_as="text"), '"-12.50"', Decimal("-12.5")),
        (column("NUMERIC", round=True), "0.0000000005", Decimal(0)),
        (column("NUMERIC", round=True), "0.0000000015", Decimal("2e-9")),
        (column("NUMERIC", round=True), "1e-400", Decimal(0)),
        (column("BOOL"), "true", True),
        (column("BOOL", sent_as="text"), '"false"', False),
        (column("DATE"), '"2025-12-08"', date(2025, 12, 8)),
        (column("DATE", format="datetime"), '"2025-12-08T23:30:00-05:00"', date(2025, 12, 9)),
        (column("DATE", format="datetime", zone="UTC"), '"2025-12-08"', date(2025, 12, 8)),
        (column("DATE", format="unix"), "1765152000", date(2025, 12, 8)),
        (column("DATE", format="%d.%m.%Y"), '"08.12.2025"', date(2025, 12, 8)),
        (column("TIMESTAMP"), '"2025-12-08T01:00:00+01:00"', datetime(2025, 12, 8, tzinfo=UTC)),
        (column("TIMESTAMP", format="unix_ms"), "1765152000123", datetime(2025, 12, 8, 0, 0, 0, 123000, UTC)),
        (column("TIMESTAMP", format="unix"), "1765152000.25", datetime(2025, 12, 8, 0, 0, 0, 250000, UTC)),
        (column("TIMESTAMP", format="%Y%m%d", zone="UTC"), '"20251208"', datetime(2025, 12, 8, tzinfo=UTC)),
        (column("JSON"), '{"b": 1.50, "a": [null]}', '{"a":[null],"b":1.50}'),
        (column("STRING", default="d"), "null", "d"),
        (column("DATE", default="2025-12-08"), "null", date(2025, 12, 8)),
        (column("INT64"), "null", None),
    ],
)  # fmt: skip
def test_a_value_is_what_it_was_declared(given: ColumnMap, literal: str, value: Any) -> None:
    (found_value,) = column_array(given, [decode(literal.encode())]).to_pylist()
    assert found_value == value
    assert type(found_value) is type(value)


@pytest.mark.parametrize(
    ("given", "literal", "said"),
    [
        (column("STRING"), "7", "is a number (7) where text was declared"),
        (column("STRING"), "[1]", "is a list ([1])"),
        (column("INT64"), "5.5", "where a whole number was declared"),
        (column("INT64"), "9223372036854775808", "which INT64 does not hold"),
        (column("INT64"), "1e30", "where a whole number was declared"),
        (column("INT64", sent_as="text"), "18", "where a number in quotes was declared"),
        (column("INT64", sent_as="text"), '" 18"', "where a number in quotes was declared"),
        (column("NUMERIC"), "true", "is true or false (true) where a number was declared"),
        (column("NUMERIC"), "0.0000000001", "which NUMERIC (29 digits and 9 places) does not hold"),
        (column("NUMERIC"), "1e29", "does not hold"),
        (column("NUMERIC"), "1e400", "does not hold"),
        (column("NUMERIC", sent_as="text"), '"NaN"', "where a number in quotes was declared"),
        (column("BOOL"), "1", "where true or false was declared"),
        (column("DATE"), '"20251208"', "where a day as 2025-12-08 was declared"),
        (column("DATE"), '"2025-13-01"', "month must be in 1..12"),
        (column("DATE", format="%d.%m.%Y"), '"2025-12-08"', "no moment like %d.%m.%Y"),
        (column("TIMESTAMP"), '"2025-12-08T01:00:00"', "which names no zone"),
        (column("TIMESTAMP"), '"yesterday"', "no moment as RFC 3339"),
        (column("TIMESTAMP", format="unix"), "1e20", "no moment since 1970"),
        (column("STRING", required=True), "null", "is null"),
    ],
)  # fmt: skip
def test_what_it_was_not_is_told(given: ColumnMap, literal: str, said: str) -> None:
    good = [None] if not given.required else []
    with pytest.raises(UnfitError) as unfit:
        column_array(given, [*good, decode(literal.encode())])
    assert said in unfit.value.why
    assert unfit.value.row == len(good)


def test_an_empty_column_has_its_type() -> None:
    assert column_array(column("NUMERIC"), []).type == pa.decimal128(38, 9)


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('<https://a/?page=2>; rel="next"', "https://a/?page=2"),
        ('<https://a/?q=1,2>; rel="prev first", </b>; title="x"; REL=next', "/b"),
        ('<https://a>; rel="last"', None),
        ('<https://a>; rel="next-archive"', None),
        ("", None),
    ],
)
def test_the_next_link_of_a_header(header: str, target: str | None) -> None:
    assert next_link(header) == target

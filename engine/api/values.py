"""JSON values as what a column declares: exactly that, or an error that says what came instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

import msgspec
import pyarrow as pa

from engine.api.config import ColumnMap
from engine.api.paths import MISSING
from engine.schemas import ARROW_TYPES

INT64 = range(-(2**63), 2**63)
#: NUMERIC has 29 digits before the point and 9 after it.
WHOLE_DIGITS, PLACES = 29, 9
SHOWN_CHARS = 60
_WIDE = Context(prec=80)
_NINE = Decimal(1).scaleb(-PLACES)
#: Types of which every value fits as it came.
_AS_THEY_ARE: dict[str, type] = {"STRING": str, "BOOL": bool}
_ISO_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?")
_KINDS = {str: "text", bool: "true or false", int: "a number", Decimal: "a number", dict: "an object"}
_encode = msgspec.json.Encoder(order="sorted", decimal_format="number").encode

type Convert = Callable[[Any], Any]


class UnfitError(Exception):
    """A value that is not what its column declares; `row` counts from 0 within the page."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(why)
        self.row, self.why = row, why


def column_array(column: ColumnMap, values: list[Any]) -> pa.Array:
    """The values of one column of a page as Arrow. Raises UnfitError for the first that does not fit."""
    kind = pa.string() if column.type == "JSON" else ARROW_TYPES[column.type]
    if set(map(type, values)) == {_AS_THEY_ARE.get(column.type)} and column.sent_as == "itself":
        return pa.array(values, kind)
    convert, row = converter(column), -1
    absent = convert_default(column, convert)
    found = []
    try:
        for row, value in enumerate(values):  # noqa: B007 - the error names the row
            if value is MISSING or value is None:
                if column.required:
                    raise ValueError("is not there" if value is MISSING else "is null")
                found.append(absent)
            else:
                found.append(convert(value))
    except ValueError as error:
        raise UnfitError(row, str(error)) from None
    return pa.array(found, kind)


def convert_default(column: ColumnMap, convert: Convert) -> Any:
    """A column's default as its values are; dates may be written as such."""
    if column.default is None or isinstance(column.default, date):
        return column.default
    return convert(column.default)


def converter(column: ColumnMap) -> Convert:
    """What makes one JSON value a value of the column. It raises ValueError, saying why not."""
    match column.type:
        case "STRING":
            return _text
        case "INT64":
            return _from_text(_integer) if column.sent_as == "text" else _integer
        case "NUMERIC":
            exact: Convert = (lambda value: _numeric(value, rounded=True)) if column.round else _numeric
            return _from_text(exact) if column.sent_as == "text" else exact
        case "BOOL":
            return _bool_text if column.sent_as == "text" else _bool
        case "DATE":
            return _day(column.format or "date", column.zone)
        case "TIMESTAMP":
            return _moment(column.format or "datetime", column.zone)
        case "JSON":
            return json_text


def json_text(value: Any) -> str:
    """A value as JSON text, keys sorted and numbers as they came."""
    return _encode(value).decode()


def _came(value: Any) -> str:
    shown = value if isinstance(value, str) else json_text(value)
    return f"is {_KINDS.get(type(value), 'a list')} ({shown[:SHOWN_CHARS]})"


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"{_came(value)} where text was declared")
    return value


def _integer(value: Any) -> int:
    if type(value) is Decimal and value.is_finite() and abs(value.adjusted()) < 20 and value == int(value):
        value = int(value)
    if type(value) is not int:
        raise ValueError(f"{_came(value)} where a whole number was declared")
    if value not in INT64:
        raise ValueError(f"is {value}, which INT64 does not hold")
    return value


def _numeric(value: Any, *, rounded: bool = False) -> Decimal:
    if type(value) is int:
        value = Decimal(value)
    if type(value) is not Decimal:
        raise ValueError(f"{_came(value)} where a number was declared")
    if value.is_finite() and value.adjusted() < WHOLE_DIGITS:
        nine = value.quantize(_NINE, ROUND_HALF_EVEN, context=_WIDE)
        if nine.adjusted() < WHOLE_DIGITS and (rounded or nine == value):
            return nine
    raise ValueError(f"is {str(value)[:SHOWN_CHARS]}, which NUMERIC (29 digits and 9 places) does not hold")


def _from_text(convert: Convert) -> Convert:
    def read(value: Any) -> Any:
        if type(value) is not str or not _NUMBER.fullmatch(value):
            raise ValueError(f"{_came(value)} where a number in quotes was declared")
        return convert(Decimal(value))

    return read


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{_came(value)} where true or false was declared")
    return value


def _bool_text(value: Any) -> bool:
    if value not in ("true", "false"):
        raise ValueError(f'{_came(value)} where "true" or "false" was declared')
    return bool(value == "true")


def _day(form: str, zone: str | None) -> Convert:
    if form == "date":
        return _iso_day
    if "%" in form:
        return lambda value: _parsed(_text(value), form).date()
    moment = _moment(form, zone)
    return lambda value: moment(value).date()


def _iso_day(value: Any) -> date:
    return _iso_text(_text(value))


@lru_cache(maxsize=4096)
def _iso_text(text: str) -> date:
    if not _ISO_DAY.fullmatch(text):
        raise ValueError(f"{_came(text)} where a day as 2025-12-08 was declared")
    return date.fromisoformat(text)


def _moment(form: str, zone: str | None) -> Convert:
    if form in ("unix", "unix_ms"):
        return lambda value: _since_epoch(value, 1000 if form == "unix_ms" else 1)
    return lambda value: _aware(_parsed(_text(value), form), zone)


def _parsed(text: str, form: str) -> datetime:
    try:
        return datetime.strptime(text, form) if "%" in form else datetime.fromisoformat(text)  # noqa: DTZ007
    except ValueError:
        what = f"like {form}" if "%" in form else "as RFC 3339"
        raise ValueError(f"is {text[:SHOWN_CHARS]!r}, no moment {what}") from None


def _aware(moment: datetime, zone: str | None) -> datetime:
    if moment.tzinfo is None and zone is None:
        raise ValueError(f"is {moment.isoformat()}, which names no zone")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _since_epoch(value: Any, per_second: int) -> datetime:
    seconds = _numeric(value) / per_second
    try:
        # Whole seconds and microseconds apart: a float would lose some.
        micros = int((seconds % 1) * 1_000_000)
        return datetime.fromtimestamp(int(seconds), UTC).replace(microsecond=max(micros, 0))
    except (ValueError, OverflowError, OSError, InvalidOperation):
        raise ValueError(f"is {value}, no moment since 1970") from None

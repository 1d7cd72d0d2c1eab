"""From an answer to typed rows: every column as declared, with where each row came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

from engine.api.config import UNKNOWN, ColumnMap, Day, Response
from engine.api.paths import MISSING, Item, Reach, found, items, one, segments
from engine.api.values import UnfitError, column_array, convert_default, converter, json_text
from engine.errors import DataError
from engine.http import Answer
from engine.log import redact
from engine.schemas import ARROW_TYPES

#: Floats as Decimal from their literal: never through binary.
decode = msgspec.json.Decoder(float_hook=Decimal).decode
#: Stands for the body of an answer that a rule says to ignore.
IGNORED: Any = object()
MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class ApiPage:
    """One page: its rows, how many the provider sent, and what the next page is found by."""

    table: pa.Table
    rows: int
    body: Any
    answer: Answer
    unknown: frozenset[str] = frozenset()


class Mapping:
    """Maps the pages of one chain of requests. `name` is the request's, for messages."""

    def __init__(self, response: Response, day: Day, *, credential_id: str, name: str) -> None:
        self._response, self._name = response, name
        self._filled = None if day.source == "row" else day.column
        self._credential_id = credential_id
        self._columns = [
            (column, Reach.parse(column.path)) for column in response.columns if column.path is not None
        ]
        self._constants = [column for column in response.columns if column.path is None]
        self._known = {reach.top for _, reach in self._columns} - {None}
        self._whole = any(reach == Reach(0, False, False, ()) for _, reach in self._columns)
        self.schema = self._arrow()

    def page(self, answer: Answer, body: Any, *, number: int, day: date) -> ApiPage:
        """The rows of an answer, whose body is decoded or IGNORED.

        `number` is the page's (from 1) and `day` what a filled day column holds. Raises DataError for a body
        without the declared rows.
        """
        if body is IGNORED:
            return ApiPage(self.schema.empty_table(), 0, {}, answer)
        rows = self._rows(body, answer, number)
        unknown = self._unknown(rows, number)
        arrays: dict[str, Any] = {}
        for column, reach in self._columns:
            get = reach.getter(body)
            arrays[column.name] = self._array(column, [get(row) for row in rows], number)
        for column in self._constants:
            arrays[column.name] = _constant(column, len(rows))
        if self._filled:
            arrays[self._filled] = pa.repeat(pa.scalar(day, pa.date32()), len(rows))
        if self._response.unknown_fields == "keep_json":
            arrays[UNKNOWN] = pa.array([self._rest(row) for row in rows], pa.string())
        digest = hashlib.sha256(answer.body).hexdigest()
        arrays["x_credential_id"] = pa.repeat(pa.scalar(self._credential_id), len(rows))
        arrays["x_source_sha256"] = pa.repeat(pa.scalar(digest), len(rows))
        arrays["x_source_index"] = pa.array(range(len(rows)), pa.int64())
        table = pa.Table.from_arrays([arrays[name] for name in self.schema.names], schema=self.schema)
        return ApiPage(table, len(rows), body, answer, frozenset(unknown))

    def _rows(self, body: Any, answer: Answer, number: int) -> list[Item]:
        response = self._response
        try:
            rows = list(
                one(body, response.item_names) if response.single else items(body, response.item_names)
            )
        except LookupError as error:
            path = str(error.args[0])
            gone = found(body, segments(path)) in (MISSING, None)
            if gone and response.missing_items == "empty":
                return []
            raise DataError(
                f"{self._name}: page {number} (HTTP {answer.status}) has no rows at "
                f"{path or 'its top'}: {redact(json_text(body))[:200]}",
                fix="If that is an error, add a rule to errors; if it is an empty page, missing_items.",
                field=path,
            ) from None
        if self._known and not self._whole:
            for n, row in enumerate(rows):
                if not isinstance(row.value, dict):
                    raise self._wrong(number, n, f"is no object but {json_text(row.value)[:60]}")
        return rows

    def _array(self, column: ColumnMap, values: list[Any], number: int) -> pa.Array:
        try:
            return column_array(column, values)
        except UnfitError as error:
            said = f"{column.name} (at {column.path or 'the row'}) {error.why} as {column.type}"
            raise self._wrong(number, error.row, said, field=column.name) from None

    def _wrong(self, number: int, row: int, said: str, *, field: str | None = None) -> DataError:
        return DataError(
            f"{self._name}: page {number}, row {row + 1}: {said}.",
            fix="Nothing was published; correct the column's declaration, or report it to the provider.",
            field=field,
        )

    def _unknown(self, rows: list[Item], number: int) -> set[str]:
        """Fields of the rows that no column reads. Raises DataError where the config says so."""
        if self._whole:
            return set()
        unknown: set[str] = set()
        for n, row in enumerate(rows):
            if isinstance(row.value, dict) and (more := row.value.keys() - self._known):
                if self._response.unknown_fields == "fail":
                    named = ", ".join(sorted(more)[:MOST_NAMED])
                    raise self._wrong(number, n, f"has fields that no column reads: {named}")
                unknown |= more
        return unknown

    def _rest(self, row: Item) -> str | None:
        if self._whole or not isinstance(row.value, dict):
            return None
        rest = {name: value for name, value in row.value.items() if name not in self._known}
        return json_text(rest) if rest else None

    def _arrow(self) -> pa.Schema:
        fields = [(column.name, _type(column)) for column in self._response.columns]
        if self._filled:
            fields.insert(0, (self._filled, pa.date32()))
        if self._response.unknown_fields == "keep_json":
            fields.append((UNKNOWN, pa.string()))
        fields += [
            ("x_credential_id", pa.string()),
            ("x_source_sha256", pa.string()),
            ("x_source_index", pa.int64()),
        ]
        return pa.schema(fields)


def _type(column: ColumnMap) -> pa.DataType:
    return pa.string() if column.type == "JSON" else ARROW_TYPES[column.type]


def _constant(column: ColumnMap, rows: int) -> pa.Array:
    value = column.model_copy(update={"default": column.value})
    return pa.array([convert_default(value, converter(column))] * rows, _type(column))

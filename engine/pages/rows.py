"""Report rows from JSON: a fast way for what the documentation lists, a slow one that keeps what it does not.

The fast way decodes straight into structs that forbid unknown fields. When it refuses, the page is decoded
again without types: unknown fields are set aside as JSON text, and what is really wrong is named by its full
JSON path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cached_property
from hashlib import sha256
from itertools import chain, repeat
from types import GenericAlias
from typing import Annotated, Any

import msgspec
import pyarrow as pa

#: A counter as the warehouse holds it. Strings are refused: both vendors document JSON integers, and a
#: changed type is a changed contract that somebody should see before it is billed.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_UNTYPED = msgspec.json.Decoder(float_hook=Decimal)
_EXTRAS = msgspec.json.Encoder(order="sorted", decimal_format="number")
_AT = re.compile(r"`\$")


@dataclass(frozen=True)
class RowShape:
    """A documented row: its struct, its counters, and the shapes of the objects nested in it."""

    struct: type[msgspec.Struct]
    counters: frozenset[str] = frozenset()
    nested: Mapping[str, RowShape] = field(default_factory=dict)

    @cached_property
    def known(self) -> frozenset[str]:
        """The documented field names."""
        return frozenset(self.struct.__struct_encode_fields__)

    def take_unknown(self, row: dict[str, Any]) -> dict[str, Any]:
        """Remove from `row` what the struct does not know, and return it."""
        extra = {name: row.pop(name) for name in row.keys() - self.known}
        for name, shape in self.nested.items():
            if isinstance(inside := row.get(name), dict) and (unknown := shape.take_unknown(inside)):
                extra[name] = unknown
        return extra

    def whole(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return `row` with its counters as integers where they are whole numbers."""
        counted = {name: _whole(value) if name in self.counters else value for name, value in row.items()}
        for name, shape in self.nested.items():
            if isinstance(inside := counted.get(name), dict):
                counted[name] = shape.whole(inside)
        return counted


def _whole(value: object) -> object:
    """Read `5.0` as 5: JSON has one number type, and OpenAPI's integer means the value, not its spelling."""
    if isinstance(value, Decimal) and value.adjusted() < 19 and value == value.to_integral_value():
        return int(value)
    return value


class Envelope(msgspec.Struct):
    """What both vendors wrap their buckets in; `has_more` is required so that a cut list is never an end."""

    data: list[Any]
    has_more: bool
    next_page: str | None = None


@dataclass(frozen=True)
class RowPage:
    """A decoded page: buckets with their rows under `results`, and each row's unknown fields if there are."""

    buckets: Sequence[Any]
    has_more: bool
    next_page: str | None
    extras: Sequence[str | None] | None

    @cached_property
    def rows(self) -> list[msgspec.Struct]:
        """All rows in the order of the page."""
        return list(chain.from_iterable(bucket.results for bucket in self.buckets))

    def lineage(self, days: Sequence[date], body: bytes, *, credential_id: str) -> dict[str, pa.Array]:
        """Build the columns that say where rows come from; `days` are the buckets', `body` the raw page."""
        size = len(self.rows)
        lengths = (len(bucket.results) for bucket in self.buckets)
        dated = chain.from_iterable(map(repeat, days, lengths))
        origin = {
            "usage_date": pa.array(list(dated), pa.date32()),
            "x_credential_id": pa.repeat(credential_id, size),
            "x_source_sha256": pa.repeat(sha256(body).hexdigest(), size),
            "x_source_index": pa.array(range(size), pa.int64()),
        }
        return origin if self.extras is None else origin | {"extra": pa.array(self.extras, pa.string())}


class RowDecoder:
    """Decodes the pages of one report; `bucket` has `results: list[shape.struct]`.

    Raises msgspec.DecodeError for a body that is not JSON and msgspec.ValidationError, with the JSON path,
    for one that breaks the contract.
    """

    def __init__(self, bucket: type[msgspec.Struct], shape: RowShape) -> None:
        page = msgspec.defstruct(
            "Page",
            [("data", list_of(bucket)), ("has_more", bool), ("next_page", str | None, None)],
        )
        self._fast = msgspec.json.Decoder(page)
        self._bucket = bucket
        self._all: Any = list_of(shape.struct)
        self._shape = shape

    def decode(self, body: bytes) -> RowPage:
        """Decode one page."""
        try:
            page: Any = self._fast.decode(body)
        except msgspec.ValidationError:
            return self._slowly(body)
        return RowPage(page.data, page.has_more, page.next_page, None)

    def _slowly(self, body: bytes) -> RowPage:
        page = _typed(_UNTYPED.decode(body), Envelope, "$")
        extras: list[str | None] = []
        buckets = [self._kept(raw, f"$.data[{place}]", extras) for place, raw in enumerate(page.data)]
        return RowPage(buckets, page.has_more, page.next_page, extras if any(extras) else None)

    def _kept(self, raw: Any, place: str, extras: list[str | None]) -> Any:
        rows = raw.get("results") if isinstance(raw, dict) else None
        if not isinstance(rows, list):
            return _typed(raw, self._bucket, place)
        bucket: Any = _typed({**raw, "results": []}, self._bucket, place)
        for row in rows:
            extra = self._shape.take_unknown(row) if isinstance(row, dict) else {}
            extras.append(_EXTRAS.encode(extra).decode() if extra else None)
        bucket.results = self._rows(rows, place)
        return bucket

    def _rows(self, rows: list[Any], place: str) -> list[Any]:
        try:
            found: list[Any] = msgspec.convert(rows, self._all)
            return found
        except msgspec.ValidationError:
            # One by one: only so is the row's index known.
            whole = [self._shape.whole(row) if isinstance(row, dict) else row for row in rows]
            return [
                _typed(row, self._shape.struct, f"{place}.results[{index}]")
                for index, row in enumerate(whole)
            ]


def _typed[T](value: Any, kind: type[T], place: str) -> T:
    """Convert, and name the place in the whole document when that fails."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        said = str(error)
        located = _AT.sub(f"`{place}", said) if _AT.search(said) else f"{said} - at `{place}`"
        raise msgspec.ValidationError(located) from None


def list_of(kind: type) -> GenericAlias:
    """Return `list[kind]` for a type that is made at run time."""
    return GenericAlias(list, (kind,))


def columns(rows: Sequence[msgspec.Struct], width: int) -> Iterator[Sequence[Any]]:
    """Turn rows into columns in the order of the struct's fields, without a loop in Python."""
    return zip(*map(msgspec.structs.astuple, rows), strict=True) if rows else iter([()] * width)


def table_of(found: Mapping[str, pa.Array], schema: pa.Schema, *, size: int) -> pa.Table:
    """Assemble a table of `schema`; a column that was not found is NULL in all `size` rows."""
    arrays = [found[f.name] if f.name in found else pa.nulls(size, f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)

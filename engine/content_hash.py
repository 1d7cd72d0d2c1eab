"""What a partition holds, as one string: equal content has an equal hash, whoever loaded it, in any order.

`v1:` + SHA-256 over the schema's hashed columns in file order, rows sorted by the schema's key. A column that
holds anything gives its name, type and mode, then its values, each piece after its length in bytes:
a validity bit a row, and fixed width values little-endian with nulls zeroed, or int64 lengths and the bytes
of strings. A list column gives int64 lengths and then its flattened values. A column that holds nothing is
left out, so that a new NULLABLE column leaves the hashes of history as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.schemas import Column, Schema

VERSION = "v1"


def content_hash(table: pa.Table, schema: Schema) -> str:
    """Hash a table of the schema's columns (others are ignored), as `v1:<64 hex digits>`.

    Raises pyarrow.ArrowInvalid for a value that the column's type cannot hold exactly.
    """
    columns = {column.name: _canonical(table[column.name], column) for column in schema.hashed}
    order = _order(columns, schema)
    digest = hashlib.sha256(_frame({"rows": table.num_rows}))
    for column in schema.hashed:
        values = columns[column.name].take(order)
        if not _is_blank(values):
            digest.update(_frame({"name": column.name, "type": column.type, "mode": _mode(column)}))
            for piece in _pieces(values):
                digest.update(len(piece).to_bytes(8, "little"))
                digest.update(piece)
    return f"{VERSION}:{digest.hexdigest()}"


def _mode(column: Column) -> str:
    # NULLABLE and REQUIRED hold the same values: relaxing a column changes no content.
    return "REPEATED" if column.mode == "REPEATED" else "SINGLE"


def _frame(header: dict[str, object]) -> bytes:
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text


def _canonical(values: pa.ChunkedArray, column: Column) -> pa.Array:
    """One array of the type BigQuery returns, with one spelling for each value."""
    array = values.cast(column.arrow.type)
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], type=column.arrow.type)
    if column.mode == "REPEATED":
        return _lists(array)
    return _spelled(array)


def _spelled(array: pa.Array) -> pa.Array:
    if not pa.types.is_floating(array.type):
        return array
    # -0.0 + 0.0 is 0.0, and every NaN becomes the same one.
    added = pc.add(array, 0.0)
    return pc.if_else(pc.is_nan(added), pa.scalar(float("nan"), array.type), added)


def _lists(array: pa.Array) -> pa.Array:
    """NULL lists become empty ones; the values lie in one run from offset 0."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    return pa.LargeListArray.from_arrays(pa.array(offsets), _spelled(array.flatten()))


def _order(columns: dict[str, pa.Array], schema: Schema) -> pa.Array:
    """Row order that depends on content alone: the key, then every other sortable column."""
    sortable = [name for name, array in columns.items() if not pa.types.is_large_list(array.type)]
    leading = [name for name in schema.key if name in sortable]
    if set(leading) == set(schema.key):
        names = leading
    else:
        # Part of the key is lineage, which is not hashed: ties are broken by the rest of the content.
        names = [*leading, *(name for name in sortable if name not in leading)]
    if not names:
        return pa.array(np.arange(len(next(iter(columns.values())))))
    table = pa.table({name: columns[name] for name in names})
    return pc.sort_indices(table, sort_keys=[(name, "ascending", "at_end") for name in names])


def _is_blank(array: pa.Array) -> bool:
    if pa.types.is_large_list(array.type):
        return len(array.flatten()) == 0
    return bool(array.null_count == len(array))


def _pieces(array: pa.Array) -> Iterator[bytes | memoryview]:
    if pa.types.is_large_list(array.type):
        yield _lengths(pc.list_value_length(array))
        yield from _pieces(array.flatten())
        return
    yield np.packbits(array.is_valid().to_numpy(zero_copy_only=False), bitorder="little").tobytes()
    if pa.types.is_string(array.type) or pa.types.is_binary(array.type):
        filled = array.cast(pa.large_binary()).fill_null(b"")
        yield _lengths(pc.binary_length(filled))
        offsets = np.frombuffer(filled.buffers()[1], dtype="<i8")[
            filled.offset : filled.offset + len(filled) + 1
        ]
        data = filled.buffers()[2]
        yield b"" if data is None else memoryview(data)[int(offsets[0]) : int(offsets[-1])]
        return
    yield _fixed(array)


def _lengths(array: pa.Array) -> bytes:
    return bytes(array.cast(pa.int64()).to_numpy(zero_copy_only=False).astype("<i8").tobytes())


def _fixed(array: pa.Array) -> bytes:
    if pa.types.is_decimal(array.type):
        filled = array.fill_null(pa.scalar(0, pa.int64()).cast(array.type))
        width = array.type.byte_width
        return bytes(filled.buffers()[1])[filled.offset * width : (filled.offset + len(filled)) * width]
    stored: Any = array
    if pa.types.is_boolean(array.type):
        stored = array.cast(pa.uint8())
    elif pa.types.is_date32(array.type):
        stored = array.cast(pa.int32())
    elif pa.types.is_timestamp(array.type):
        stored = array.cast(pa.int64())
    numbers = stored.fill_null(0).to_numpy(zero_copy_only=False)
    return bytes(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes())

"""Repeated records of an export as JSON text, one way to write each value, built a column at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def json_objects(lists: pa.Array, *, key: str = "key", value: str = "value") -> pa.Array:
    """Lists of {key, value} as objects like {"env":"prod","team":"a"}, keys sorted; NULL for an empty list.

    A key that comes twice with different values keeps both: the second is called `key#2`.
    """
    entries, rows = _flat(lists)
    keys = pc.fill_null(entries.field(key), "")
    values = entries.field(value)
    order = _order(rows, keys, values)
    rows, keys, values = rows[order], keys.take(pa.array(order)), values.take(pa.array(order))
    keep, again = _repeats(rows, keys, values)
    rows, keys, values = rows[keep], keys.filter(pa.array(keep)), values.filter(pa.array(keep))
    again = again[keep]
    if again.any():
        numbered = pc.binary_join_element_wise(keys, pa.array(again + 1).cast(pa.string()), "#")
        keys = pc.if_else(pa.array(again > 0), numbered, keys)
    pieces = pc.binary_join_element_wise(_quoted(keys), _quoted(values), ":")
    return _joined(pieces, rows, len(lists), "{", "}")


def json_arrays(lists: pa.Array, fields: Mapping[str, pa.Array | None]) -> pa.Array:
    """Lists of records as arrays of objects, in the source's order; NULL for an empty list.

    `fields` are the records' values by name, flattened as `flat` does; names are written in sorted order.
    """
    _, rows = _flat(lists)
    parts: list[Any] = []
    for place, name in enumerate(sorted(fields)):
        values = fields[name]
        text = pa.repeat(pa.scalar("null"), len(rows)) if values is None else _quoted(values)
        parts += [f'{"," if place else "{"}"{name}":', text]
    pieces = pc.binary_join_element_wise(*parts, "}", "") if len(rows) else pa.array([], pa.string())
    return _joined(pieces, rows, len(lists), "[", "]")


def flat(lists: pa.Array) -> tuple[pa.StructArray, Any]:
    """The records of all lists in one array, and the number of the list that each came from."""
    return _flat(lists)


def _flat(lists: pa.Array) -> tuple[pa.StructArray, Any]:
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return lists.flatten(), np.repeat(np.arange(len(lists)), lengths)


def _order(rows: Any, keys: pa.Array, values: pa.Array) -> Any:
    by = pa.table({"row": pa.array(rows), "key": keys, "value": values})
    return pc.sort_indices(by, sort_keys=[(name, "ascending") for name in by.column_names]).to_numpy()


def _repeats(rows: Any, keys: pa.Array, values: pa.Array) -> tuple[Any, Any]:
    """Which of the sorted entries stay (the same pair again says nothing), and how often a key came."""
    keep, again = np.ones(len(rows), bool), np.zeros(len(rows), np.int64)
    if len(rows) < 2:
        return keep, again
    same_row = rows[1:] == rows[:-1]
    same = same_row & pc.equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
    for place in (np.flatnonzero(same) + 1).tolist():
        keep[place] = values[place] != values[place - 1]
        again[place] = again[place - 1] + int(keep[place])
    return keep, again


def _quoted(values: pa.Array) -> pa.Array:
    """Each value as JSON text: strings and decimals in quotes, booleans and NULL bare."""
    if pa.types.is_boolean(values.type):
        return pc.fill_null(values.cast(pa.string()), "null")
    # Labels come again and again: each spelling is written once.
    coded = values.cast(pa.string()).dictionary_encode()
    texts = coded.dictionary.to_pylist()
    if pa.types.is_decimal(values.type):
        # Arrow writes -0.000000033 as -3.3E-8, which not every reader takes for a number.
        texts = [f"{Decimal(text):f}" if "E" in text else text for text in texts]
    spelled = pa.array([json.dumps(text, ensure_ascii=False) for text in texts], pa.string())
    return pc.fill_null(spelled.take(coded.indices), "null")


def _joined(pieces: pa.Array, rows: Any, count: int, before: str, after: str) -> pa.Array:
    offsets = np.searchsorted(rows, np.arange(count + 1)).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pieces.cast(pa.string()))
    text = pc.binary_join_element_wise(before, pc.binary_join(lists, ","), after, "")
    return pc.if_else(pa.array(np.diff(offsets) > 0), text, pa.scalar(None, pa.string()))

"""A name for each row of a source that has none: what it holds, and which of its exact copies it is."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: An odd constant; to change it is to load every partition again.
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HEX = np.array([f"{number:02x}".encode() for number in range(256)], dtype="S2")

type Lanes = tuple[Any, Any]


def row_hashes(batch: pa.RecordBatch | pa.Table) -> Lanes:
    """Two 64-bit hashes of each row's content.

    A column adds to them by its name and not by its place, and NULL adds nothing: a column that a later
    version knows and that is empty changes no name.
    """
    first = np.zeros(batch.num_rows, np.uint64)
    second = np.zeros(batch.num_rows, np.uint64)
    for name in batch.schema.names:
        column = batch[name]
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if array.null_count == len(array):
            continue
        for part, words in enumerate(_words(array)):
            key_one, key_two = _keys(f"{name}/{part}")
            mixed = (words[0] + key_two) * _MIX
            mixed ^= mixed >> np.uint64(32)
            other = mixed if words[1] is words[0] else (words[1] + key_one) * _MIX
            if array.null_count:
                known = array.is_valid().to_numpy(zero_copy_only=False)
                mixed, other = np.where(known, mixed, 0), np.where(known, other, 0)
            first += mixed * key_one
            second += (other ^ (other >> np.uint64(29))) * key_two
    return first, second


def row_ids(first: Any, second: Any) -> pa.Array:
    """32 hex digits a row; the copies of a row are told apart by `-2`, `-3`, in no particular order."""
    count = len(first)
    mixed = np.empty((count, 2), dtype=">u8")
    mixed[:, 0], mixed[:, 1] = first, second
    digits = _HEX[mixed.view(np.uint8).reshape(-1)] if count else np.empty(0, "S2")
    offsets = np.arange(0, 32 * (count + 1), 32, dtype=np.int32)
    text = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(digits.tobytes()))
    copies = _copies(first, second)
    if not copies.any():
        return text
    numbered = pc.binary_join_element_wise(text, pa.array(copies + 1).cast(pa.string()), "-")
    return pc.if_else(pa.array(copies > 0), numbered, text)


def _copies(first: Any, second: Any) -> Any:
    """How many equal rows come before each row."""
    order = np.lexsort((second, first))
    same = np.zeros(len(first), bool)
    same[1:] = (first[order][1:] == first[order][:-1]) & (second[order][1:] == second[order][:-1])
    places = np.arange(len(first))
    starts = np.maximum.accumulate(np.where(same, 0, places))
    counted = np.empty(len(first), np.int64)
    counted[order] = places - starts
    return counted


def _keys(name: str) -> Lanes:
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    one, two = np.frombuffer(digest, dtype="<u8")
    return one | np.uint64(1), two | np.uint64(1)


def _words(array: pa.Array) -> list[Lanes]:
    """The values as 64-bit words, one or two a value; text by the hash of each spelling."""
    if pa.types.is_string(array.type):
        array = array.dictionary_encode()
    if pa.types.is_dictionary(array.type):
        texts = array.dictionary.to_pylist()
        digests = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
        pairs = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
        places = array.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return [(pairs[places, 0], pairs[places, 1])]
    if pa.types.is_decimal(array.type):
        filled = array.fill_null(pa.scalar(0, pa.int64()).cast(array.type))
        stored = np.frombuffer(filled.buffers()[1], dtype="<u8")
        halves = stored[2 * filled.offset : 2 * (filled.offset + len(filled))].reshape(-1, 2)
        return [(halves[:, 0], halves[:, 0]), (halves[:, 1], halves[:, 1])]
    kind = pa.int32() if pa.types.is_date32(array.type) else pa.int64()
    numbers = array.cast(kind).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64)
    return [(numbers, numbers)]

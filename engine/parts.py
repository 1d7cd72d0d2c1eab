"""A unit's table cut into one part a day, each with its content hash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.content_hash import content_hash
from engine.errors import InternalError
from engine.schemas import Schema


@dataclass(frozen=True)
class Part:
    """What one partition shall hold; the table may have no rows."""

    day: date
    table: pa.Table
    content_hash: str
    provisional: bool


def split(
    table: pa.Table, schema: Schema, days: Sequence[date], provisional: frozenset[date]
) -> tuple[Part, ...]:
    """Cut an audited table by its partition column; each of `days` gets a part, with or without rows."""
    if schema.partition is None:
        raise InternalError(f"{schema.table} has no partition column.", fix="Name one in the schema file.")
    # Key order inside a day: the same content makes the same file.
    by = [schema.partition, *(name for name in schema.key if name != schema.partition)]
    order = pc.sort_indices(table.select(by), sort_keys=[(name, "ascending", "at_end") for name in by])
    # A table that comes in this order is not copied: its parts are views of it.
    if not np.array_equal(order.to_numpy(), np.arange(table.num_rows)):
        table = table.take(order)
    stored = table[schema.partition].cast(pa.int32()).to_numpy()
    numbers = pa.array(days, pa.date32()).cast(pa.int32()).to_numpy()
    first = np.searchsorted(stored, numbers, side="left")
    after = np.searchsorted(stored, numbers, side="right")
    parts = []
    for day, start, stop in zip(days, first, after, strict=True):
        rows = table.slice(int(start), int(stop - start))
        parts.append(Part(day, rows, content_hash(rows, schema), day in provisional))
    return tuple(parts)

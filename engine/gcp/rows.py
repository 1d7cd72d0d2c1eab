"""Batches of an export as exact, flat rows: amounts as decimals, lists as JSON text, a name for each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.gcp.amounts import MONEY, add, exact
from engine.gcp.columns import ENTRIES, FIELDS, Field
from engine.gcp.json_text import flat, json_arrays, json_objects
from engine.gcp.row_ids import row_hashes, row_ids

#: What a row's name is made of, and so what two rows must share to be copies of each other.
CONTENT = pa.schema(
    [
        ("usage_date", pa.date32()),
        *(
            (
                field.name,
                {"time": pa.timestamp("us", tz="UTC"), "amount": MONEY}.get(field.kind, pa.string()),
            )
            for field in FIELDS
        ),
        ("credits_total", MONEY),
        ("net_cost", MONEY),
    ]
)
ROWS = pa.schema(
    [*CONTENT, ("row_id", pa.string()), ("x_credential_id", pa.string()), ("x_export_table", pa.string())]
)
#: Rows worked on together, whatever the source sends in one message: what is made on the way is large.
AT_ONCE = 20_000
NOTHING = pa.scalar(0, pa.int64()).cast(MONEY)


class Gathered:
    """Rows of one unit, batch by batch; `table` names and sorts them.

    Text is held by its spellings: an export writes the same labels, SKUs and projects again and again.
    """

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._hashes: list[tuple[Any, Any]] = []

    def take(self, batch: pa.RecordBatch, *, credential_id: str, address: str) -> int:
        """Take one batch of the statement `engine.gcp.sql.rows`; answers how many rows it had."""
        for start in range(0, batch.num_rows, AT_ONCE):
            self._take(batch.slice(start, AT_ONCE), credential_id=credential_id, address=address)
        return int(batch.num_rows)

    def _take(self, batch: pa.RecordBatch, *, credential_id: str, address: str) -> None:
        content = content_of(batch)
        columns = [_spelled(column) for column in content.columns]
        held = pa.RecordBatch.from_arrays(columns, names=content.schema.names)
        self._hashes.append(row_hashes(held))
        origin = {"x_credential_id": credential_id, "x_export_table": address}
        for name, text in origin.items():
            held = held.append_column(name, _spelled(pa.repeat(pa.scalar(text), batch.num_rows)))
        self._batches.append(held)

    def table(self) -> pa.Table:
        """Everything taken, each row with its `row_id`, by day and name; empties this object.

        What no export had is left out. Columns are sorted one after the other, and what was taken is let go
        of as it goes: at no time is everything there twice.
        """
        batches, hashes = self._batches, self._hashes
        self._batches, self._hashes = [], []
        if not batches:
            return ROWS.empty_table()
        first, second = (np.concatenate(lane) for lane in zip(*hashes, strict=True))
        ids = row_ids(first, second)
        columns = {
            name: pa.chunked_array([batch[name] for batch in batches])
            for name in batches[0].schema.names
            if any(batch[name].null_count < len(batch) for batch in batches)
        }
        batches.clear()
        by = pa.table({"usage_date": columns["usage_date"], "row_id": ids})
        order = pc.sort_indices(by, sort_keys=[("usage_date", "ascending"), ("row_id", "ascending")])
        done = {"row_id": ids.take(order)}
        for name in list(columns):
            done[name] = _taken(columns.pop(name), order)
        return pa.table({name: done[name] for name in ROWS.names if name in done})


def _spelled(array: pa.Array) -> pa.Array:
    return array.dictionary_encode() if pa.types.is_string(array.type) else array


def _taken(column: pa.ChunkedArray, order: pa.Array) -> pa.ChunkedArray:
    return (column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column).take(order)


def content_of(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch in the columns of `CONTENT`; what the export lacks is NULL.

    Raises DataError for an amount that is none.
    """
    columns: dict[str, pa.Array] = {"usage_date": batch["usage_date"].cast(pa.date32())}
    totals = pa.repeat(NOTHING, batch.num_rows)
    for field in FIELDS:
        if field.name not in batch.schema.names:
            columns[field.name] = pa.nulls(batch.num_rows, CONTENT.field(field.name).type)
        elif field.kind == "credits":
            columns[field.name], totals = _credits(batch[field.name])
        else:
            columns[field.name] = _column(field, batch[field.name])
    columns["credits_total"] = totals
    columns["net_cost"] = add(columns["cost"], totals)
    return pa.RecordBatch.from_arrays([columns[name] for name in CONTENT.names], schema=CONTENT)


def _column(field: Field, values: pa.Array) -> pa.Array:
    match field.kind:
        case "amount":
            return exact(values, name=field.path)
        case "pairs":
            return json_objects(values)
        case "tags" | "ancestors":
            entries, _ = flat(values)
            return json_arrays(values, {name: _entry(entries, name) for name in ENTRIES[field.kind]})
    return values.cast(CONTENT.field(field.name).type)


def _credits(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Credits as text with exact amounts, and each row's sum of those very amounts."""
    entries, rows = flat(values)
    given = _entry(entries, "amount")
    amounts = pa.nulls(len(rows), MONEY) if given is None else exact(given, name="credits.amount")
    parts = {name: _entry(entries, name) for name in ENTRIES["credits"]}
    text = json_arrays(values, {**parts, "amount": amounts})
    return text, _summed(amounts, rows, len(values))


def _summed(amounts: pa.Array, rows: Any, count: int) -> pa.Array:
    if not len(rows):
        return pa.repeat(NOTHING, count)
    sums = pa.table({"row": rows, "amount": amounts}).group_by("row", use_threads=False)
    found = sums.aggregate([("amount", "sum")])
    where = np.zeros(count, bool)
    where[found["row"].to_numpy()] = True
    filled = pc.fill_null(found["amount_sum"].combine_chunks().cast(MONEY), NOTHING)
    return pc.replace_with_mask(pa.repeat(NOTHING, count), pa.array(where), filled)


def _entry(entries: pa.StructArray, name: str) -> pa.Array | None:
    """A field of list entries, NULL where the entry is; None when the export's lists do not have it."""
    if entries.type.get_field_index(name) < 0:
        return None
    return pc.struct_field(entries, name)


def read(batches: Iterable[pa.RecordBatch], *, credential_id: str, address: str) -> pa.Table:
    """Every row of some batches as one table: what the tests and the benchmark look at."""
    gathered = Gathered()
    for batch in batches:
        gathered.take(batch, credential_id=credential_id, address=address)
    return gathered.table()


def sorted_days(found: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The load partitions that an answer of `located` names, each once, ascending."""
    return sorted({row["load_partition"] for row in found})

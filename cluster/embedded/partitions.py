"""Partition decorators: `table$20251208` as a destination, which local-bigquery takes for a table's name."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from local_bigquery.catalog import names, tables
from local_bigquery.engine import database, results
from local_bigquery.errors import BigQueryError

from cluster.embedded import marks

Reference = tuple[str, str, str]

FORMATS = {"HOUR": ("%Y%m%d%H", 10), "DAY": ("%Y%m%d", 8), "MONTH": ("%Y%m", 6), "YEAR": ("%Y", 4)}

_reference, _write, _delete = tables.reference, tables.write, tables.delete


class Decorated(str):
    """A table id that remembers the partition it was written with; to everyone else it is the bare id."""

    __slots__ = ("partition_id",)
    partition_id: str


def install() -> None:
    """Teach local-bigquery's table functions the decorator."""
    tables.reference, tables.write, tables.delete = reference, write, delete


def reference(table: Any) -> Reference:
    """Name the destination, its decorator taken off and remembered."""
    project, dataset, table_id = _reference(table)
    return project, dataset, _split(table_id)


def write(
    cur: Any,
    query: str,
    params: dict[str, Any] | None,
    ref: Reference,
    config: Any,
    default: str = "WRITE_EMPTY",
    prefix: str = "Invalid schema update. ",
    isolated: bool = False,
) -> bool:
    """Write a query's rows; into one partition where the destination names one. True: table is new."""
    if not isinstance(ref[2], Decorated):
        created: bool = _write(cur, query, params, ref, config, default, prefix, isolated)
        return created
    base, where = _base(ref), _predicate(ref)
    disposition = config.writeDisposition or default
    with database.writing(*base), database.cursor() as writer:
        _refuse_strangers(cur, query, params, ref, where)
        if disposition == "WRITE_EMPTY" and _has_rows(cur, base, where):
            raise BigQueryError(
                "duplicate", f"Already Exists: Partition {names.label(*base)}${ref[2].partition_id}"
            )
        relation = cur.sql(query, params=params)
        writer.execute("BEGIN TRANSACTION")
        try:
            tables.evolve(writer, base, relation, getattr(config, "schemaUpdateOptions", None), prefix)
            if disposition == "WRITE_TRUNCATE":
                writer.execute(f"DELETE FROM {tables.name(*base)} WHERE {where}")
            marks.sign(writer, tables.name(*base), query, params)
            results.materialise(cur, query, tables.name(*base), params, True, writer)
            writer.execute("COMMIT")
        except BaseException:
            writer.execute("ROLLBACK")
            raise
    return False


def delete(project: str, dataset: str, table_id: str) -> None:
    """Delete a table, or only the rows of the partition that is named."""
    ref = (project, dataset, _split(table_id))
    if not isinstance(ref[2], Decorated):
        _delete(project, dataset, table_id)
        return
    base, where = _base(ref), _predicate(ref)
    with database.writing(*base), database.cursor() as cur:
        cur.execute(f"DELETE FROM {tables.name(*base)} WHERE {where}")


def _split(table_id: str) -> str:
    base, sign, partition = table_id.partition("$")
    if not sign:
        return table_id
    decorated = Decorated(base)
    decorated.partition_id = partition
    return decorated


def _base(ref: Reference) -> Reference:
    return ref[0], ref[1], str(ref[2])


def _predicate(ref: Reference) -> str:
    """The partition as a half-open range over the bare column, so that DuckLake can skip whole files."""
    assert isinstance(ref[2], Decorated)  # noqa: S101  (both callers have just asked)
    partition = ref[2].partition_id
    stored = tables.load(*_base(ref))
    layout = stored.timePartitioning
    if not layout or not layout.field:
        raise _unsupported(ref, "the table is not partitioned by a column")
    unit = layout.type or "DAY"
    first = _start(ref, unit, partition)
    column = next((f for f in tables.fields(stored) if f.name.casefold() == layout.field.casefold()), None)
    kind = "DATE" if column is not None and column.type == "DATE" else "TIMESTAMP"
    name = database.quote(layout.field)
    return f"({name} >= {kind} '{first}' AND {name} < {kind} '{_after(first, unit)}')"


def _start(ref: Reference, unit: str, partition: str) -> datetime:
    form, length = FORMATS[unit]
    try:
        if len(partition) != length or not partition.isdigit():
            raise ValueError
        # BigQuery's partitions are cut in UTC and DuckDB runs in UTC here: no zone in the literal.
        return datetime.strptime(partition, form)  # noqa: DTZ007
    except ValueError:
        raise _unsupported(ref, f"a {unit} partition is written as {form}") from None


def _after(first: datetime, unit: str) -> datetime:
    if unit == "HOUR":
        return first + timedelta(hours=1)
    if unit == "DAY":
        return first + timedelta(days=1)
    if unit == "MONTH":
        return (first + timedelta(days=32)).replace(day=1)
    return first.replace(year=first.year + 1)


def _unsupported(ref: Reference, why: str) -> BigQueryError:
    partition = getattr(ref[2], "partition_id", "")
    label = names.label(*_base(ref))
    return BigQueryError(
        "invalid", f"Partition decorator ${partition} is not supported on table {label}: {why}"
    )


def _refuse_strangers(cur: Any, query: str, params: Any, ref: Reference, where: str) -> None:
    # IS NOT TRUE also counts rows whose partition column is NULL: they belong to __NULL__.
    strangers = f"SELECT count(*) FROM ({query}) WHERE {where} IS NOT TRUE"
    [(count,)] = cur.sql(strangers, params=params).fetchall()
    if count:
        partition = getattr(ref[2], "partition_id", "")
        raise BigQueryError(
            "invalid",
            f"Some rows belong to different partitions rather than destination partition {partition}",
        )


def _has_rows(cur: Any, base: Reference, where: str) -> bool:
    found = cur.sql(f"SELECT 1 FROM {tables.name(*base)} WHERE {where} LIMIT 1").fetchone()
    return found is not None

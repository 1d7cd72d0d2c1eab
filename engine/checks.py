"""Audits on Arrow tables before anything is published: what a schema always demands, and declared checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from engine.errors import AuditError
from engine.schemas import Column, Schema
from engine.types import Unit

#: How many offending values a message shows, and how long each may be.
SHOWN, SHOWN_CHARS = 3, 80


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NotNegative(_Declared):
    """No value of these columns is below zero."""

    #: `not_negative`
    kind: Literal["not_negative"]
    #: No value below zero; NULL passes.
    columns: tuple[str, ...] = Field(min_length=1)


class Sum(_Declared):
    """`total` is exactly the sum of `parts`; all of them NULL together is an amount that is not known."""

    #: `sum`
    kind: Literal["sum"]
    #: Exactly the sum of the parts; all of them NULL together passes.
    total: str
    #: Columns.
    parts: tuple[str, ...] = Field(min_length=1)


class Accepted(_Declared):
    """Every value of `column` is one of `values`; NULL passes."""

    #: `accepted`
    kind: Literal["accepted"]
    #: Column whose values are checked; NULL passes.
    column: str
    #: The accepted ones.
    values: tuple[str | int | bool, ...] = Field(min_length=1)


Check = Annotated[NotNegative | Sum | Accepted, Field(discriminator="kind")]


def audit(table: pa.Table, schema: Schema, checks: Sequence[Check], unit: Unit) -> pa.Table:
    """Answer the table in the schema's columns, order and types, or refuse it.

    A missing NULLABLE or REPEATED column becomes NULLs; text may stay dictionary-encoded. Raises AuditError
    naming table, check, column and the first offending values.
    """
    table = _conform(table, schema)
    _required(table, schema)
    _key(table, schema)
    _days(table, schema, unit)
    if "x_org_slug" in schema.arrow.names:
        _refuse(table, schema, "organisation", "x_org_slug", pc.not_equal(table["x_org_slug"], unit.org))
    for check in checks:
        _declared(table, schema, check)
    return table


def columns_of(check: Check) -> tuple[str, ...]:
    """The columns a check names, so that a config can be validated without rows."""
    if isinstance(check, NotNegative):
        return check.columns
    return (check.total, *check.parts) if isinstance(check, Sum) else (check.column,)


def _conform(table: pa.Table, schema: Schema) -> pa.Table:
    if unknown := [name for name in table.column_names if name not in schema.arrow.names]:
        raise _failure(schema, "schema", ", ".join(unknown), "the schema has no such column")
    columns = {}
    for column in schema.columns:
        wanted = column.arrow.type
        if column.name not in table.column_names:
            if column.mode == "REQUIRED":
                raise _failure(schema, "schema", column.name, "the REQUIRED column is missing")
            columns[column.name] = pa.nulls(table.num_rows, wanted)
        else:
            columns[column.name] = _converted(table[column.name], column, schema)
    return pa.table(columns)


def _by_spellings(values: pa.ChunkedArray, column: Column, schema: Schema) -> bool:
    """True for text that a processor holds by its spellings: it stays so until it is written."""
    kind = values.type
    return bool(
        pa.types.is_dictionary(kind)
        and kind.value_type == column.arrow.type
        and column.name not in schema.key
    )


def _converted(values: pa.ChunkedArray, column: Column, schema: Schema) -> pa.ChunkedArray:
    wanted = column.arrow.type
    if values.type == wanted or _by_spellings(values, column, schema):
        return values
    if not _fits(values.type, wanted):
        raise _failure(schema, "schema", column.name, f"{values.type} is not {column.type}")
    try:
        return values.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _failure(schema, "schema", column.name, f"not exactly a {column.type}: {error}") from error


def _fits(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Say whether a cast keeps the meaning: text never becomes a number, a float never becomes money."""
    if pa.types.is_null(given):
        return True
    if pa.types.is_dictionary(given):
        return _fits(given.value_type, wanted)
    if pa.types.is_list(wanted):
        is_list = pa.types.is_list(given) or pa.types.is_large_list(given)
        return bool(is_list) and _fits(given.value_type, wanted.value_type)
    if pa.types.is_decimal(wanted):
        return bool(pa.types.is_decimal(given) or pa.types.is_integer(given))
    if pa.types.is_timestamp(wanted):
        return bool(pa.types.is_timestamp(given)) and given.tz is not None
    alike = (
        (pa.types.is_string, (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)),
        (pa.types.is_binary, (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)),
        (pa.types.is_int64, (pa.types.is_integer,)),
        (pa.types.is_floating, (pa.types.is_floating,)),
        (pa.types.is_boolean, (pa.types.is_boolean,)),
        (pa.types.is_date32, (pa.types.is_date,)),
    )
    return any(bool(of(wanted)) and any(is_(given) for is_ in ways) for of, ways in alike)


def _required(table: pa.Table, schema: Schema) -> None:
    for column in schema.columns:
        values = table[column.name]
        if column.mode == "REQUIRED" and values.null_count:
            raise _failure(schema, "required", column.name, f"NULL in {values.null_count} rows")
        if column.mode == "REPEATED" and pc.list_flatten(values).null_count:
            raise _failure(schema, "required", column.name, "NULL inside a list")


def _key(table: pa.Table, schema: Schema) -> None:
    names = list(schema.key)
    counted = table.select(names).group_by(names, use_threads=False).aggregate([([], "count_all")])
    again = counted.filter(pc.greater(counted["count_all"], 1)).select(names)
    if again.num_rows:
        shown = [tuple(row.values()) for row in again.slice(0, SHOWN).to_pylist()]
        raise _failure(
            schema, "unique", ", ".join(names), f"{again.num_rows} keys appear twice: {_shown(shown)}"
        )


def _days(table: pa.Table, schema: Schema, unit: Unit) -> None:
    if schema.partition is None:
        raise _failure(schema, "partition", "", "the schema names no partition column")
    values = table[schema.partition]
    inside = pc.is_in(values, value_set=pa.array(unit.days, pa.date32()))
    _refuse(table, schema, "partition", schema.partition, pc.invert(inside))


def _declared(table: pa.Table, schema: Schema, check: Check) -> None:
    if missing := [name for name in columns_of(check) if name not in schema.arrow.names]:
        raise _failure(schema, check.kind, ", ".join(missing), "the check names a column the schema lacks")
    match check:
        case NotNegative():
            for name in check.columns:
                zero = pa.scalar(0, pa.int64()).cast(table[name].type)
                _refuse(table, schema, check.kind, name, pc.less(table[name], zero))
        case Sum():
            _refuse(table, schema, check.kind, check.total, _off(table, check))
        case Accepted():
            values = table[check.column]
            if pa.types.is_dictionary(values.type):
                values = values.cast(values.type.value_type)
            strange = pc.invert(pc.is_in(values, value_set=pa.array(check.values, values.type)))
            _refuse(table, schema, check.kind, check.column, pc.and_(strange, pc.is_valid(values)))


def _off(table: pa.Table, check: Sum) -> pa.ChunkedArray:
    """True where the total is not the parts' sum, or only one of the two is known."""
    total, summed, known = table[check.total], None, None
    # Two digits wider than NUMERIC would overflow nothing: 38 + 2 stays inside decimal256.
    wide = pa.decimal256(60, 9) if pa.types.is_decimal(total.type) else total.type
    for name in check.parts:
        part = table[name].cast(wide)
        filled = pc.fill_null(part, pa.scalar(0, pa.int64()).cast(wide))
        summed = filled if summed is None else pc.add_checked(summed, filled).cast(wide)
        known = pc.is_valid(part) if known is None else pc.or_(known, pc.is_valid(part))
    differs = pc.fill_null(pc.not_equal(total.cast(wide), summed), False)
    return pc.or_(differs, pc.not_equal(pc.is_valid(total), known))


def _refuse(table: pa.Table, schema: Schema, check: str, column: str, bad: Any) -> None:
    # Unknown is not accepted either: a NULL comparison counts as bad only where the column must have a value.
    rows = table.filter(pc.fill_null(bad, False))
    if rows.num_rows:
        shown = rows[column].slice(0, SHOWN).to_pylist()
        raise _failure(schema, check, column, f"{rows.num_rows} rows, the first with {_shown(shown)}")


def _shown(values: Sequence[object]) -> str:
    return ", ".join(str(value)[:SHOWN_CHARS] for value in values)


def _failure(schema: Schema, check: str, column: str, what: str) -> AuditError:
    return AuditError(
        f"{schema.table}: check {check} failed on {column}: {what}. Nothing was published.",
        fix="Correct the processor or the declared check; the published partitions stay as they were.",
        field=column,
    )

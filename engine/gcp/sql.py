"""The statements that Manta sends to a customer's BigQuery. Days and partitions go in as parameters.

Identifiers come from the table's own metadata; a usage day is a UTC day.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta

from engine.errors import ConfigurationError
from engine.gcp.tables import ExportTable, PartitionColumn

#: Before any export: a filter by it satisfies tables that demand one, and leaves out rows not yet in a
#: partition (the streaming buffer's), which the next look finds there.
FIRST_PARTITION = date(2000, 1, 1)
#: A row without a start of usage would otherwise be of no day and be lost.
MOMENT = "COALESCE(usage_start_time, export_time)"
ONE_DAY = timedelta(days=1)


def changes(table: ExportTable) -> tuple[str, dict[str, object]]:
    """What each load partition holds: load_partition, max_export_time, row_count."""
    partition = table.partition
    return (
        (
            f"SELECT {_day(partition)} AS load_partition, MAX(export_time) AS max_export_time, "
            f"COUNT(*) AS row_count\nFROM {quoted(table.address)}\n"
            f"WHERE {_column(partition)} >= @from\nGROUP BY load_partition\nORDER BY load_partition"
        ),
        {"from": bound(partition, FIRST_PARTITION)},
    )


def usage_days(table: ExportTable, partitions: Sequence[date]) -> tuple[str, dict[str, object]]:
    """The usage days of some load partitions: usage_date."""
    where, parameters = _within(table.partition, partitions)
    return (
        (
            f"SELECT DISTINCT DATE({MOMENT}) AS usage_date\nFROM {quoted(table.address)}\n"
            f"WHERE {where}\nORDER BY usage_date"
        ),
        parameters,
    )


def located(table: ExportTable, days: Sequence[date]) -> tuple[str, dict[str, object]]:
    """Where the rows of some usage days lie: load_partition, usage_date, row_count. Reads times alone."""
    return (
        (
            f"SELECT {_day(table.partition)} AS load_partition, DATE({MOMENT}) AS usage_date, "
            f"COUNT(*) AS row_count\nFROM {quoted(table.address)}\n"
            f"WHERE {_column(table.partition)} >= @from AND {MOMENT} >= @first AND {MOMENT} < @after\n"
            "GROUP BY load_partition, usage_date"
        ),
        {"from": bound(table.partition, FIRST_PARTITION), **_usage(days)},
    )


def rows(
    table: ExportTable, days: Sequence[date], partitions: Sequence[date]
) -> tuple[str, dict[str, object]]:
    """Every row of some usage days, flat but for lists, from the load partitions that hold them."""
    where, parameters = _within(table.partition, partitions)
    columns = ",\n  ".join(
        f"{'.'.join(quoted(part) for part in field.path.split('.'))} AS {quoted(field.name)}"
        for field in table.fields
    )
    return (
        (
            f"SELECT\n  DATE({MOMENT}) AS usage_date,\n  {columns}\nFROM {quoted(table.address)}\n"
            f"WHERE {where} AND {MOMENT} >= @first AND {MOMENT} < @after"
        ),
        {**parameters, **_usage(days)},
    )


def quoted(name: str) -> str:
    """An identifier in backticks. Raises ConfigurationError for one that cannot be written so."""
    if "`" in name or "\\" in name or not name.isprintable():
        raise ConfigurationError(f"{name!r} is no name of BigQuery's.", fix="Correct billing_dataset.")
    return f"`{name}`"


def bound(partition: PartitionColumn, day: date) -> object:
    """The first moment of a day, of the partition column's type, so that BigQuery can prune by it."""
    return day if partition.type == "DATE" else datetime.combine(day, time(), UTC)


def _within(partition: PartitionColumn, days: Iterable[date]) -> tuple[str, dict[str, object]]:
    """A filter on load partitions: the range prunes, the list is exact."""
    some = sorted(days)
    return (
        (
            f"{_column(partition)} >= @from AND {_column(partition)} < @until "
            f"AND {_day(partition)} IN UNNEST(@partitions)"
        ),
        {
            "from": bound(partition, some[0]),
            "until": bound(partition, some[-1] + ONE_DAY),
            "partitions": some,
        },
    )


def _usage(days: Sequence[date]) -> dict[str, object]:
    first, after = min(days), max(days) + ONE_DAY
    return {
        "first": datetime.combine(first, time(), UTC),
        "after": datetime.combine(after, time(), UTC),
    }


def _column(partition: PartitionColumn) -> str:
    # Parameters are TIMESTAMPs; a DATETIME column is compared as what it means in UTC.
    name = partition.name if partition.name.startswith("_") else quoted(partition.name)
    return f"TIMESTAMP({name})" if partition.type == "DATETIME" else name


def _day(partition: PartitionColumn) -> str:
    name = partition.name if partition.name.startswith("_") else quoted(partition.name)
    return name if partition.type == "DATE" else f"DATE({name})"

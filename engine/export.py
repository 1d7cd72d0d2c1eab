"""A tenant's tables as Parquet files, read as a stream: no table has to fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import ConfigurationError, NotFoundError
from engine.warehouse import Warehouse

#: Tables that publishing makes for a moment beside the real ones.
PASSING = "_staging_"


@dataclass(frozen=True, slots=True)
class Exported:
    """One table in one file."""

    table: str
    rows: int
    file: Path


def export(warehouse: Warehouse, folder: Path) -> tuple[Exported, ...]:
    """Write every table to `folder`/<table>.parquet, whole or not at all; a file of that name is replaced.

    Amounts stay decimals. Views and staging tables are left out. Raises ConfigurationError for a folder that
    cannot be written, TransientError when the warehouse stays away.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tuple(_export(warehouse, name, folder / f"{name}.parquet") for name in tables(warehouse))
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be written: {error.strerror or error}.",
            fix="Name a folder that can be written and has room.",
            field="export",
        ) from error


def tables(warehouse: Warehouse) -> tuple[str, ...]:
    """The names of a tenant's tables, without views and staging tables; none when the dataset is gone."""
    try:
        found = warehouse.tables()
    except NotFoundError:
        return ()
    return tuple(name for name in found if not name.startswith(PASSING))


def _export(warehouse: Warehouse, table: str, file: Path) -> Exported:
    unfinished = file.with_name(f".{file.name}.unfinished")
    # Begun again as a whole: a stream that broke in the middle says nothing about what it has sent.
    rows = warehouse.insist(f"Exporting {table}", lambda: _write(*warehouse.stream(table), unfinished))
    unfinished.replace(file)
    return Exported(table, rows, file)


def _write(columns: pa.Schema, batches: Iterator[pa.RecordBatch], file: Path) -> int:
    rows = 0
    with pq.ParquetWriter(file, columns, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch.cast(columns))
            rows += batch.num_rows
    return rows

"""An organisation's FOCUS charges as one file, Parquet or CSV, read a week at a time to spare memory.

They are read through the view over focus_openai_daily, focus_anthropic_daily, focus_gcp_daily and
focus_saas_subscription_daily.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from engine.errors import ConfigurationError, NotFoundError, UsageError
from engine.schemas import Schema
from engine.warehouse import Warehouse

VIEW: Final = "cost_data_standard_1_3"
ENDINGS: Final = (".parquet", ".csv")
DAYS_AT_ONCE: Final = 7
#: FOCUS's format of an instant.
INSTANT: Final = "%Y-%m-%dT%H:%M:%SZ"


class _Writer(Protocol):
    def write_table(self, table: pa.Table) -> None: ...
    def close(self) -> None: ...


def check_file(file: Path) -> None:
    """Refuse a file name that says no format. Raises UsageError."""
    if file.suffix.lower() not in ENDINGS:
        raise UsageError(
            f"{file}: its name says no format.", fix="End it in .parquet or .csv.", field="output"
        )


def export_charges(warehouse: Warehouse, view: Schema, *, start: date, end: date, file: Path) -> int:
    """Write the charges of the usage days `start` to `end`, both included, and answer how many.

    The file is there whole or not at all; one of that name is replaced. Raises NotFoundError while nothing
    was ever published, UsageError for a name without a format, ConfigurationError for a place that cannot be
    written.
    """
    check_file(file)
    unfinished = file.with_name(f".{file.name}.unfinished")
    rows = 0
    try:
        writer = _writer(unfinished, view)
        try:
            for charges in _read(warehouse, view, start, end):
                writer.write_table(charges)
                rows += charges.num_rows
        finally:
            writer.close()
        unfinished.replace(file)
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot be written: {error.strerror or error}.",
            fix="Name a file in a folder that is there, can be written and has room.",
            field="output",
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return rows


def _read(warehouse: Warehouse, view: Schema, start: date, end: date) -> Iterator[pa.Table]:
    names = ", ".join(view.arrow.names)
    sql = (
        f"SELECT {names} FROM {VIEW} WHERE x_UsageDate BETWEEN @first AND @last "
        "ORDER BY x_UsageDate, x_Source, x_ChargeId"
    )
    first = start
    while first <= end:
        last = min(first + timedelta(days=DAYS_AT_ONCE - 1), end)
        try:
            found = warehouse.query(sql, {"first": first, "last": last}, purpose="focus-export")
        except NotFoundError as error:
            raise NotFoundError(
                f"{warehouse.org} has no FOCUS charges: none of its costs were ever published.",
                fix=f"Run a pipeline first: manta run {warehouse.org} PIPELINE --start DAY --end DAY",
            ) from error
        yield found.select(view.arrow.names).cast(view.arrow)
        first = last + timedelta(days=1)


def _writer(file: Path, view: Schema) -> _Writer:
    if file.name.removesuffix(".unfinished").lower().endswith(".csv"):
        return _Csv(file, view)
    parquet: _Writer = pq.ParquetWriter(file, view.arrow, compression="zstd")
    return parquet


class _Csv:
    """RFC 4180: NULL is nothing, amounts are in full, instants as FOCUS writes them."""

    def __init__(self, file: Path, view: Schema) -> None:
        instants = [field.name for field in view.arrow if pa.types.is_timestamp(field.type)]
        self._schema = pa.schema(
            pa.field(field.name, pa.string() if field.name in instants else field.type)
            for field in view.arrow
        )
        self._instants = instants
        self._writer = pc_csv.CSVWriter(
            file, self._schema, write_options=pc_csv.WriteOptions(quoting_style="needed")
        )

    def write_table(self, table: pa.Table) -> None:
        for name in self._instants:
            seconds = table[name].cast(pa.timestamp("s", tz="UTC"), safe=False)
            place = table.schema.get_field_index(name)
            table = table.set_column(place, name, pc.strftime(seconds, format=INSTANT))
        self._writer.write_table(table.cast(self._schema))

    def close(self) -> None:
        self._writer.close()

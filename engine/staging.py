"""The staging table of one publish of several dates: loaded once, however often its swap has to be tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta

import pyarrow as pa

from engine.artifacts import parquet
from engine.errors import NotFoundError, TransientError
from engine.jobs import JobExists, JobState
from engine.parts import Part
from engine.schemas import Schema
from engine.warehouse import Warehouse

LIVES = timedelta(days=1)
MAX_LOADS = 5
LOAD_TIMEOUT_S = 1800.0


class Staging:
    """A table beside the target that expires by itself; it may hold more days than a swap takes from it."""

    def __init__(self, warehouse: Warehouse, schema: Schema, *, now: Callable[[], datetime]) -> None:
        self._warehouse = warehouse
        self._schema = schema
        self._now = now
        self._days: frozenset[date] = frozenset()
        self.table = ""

    def hold(self, parts: Sequence[Part], *, intent_id: str, labels: Mapping[str, str]) -> None:
        """Make the table hold these parts, which it may do already from a swap that lost its id."""
        days = frozenset(part.day for part in parts)
        if self.table and days <= self._days:
            return
        self.drop()
        self.table = f"_staging_{self._schema.table}_{intent_id[:12]}"
        data = parquet(pa.concat_tables([part.table for part in parts]))
        for number in range(1, MAX_LOADS + 1):
            state = self._load(data, f"manta-stage-{intent_id}-{number}", labels)
            if state.error is None:
                break
            # Not found: a table made a moment ago is not yet seen by everybody.
            if number == MAX_LOADS or not isinstance(state.error, TransientError | NotFoundError):
                raise state.error
            self._warehouse.patience.pause(number)
        self._days = days

    def drop(self) -> bool:
        """Delete the table, if there is one; say whether there was."""
        if not self.table:
            return False
        self._warehouse.drop(self.table)
        self.table, self._days = "", frozenset()
        return True

    def _load(self, data: bytes, job_id: str, labels: Mapping[str, str]) -> JobState:
        self._warehouse.create_temporary(self.table, like=self._schema, expires=self._now() + LIVES)
        try:
            state = self._warehouse.load(
                data, destination=self.table, schema=self._schema, job_id=job_id, labels=labels
            )
        except JobExists:
            # The id is this intent's alone: it was our own request, whose answer was lost.
            state = JobState(job_id, done=False)
        return state if state.done else self._warehouse.wait(job_id, timeout_s=LOAD_TIMEOUT_S)


def swap_statement(schema: Schema, staging: str) -> str:
    """The transaction that replaces @days by the staging table's rows; the range lets BigQuery prune."""
    columns = ", ".join(f"`{column.name}`" for column in schema.columns)
    day = f"`{schema.partition}`"
    # Names come from the schema file and our own id; values go in as parameters.
    return (
        "BEGIN TRANSACTION;\n"
        f"DELETE FROM `{schema.table}` WHERE {day} BETWEEN @first_day AND @last_day "
        f"AND {day} IN UNNEST(@days);\n"
        f"INSERT INTO `{schema.table}` ({columns})\n"
        f"SELECT {columns} FROM `{staging}` WHERE {day} IN UNNEST(@days);\n"
        "COMMIT TRANSACTION;"
    )

"""Table schemas: one YAML file each under configs/system/schemas, read as Arrow types and BigQuery fields."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Literal

import pyarrow as pa
from google.cloud import bigquery
from pydantic import BaseModel, ConfigDict, model_validator

from engine.located import wrong

# BigQuery's own types as the Storage and Parquet paths return them: NUMERIC has 38 digits, 9 after the point.
ARROW_TYPES: dict[str, pa.DataType] = {
    "STRING": pa.string(),
    "INT64": pa.int64(),
    "BOOL": pa.bool_(),
    "DATE": pa.date32(),
    "TIMESTAMP": pa.timestamp("us", tz="UTC"),
    "NUMERIC": pa.decimal128(38, 9),
    "BYTES": pa.binary(),
    "FLOAT64": pa.float64(),
}

# What stands behind FROM or JOIN in a view, unless it is a function or has a dataset already.
SOURCE = re.compile(
    r"(?P<before>(?<!DISTINCT )\b(?:FROM|JOIN)\s+)(?P<name>[A-Za-z_]\w*)\b(?!\s*[.(])", re.IGNORECASE
)
_NAMED = re.compile(r"\b([A-Za-z_]\w*)\s+AS\s*\(\s*(?:SELECT|WITH)\b", re.IGNORECASE)


class Column(BaseModel):
    """One column: BigQuery type, mode and the sentence that docs and the warehouse show."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Name.
    name: str
    #: BigQuery type.
    type: Literal["STRING", "INT64", "BOOL", "DATE", "TIMESTAMP", "NUMERIC", "BYTES", "FLOAT64"]
    #: `NULLABLE`, `REQUIRED` or `REPEATED`.
    mode: Literal["NULLABLE", "REQUIRED", "REPEATED"] = "NULLABLE"
    #: One sentence.
    description: str

    @property
    def arrow(self) -> pa.Field:
        """The Arrow field; REPEATED becomes a list."""
        kind = ARROW_TYPES[self.type]
        if self.mode == "REPEATED":
            kind = pa.list_(kind)
        return pa.field(self.name, kind, nullable=self.mode != "REQUIRED")


class Schema(BaseModel):
    """A table: its columns, DAY partition column, clustering and unique key; or a view.

    `view` is a SELECT whose bare table names are those of the dataset it lies in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: The file's name.
    table: str
    #: `tenant` (in each organisation's dataset) or `central`.
    scope: Literal["tenant", "central"]
    #: `original` when the replaced service had the table.
    origin: Literal["original", "manta"] = "manta"
    #: Shown in BigQuery.
    description: str
    #: Raised with each change of columns.
    version: int = 1
    #: DATE column by which the table is partitioned by day.
    partition: str | None = None
    #: At most 4 columns.
    cluster: tuple[str, ...] = ()
    #: Columns that are unique together; required of a table.
    key: tuple[str, ...] = ()
    #: In order.
    columns: tuple[Column, ...]
    #: A SELECT that makes it a view: bare table names, its columns in the order of `columns`.
    view: str | None = None

    @model_validator(mode="after")
    def _references_exist(self) -> Schema:
        names = [column.name for column in self.columns]
        if len(names) != len(set(names)):
            raise ValueError("a column name appears twice")
        for role, wanted in (
            ("partition", (self.partition,) if self.partition else ()),
            ("cluster", self.cluster),
            ("key", self.key),
        ):
            if unknown := [name for name in wanted if name not in names]:
                raise ValueError(f"{role} names no column: {', '.join(unknown)}")
        if self.view is None and not self.key:
            raise wrong(("key",), "is missing", "name the columns that make a row unique")
        if self.view is not None and (self.partition or self.cluster):
            fix = "leave partition and cluster to the tables it reads"
            raise wrong(("view",), "does not go with partition or cluster", fix)
        if len(self.cluster) > 4:
            raise ValueError("cluster takes at most 4 columns (BigQuery's limit)")
        return self

    @cached_property
    def arrow(self) -> pa.Schema:
        """The table as Arrow, columns in file order."""
        return pa.schema([column.arrow for column in self.columns])

    @cached_property
    def sources(self) -> frozenset[str]:
        """The tables that a view reads; what it names by WITH is none."""
        own = {name.lower() for name in _NAMED.findall(self.view or "")}
        found = {match["name"] for match in SOURCE.finditer(self.view or "")}
        return frozenset(name for name in found if name.lower() not in own)

    @cached_property
    def bigquery(self) -> list[bigquery.SchemaField]:
        """The table as BigQuery's client wants it."""
        return [
            bigquery.SchemaField(column.name, column.type, mode=column.mode, description=column.description)
            for column in self.columns
        ]

    @cached_property
    def hashed(self) -> tuple[Column, ...]:
        """The columns a partition's content hash covers: lineage says who loaded a row, not what it is.

        Lineage is in lower case (x_run_id); FOCUS's custom columns (x_Model) are content.
        """
        return tuple(
            c
            for c in self.columns
            if not c.name.startswith("x_") or c.name == "x_credential_id" or c.name[2:3].isupper()
        )

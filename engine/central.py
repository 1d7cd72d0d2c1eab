"""The `organizations` dataset: appended to through the Storage Write API, read with an org predicate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from google.api_core import exceptions as google
from google.cloud.bigquery_storage_v1 import types

from engine.clients import Clients
from engine.errors import ConfigurationError, InternalError
from engine.foreign import Conflict, Patience
from engine.schemas import Schema
from engine.views import ensure_view
from engine.warehouse import NO_RETRY, Dataset

#: Purposes whose statements look at all organisations; everything else names one.
PLATFORM_STATEMENTS = frozenset(
    {
        "active-runs",
        "directory-credentials",
        "directory-keys",
        "directory-orgs",
        "directory-subscriptions",
        "find-run",
        "idempotency-keys",
        "last-sequences",
        "migrations",
        "orgs-list",
        "prices-read",
        "runs-accepted",
        "vault-orgs",
        "vault-rows",
    }
)
APPEND_TIMEOUT_S = 60.0
#: AppendRows takes 10 MB; the envelope needs some of it.
APPEND_BYTES = 9_000_000

_PREDICATE = re.compile(r"\borg_slug\s*=\s*@org_slug\b", re.IGNORECASE)
_NOISE = re.compile(r"--[^\n]*|#[^\n]*|/\*.*?\*/|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)


class Central:
    """All organisations' records; every statement but the named platform ones is bound to one of them."""

    def __init__(
        self,
        clients: Clients,
        *,
        schemas: Mapping[str, Schema],
        dataset: str = "organizations",
        location: str = "US",
        maximum_bytes_billed: int,
        environment: str = "local",
        patience: Patience | None = None,
    ) -> None:
        self._schemas = {name: schema for name, schema in schemas.items() if schema.scope == "central"}
        self.environment = environment
        self._dataset = Dataset(
            clients,
            dataset=dataset,
            location=location,
            maximum_bytes_billed=maximum_bytes_billed,
            labels={"manta-environment": environment},
            patience=patience or Patience(),
        )
        self.dataset = dataset
        self.project = self._dataset.project

    def ensure(self) -> None:
        """Create the dataset and all central tables, then the views over them.

        Raises ConfigurationError when the dataset carries another environment's label.
        """
        self._dataset.ensure_dataset()
        self._refuse_foreign_environment()
        for schema in self._schemas.values():
            if schema.view is None:
                self._dataset.ensure_table(schema)
        for schema in self._schemas.values():
            if schema.view is not None:
                ensure_view(self._dataset, schema)

    def append(
        self,
        table: str,
        rows: Sequence[Mapping[str, object]] | pa.Table,
        *,
        offset: int | None = None,
        stream: str | None = None,
    ) -> None:
        """Append rows in one request, all or none; without an offset to the default stream.

        A lost answer makes the default stream take the rows twice: readers drop duplicates. With `offset`
        (needs `stream`, from `open_stream`) the second writer at that offset gets Conflict; after a lost
        answer that may be one's own row: read before deciding.
        Raises InternalError for rows that do not fit the schema.
        """
        schema = self._schema(table)
        if schema.view is not None:
            raise InternalError(f"{table} is a view.", fix="Append to the tables it reads.")
        batch = _batch(schema, rows)
        if batch.num_rows == 0:
            return
        if (offset is None) != (stream is None):
            raise InternalError(
                "An append at an offset needs both offset and stream.", fix="Give both or none."
            )
        request = types.AppendRowsRequest(
            write_stream=stream or f"{self._path(table)}/streams/_default",
            arrow_rows=types.AppendRowsRequest.ArrowData(
                writer_schema=types.ArrowSchema(serialized_schema=batch.schema.serialize().to_pybytes()),
                rows=types.ArrowRecordBatch(serialized_record_batch=batch.serialize().to_pybytes()),
            ),
        )
        if offset is not None:
            request.offset = offset
        self._dataset.insist(f"Appending to {table}", lambda: self._append_once(request))

    def open_stream(self, table: str) -> str:
        """Create a COMMITTED write stream for appends at an offset, and answer its name."""
        stream = self._dataset.insist(
            f"Opening a write stream of {table}",
            lambda: self._dataset.clients.write.create_write_stream(
                parent=self._path(self._schema(table).table),
                write_stream=types.WriteStream(type_=types.WriteStream.Type.COMMITTED),
                retry=NO_RETRY,
                timeout=APPEND_TIMEOUT_S,
            ),
        )
        return str(stream.name)

    def query(
        self, sql: str, parameters: Mapping[str, object] | None = None, *, org: str | None, purpose: str
    ) -> pa.Table:
        """Run a statement for one organisation; `@org_slug` is bound here.

        Raises InternalError when the statement lacks `org_slug = @org_slug`, or when `org` is None and the
        purpose is not one of PLATFORM_STATEMENTS.
        """
        given = dict(parameters or {})
        if org is None:
            if purpose not in PLATFORM_STATEMENTS:
                raise InternalError(
                    f"Statement {purpose} names no organisation and is not listed as platform scope.",
                    fix="Bind it to an organisation, or list it in PLATFORM_STATEMENTS.",
                )
        elif not _PREDICATE.search(_NOISE.sub(" ", sql)):
            raise InternalError(
                f"Statement {purpose} lacks the predicate org_slug = @org_slug.", fix="Add the predicate."
            )
        elif given.setdefault("org_slug", org) != org:
            raise InternalError(
                f"Statement {purpose} was given another organisation's slug.", fix="Leave org_slug out."
            )
        return self._dataset.query(sql, given, purpose=purpose)

    def _append_once(self, request: Any) -> None:
        try:
            for answer in self._dataset.clients.write.append_rows(
                iter([request]), retry=NO_RETRY, timeout=APPEND_TIMEOUT_S
            ):
                _raise_refusal(answer)
        except google.AlreadyExists as error:
            raise Conflict(
                f"Offset {request.offset} has been written by another.", fix="Read again."
            ) from error
        except google.OutOfRange as error:
            raise InternalError(
                f"Offset {request.offset} lies beyond the stream's end.", fix="Read again."
            ) from error

    def _refuse_foreign_environment(self) -> None:
        found = self._dataset.insist(
            "Reading the dataset",
            lambda: self._dataset.clients.bigquery.get_dataset(
                f"{self.project}.{self.dataset}", retry=NO_RETRY, timeout=APPEND_TIMEOUT_S
            ),
        )
        label = (found.labels or {}).get("manta-environment", self.environment)
        if label != self.environment:
            raise ConfigurationError(
                f"{self.project}.{self.dataset} belongs to environment {label}, not {self.environment}.",
                fix="Point this environment at its own project or meta dataset.",
                field="meta_dataset",
            )

    def _schema(self, table: str) -> Schema:
        if table not in self._schemas:
            raise InternalError(f"{table} is no central table.", fix="Add its schema file.")
        return self._schemas[table]

    def _path(self, table: str) -> str:
        return f"projects/{self.project}/datasets/{self.dataset}/tables/{table}"


def _raise_refusal(answer: Any) -> None:
    if answer.error.code:
        untyped: Any = google
        raise untyped.from_grpc_status(answer.error.code, answer.error.message)
    if answer.row_errors:
        first = answer.row_errors[0]
        raise InternalError(
            f"BigQuery refused row {first.index}: {first.message}", fix="Report it with this message."
        )


def _batch(schema: Schema, rows: Sequence[Mapping[str, object]] | pa.Table) -> pa.RecordBatch:
    """One record batch of the schema's types, nothing missing and nothing unknown."""
    given = rows.column_names if isinstance(rows, pa.Table) else {key for row in rows for key in row}
    if unknown := sorted(set(given) - set(schema.arrow.names)):
        raise InternalError(
            f"{schema.table} has no column {', '.join(map(str, unknown))}.", fix="Add it to the schema file."
        )
    try:
        if isinstance(rows, pa.Table):
            table = pa.table(
                {
                    f.name: rows[f.name] if f.name in given else pa.nulls(rows.num_rows, f.type)
                    for f in schema.arrow
                }
            ).cast(pa.schema([f.with_nullable(True) for f in schema.arrow]))
        else:
            table = pa.Table.from_pylist(
                [dict(row) for row in rows], schema=pa.schema([f.with_nullable(True) for f in schema.arrow])
            )
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InternalError(f"Rows for {schema.table} do not fit: {error}", fix="Report it.") from error
    for column in schema.columns:
        if column.mode == "REQUIRED" and table[column.name].null_count:
            raise InternalError(
                f"{schema.table}.{column.name} is REQUIRED but missing.", fix="Give it a value."
            )
    if table.nbytes > APPEND_BYTES:
        raise InternalError(
            f"{table.nbytes} bytes for {schema.table} are more than one append takes ({APPEND_BYTES}).",
            fix="Append in parts.",
        )
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)

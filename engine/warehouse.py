"""The one door to a tenant's dataset: tables, queries, loads and jobs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from google.api_core import exceptions as google
from google.cloud import bigquery

from engine.clients import Clients
from engine.errors import ConfigurationError, NotFoundError
from engine.foreign import Conflict, Patience
from engine.jobs import JobExists, JobState, checked_labels, parameters_of, state_of
from engine.schemas import Schema

#: One HTTP call, connect and read; a query's call waits on the server, so it is generous.
CALL_TIMEOUT_S = 60.0
#: The clients' own retries are off: `Patience` alone decides, and a job is never submitted under another id.
NO_RETRY: Any = None
FIRST_POLL_S = 0.02
LAST_POLL_S = 2.0


class Dataset:
    """One BigQuery dataset behind retries: what tenants and the central dataset have in common."""

    def __init__(
        self,
        clients: Clients,
        *,
        dataset: str,
        location: str,
        maximum_bytes_billed: int,
        labels: Mapping[str, str],
        patience: Patience,
    ) -> None:
        self.clients = clients
        self.dataset = dataset
        self.project: str = clients.bigquery.project
        self.location = location
        self.patience = patience
        self.labels = checked_labels(labels)
        self._maximum_bytes_billed = maximum_bytes_billed
        self._ready: set[tuple[str, int]] = set()

    def ensure_dataset(self) -> None:
        """Create the dataset if it is missing. Raises ConfigurationError when it lies in another region."""
        wanted = bigquery.Dataset(f"{self.project}.{self.dataset}")
        wanted.location = self.location
        wanted.labels = self.labels
        found = self.insist(
            "Creating the dataset",
            lambda: self.clients.bigquery.create_dataset(
                wanted, exists_ok=True, retry=NO_RETRY, timeout=CALL_TIMEOUT_S
            ),
        )
        if found.location and found.location.upper() != self.location.upper():
            raise ConfigurationError(
                f"Dataset {self.dataset} lies in {found.location}, not in {self.location}.",
                fix="Set BIGQUERY_LOCATION to the dataset's region, or move the dataset.",
                field="bigquery_location",
            )

    def ensure_table(self, schema: Schema) -> None:
        """Create the table, or add the NULLABLE columns it lacks; asked once per process and version.

        Raises ConfigurationError when the table differs in a way that adding columns cannot mend.
        """
        if (schema.table, schema.version) in self._ready:
            return
        wanted = bigquery.Table(f"{self.project}.{self.dataset}.{schema.table}", schema=schema.bigquery)
        wanted.description = schema.description
        if schema.partition:
            wanted.time_partitioning = partitioning(schema)
        if schema.cluster:
            wanted.clustering_fields = list(schema.cluster)
        found = self.insist(
            f"Creating table {schema.table}",
            lambda: self.clients.bigquery.create_table(
                wanted, exists_ok=True, retry=NO_RETRY, timeout=CALL_TIMEOUT_S
            ),
        )
        self._evolve(found, schema)
        self._ready.add((schema.table, schema.version))

    def query(self, sql: str, parameters: Mapping[str, object] | None = None, *, purpose: str) -> pa.Table:
        """Run a reading statement to its end; bare table names are this dataset's.

        A lost answer makes it run again: statements that change data go through `submit`.
        """
        config = self._query_config(parameters, {"manta-purpose": purpose})

        def run() -> pa.Table:
            rows = self.clients.bigquery.query_and_wait(
                sql, job_config=config, location=self.location, retry=NO_RETRY, job_retry=NO_RETRY
            )
            return rows.to_arrow(bqstorage_client=self.clients.read)

        return self.insist(f"Query {purpose}", run)

    def _query_config(self, parameters: Mapping[str, object] | None, labels: Mapping[str, str]) -> Any:
        return bigquery.QueryJobConfig(
            default_dataset=f"{self.project}.{self.dataset}",
            query_parameters=parameters_of(parameters),
            labels=checked_labels(self.labels, labels),
            maximum_bytes_billed=self._maximum_bytes_billed,
        )

    def _evolve(self, found: Any, schema: Schema) -> None:
        there = {field.name: field for field in found.schema}
        missing = [field for field in schema.bigquery if field.name not in there]
        for wanted in schema.bigquery:
            field = there.get(wanted.name)
            same = field is None or (_kind(field), field.mode) == (_kind(wanted), wanted.mode)
            if not same or (field is None and wanted.mode == "REQUIRED"):
                is_now = f"{field.field_type} {field.mode}" if field else "missing"
                raise ConfigurationError(
                    f"{self.dataset}.{schema.table}.{wanted.name} is {is_now}; "
                    f"the schema says {wanted.field_type} {wanted.mode}.",
                    fix="Run the table's migration; only NULLABLE and REPEATED columns come by themselves.",
                    field=wanted.name,
                )
        cut_by = found.time_partitioning.field if found.time_partitioning else None
        if cut_by != schema.partition:
            raise ConfigurationError(
                f"{self.dataset}.{schema.table} is cut by {cut_by}; the schema says {schema.partition}.",
                fix="Rename the table aside and let Manta create it, then copy the rows.",
            )
        if missing:
            found.schema = [*found.schema, *missing]
            try:
                self.insist(
                    f"Adding columns to {schema.table}",
                    lambda: self.clients.bigquery.update_table(
                        found, ["schema"], retry=NO_RETRY, timeout=CALL_TIMEOUT_S
                    ),
                )
            except Conflict:
                # Another process adds the same columns: look again.
                self.ensure_table(schema)

    def insist[T](self, doing: str, call: Callable[[], T]) -> T:
        return self.patience.insist(f"{doing} in {self.dataset}", call)


class Warehouse(Dataset):
    """One tenant's dataset and nothing else."""

    def __init__(
        self,
        clients: Clients,
        *,
        org: str,
        dataset: str,
        location: str = "US",
        maximum_bytes_billed: int,
        labels: Mapping[str, str] | None = None,
        patience: Patience | None = None,
    ) -> None:
        super().__init__(
            clients,
            dataset=dataset,
            location=location,
            maximum_bytes_billed=maximum_bytes_billed,
            labels={"manta-org": org, **(labels or {})},
            patience=patience or Patience(),
        )
        self.org = org

    def load(
        self,
        source: Path | BinaryIO | bytes,
        *,
        destination: str,
        schema: Schema,
        job_id: str,
        labels: Mapping[str, str] | None = None,
        append: bool = False,
    ) -> JobState:
        """Submit a Parquet load and do not wait; `destination` may be `table$YYYYMMDD`.

        It replaces what is there, or with `append` adds to it. Raises JobExists when the id has been used.
        """
        disposition = bigquery.WriteDisposition
        data = source.read_bytes() if isinstance(source, Path) else source
        data = data if isinstance(data, bytes) else data.read()
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=disposition.WRITE_APPEND if append else disposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            schema=schema.bigquery,
            labels=checked_labels(self.labels, labels or {}),
        )
        config.parquet_options = _parquet_options()
        if "$" in destination:
            # The specification of the table itself: a load that is silent about it is refused.
            config.time_partitioning = partitioning(schema)
            if schema.cluster:
                config.clustering_fields = list(schema.cluster)
        return self._submit(
            job_id,
            lambda: self.clients.bigquery.load_table_from_file(
                io.BytesIO(data),
                f"{self.project}.{self.dataset}.{destination}",
                size=len(data),
                num_retries=0,
                job_id=job_id,
                location=self.location,
                job_config=config,
                timeout=CALL_TIMEOUT_S,
            ),
        )

    def submit(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        job_id: str,
        labels: Mapping[str, str] | None = None,
    ) -> JobState:
        """Submit a query or script job and do not wait. Raises JobExists when the id has been used."""
        config = self._query_config(parameters, labels or {})
        return self._submit(
            job_id,
            lambda: self.clients.bigquery.query(
                sql,
                job_config=config,
                job_id=job_id,
                location=self.location,
                retry=NO_RETRY,
                job_retry=NO_RETRY,
                timeout=CALL_TIMEOUT_S,
            ),
        )

    def job(self, job_id: str) -> JobState | None:
        """Ask for a job; None when there is none of that id."""
        try:
            return state_of(
                self.insist(
                    f"Asking for job {job_id}",
                    lambda: self.clients.bigquery.get_job(
                        job_id, location=self.location, retry=NO_RETRY, timeout=CALL_TIMEOUT_S
                    ),
                )
            )
        except NotFoundError:
            return None

    def wait(self, job_id: str, *, timeout_s: float) -> JobState:
        """Poll the job to DONE; after `timeout_s` it is cancelled first, and still polled to DONE.

        Raises NotFoundError for an unknown id, TransientError when the warehouse stays away.
        """
        clock, sleep = self.patience.clock, self.patience.sleep
        until, pause, cancelled = clock() + timeout_s, FIRST_POLL_S, False
        while True:
            state = self.job(job_id)
            if state is None:
                raise NotFoundError(f"BigQuery knows no job {job_id}.", fix="Submit it again.")
            if state.done:
                return state
            if clock() >= until and not cancelled:
                # A cancel is a request: the job may still win, so DONE decides.
                self.cancel(job_id)
                cancelled = True
            sleep(pause)
            pause = min(LAST_POLL_S, pause * 1.5)

    def cancel(self, job_id: str) -> None:
        """Ask BigQuery to end a job; whether it did, only DONE tells."""
        self.insist(
            f"Cancelling job {job_id}",
            lambda: self.clients.bigquery.cancel_job(
                job_id, location=self.location, retry=NO_RETRY, timeout=CALL_TIMEOUT_S
            ),
        )

    def create_temporary(self, table: str, *, like: Schema, expires: Any) -> None:
        """Create an unpartitioned table of that schema that deletes itself at `expires` (aware datetime)."""
        wanted = bigquery.Table(f"{self.project}.{self.dataset}.{table}", schema=like.bigquery)
        wanted.expires = expires
        self.insist(
            f"Creating table {table}",
            lambda: self.clients.bigquery.create_table(
                wanted, exists_ok=True, retry=NO_RETRY, timeout=CALL_TIMEOUT_S
            ),
        )

    def drop(self, table: str) -> None:
        """Delete a table; one that is gone already is fine."""
        self.insist(
            f"Dropping table {table}",
            lambda: self.clients.bigquery.delete_table(
                f"{self.project}.{self.dataset}.{table}",
                not_found_ok=True,
                retry=NO_RETRY,
                timeout=CALL_TIMEOUT_S,
            ),
        )

    def tables(self) -> tuple[str, ...]:
        """The names of the tables, without views. Raises NotFoundError when there is no dataset."""
        found = self.insist(
            "Listing tables",
            lambda: list(
                self.clients.bigquery.list_tables(
                    f"{self.project}.{self.dataset}", retry=NO_RETRY, timeout=CALL_TIMEOUT_S
                )
            ),
        )
        return tuple(sorted(one.table_id for one in found if one.table_type == "TABLE"))

    def stream(self, table: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Every row of a table, a batch at a time, without a query job; the caller tries again as a whole."""
        name = f"{self.project}.{self.dataset}.{table}"
        empty = self.clients.bigquery.list_rows(name, max_results=0, retry=NO_RETRY, timeout=CALL_TIMEOUT_S)
        rows = self.clients.bigquery.list_rows(name, retry=NO_RETRY, timeout=CALL_TIMEOUT_S)
        return empty.to_arrow().schema, rows.to_arrow_iterable(bqstorage_client=self.clients.read)

    def drop_dataset(self) -> None:
        """Delete the tenant's dataset with everything in it; one that is gone already is fine."""
        self.insist(
            "Dropping the dataset",
            lambda: self.clients.bigquery.delete_dataset(
                f"{self.project}.{self.dataset}",
                delete_contents=True,
                not_found_ok=True,
                retry=NO_RETRY,
                timeout=CALL_TIMEOUT_S,
            ),
        )

    def _submit(self, job_id: str, call: Callable[[], Any]) -> JobState:
        def once() -> JobState:
            try:
                return state_of(call())
            except google.Conflict as error:
                raise JobExists(
                    f"Job id {job_id} has been used.", fix="Read the job and its labels."
                ) from error

        return self.insist(f"Submitting job {job_id}", once)


def partitioning(schema: Schema) -> Any:
    """The DAY partitioning by the schema's column."""
    return bigquery.TimePartitioning(type_=bigquery.TimePartitioningType.DAY, field=schema.partition)


def _parquet_options() -> Any:
    options: Any = bigquery.format_options
    options = options.ParquetOptions()
    options.enable_list_inference = True
    return options


_ALIASES = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}


def _kind(field: Any) -> str:
    return _ALIASES.get(field.field_type, str(field.field_type))

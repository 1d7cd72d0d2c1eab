"""A customer's BigQuery: read with the customer's own service account, capped, labelled and stoppable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from google.api_core import exceptions as google
from google.auth import exceptions as auth
from google.cloud import bigquery, bigquery_storage_v1

from engine.clients import SourceClients, connect_source
from engine.errors import ConfigurationError, CredentialError, MantaError, NotFoundError, TransientError
from engine.foreign import Patience, mapped
from engine.jobs import checked_labels, parameters_of
from engine.settings import Settings
from engine.warehouse import CALL_TIMEOUT_S, NO_RETRY

#: The other side may be away this long before the step gives up; the driver then tries the unit again.
AWAY_S = 20.0
FIRST_POLL_S = 0.02
LAST_POLL_S = 0.5
#: Read one after the other: a stream that nobody reads holds no memory here. Several of them, because the
#: embedded BigQuery answers a whole stream in one message.
MAX_STREAMS = 64
ROLES = (
    "roles/bigquery.dataViewer on the dataset, and roles/bigquery.jobUser and roles/bigquery.readSessionUser "
    "on the key's project"
)
_storage: Any = bigquery_storage_v1


class StoppedError(MantaError):
    """The step was cancelled or out of time, and its statement with it; nobody waits for this error."""

    code = "stopped"


@dataclass(frozen=True)
class BigQuerySource:
    """One customer's BigQuery. Every statement carries `maximum_bytes_billed` and labels.

    Raises CredentialError where access is refused, NotFoundError for what is not there, ConfigurationError
    for a statement over the limit, TransientError for what may pass.
    """

    clients: SourceClients
    maximum_bytes_billed: int
    labels: Mapping[str, str]
    patience: Patience = field(default_factory=lambda: Patience(away_s=AWAY_S))
    stop: threading.Event = field(default_factory=threading.Event)

    def location(self, dataset: str) -> str:
        """The region of a dataset (project.dataset); statements over it must run there."""
        asked = self._insist(f"Looking at dataset {dataset}", lambda c: c.get_dataset(dataset, **_CALL))
        return str(asked.location)

    def tables(self, dataset: str) -> tuple[str, ...]:
        """The names of a dataset's tables and views."""
        found = self._insist(f"Listing dataset {dataset}", lambda c: list(c.list_tables(dataset, **_CALL)))
        return tuple(sorted(one.table_id for one in found))

    def table(self, address: str) -> Any:
        """A table's metadata."""
        return self._insist(f"Looking at table {address}", lambda c: c.get_table(address, **_CALL))

    def query(
        self, sql: str, parameters: Mapping[str, object], *, purpose: str, location: str
    ) -> list[dict[str, Any]]:
        """The rows of a small answer."""
        batches = self.stream(sql, parameters, purpose=purpose, location=location)
        return [row for batch in batches for row in batch.to_pylist()]

    def stream(
        self, sql: str, parameters: Mapping[str, object], *, purpose: str, location: str
    ) -> Iterator[pa.RecordBatch]:
        """Run a statement and read its answer through the Storage Read API, a batch at a time.

        Only the batch at hand is in memory. A stream that breaks off goes on where it was.
        """
        answer = self._insist(
            f"Query {purpose}", lambda c: self._run(c, sql, parameters, purpose=purpose, location=location)
        )
        name = f"projects/{answer.project}/datasets/{answer.dataset_id}/tables/{answer.table_id}"
        session = self._insist(f"Reading the answer of {purpose}", lambda _: self._session(name))
        for stream in session.streams:
            reader: Any = self.clients.read
            schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
            # Iterating goes on where it was when the connection breaks off.
            answers = iter(reader.read_rows(stream.name))
            while (answer := self._next(answers, purpose)) is not None:
                data = answer.arrow_record_batch.serialized_record_batch
                yield pa.ipc.read_record_batch(pa.py_buffer(data), schema)

    def _run(
        self, client: Any, sql: str, parameters: Mapping[str, object], *, purpose: str, location: str
    ) -> Any:
        config = bigquery.QueryJobConfig(
            query_parameters=parameters_of(parameters),
            labels=checked_labels(self.labels, {"manta-purpose": purpose}),
            maximum_bytes_billed=self.maximum_bytes_billed,
        )
        job = client.query(sql, job_config=config, location=location, job_retry=NO_RETRY, **_CALL)
        pause = FIRST_POLL_S
        while not job.done(**_CALL):
            if self.stop.wait(pause):
                job.cancel(**_CALL)
                raise StoppedError(f"Query {purpose} was stopped.", fix="It is tried again by itself.")
            pause = min(LAST_POLL_S, pause * 1.5)
        if (failed := job.exception()) is not None:
            raise failed
        return job.destination

    def _session(self, table: str) -> Any:
        wanted = _storage.types.ReadSession(table=table, data_format=_storage.types.DataFormat.ARROW)
        return self.clients.read.create_read_session(
            parent=f"projects/{self.clients.project}",
            read_session=wanted,
            max_stream_count=MAX_STREAMS,
            timeout=CALL_TIMEOUT_S,
        )

    def _next(self, answers: Iterator[Any], purpose: str) -> Any:
        if self.stop.is_set():
            raise StoppedError(f"Reading {purpose} was stopped.", fix="It is tried again by itself.")
        with self._named(f"Reading the answer of {purpose}"):
            return next(answers, None)

    def _insist[T](self, doing: str, call: Callable[[Any], T]) -> T:
        def once() -> T:
            with self._named(doing):
                return call(self.clients.bigquery)

        return self.patience.insist(doing, once)

    @contextmanager
    def _named(self, doing: str) -> Iterator[None]:
        """Say whose access it is that was refused, and what the account needs."""
        try:
            yield
        except MantaError:
            raise
        except auth.RefreshError as error:
            raise self._no_token(error) from error
        except (google.Forbidden, google.Unauthorized, google.PermissionDenied) as error:
            reasons = {entry.get("reason") for entry in error.errors if isinstance(entry, dict)}
            if reasons & {"rateLimitExceeded", "quotaExceeded", "userRateLimitExceeded"}:
                raise TransientError(f"{doing}: {error.message}", fix="Wait: it is tried again.") from error
            raise CredentialError(
                f"{doing}: {self.clients.email} may not: {error.message}",
                fix=f"Give the service account {ROLES}.",
            ) from error
        except google.NotFound as error:
            raise NotFoundError(
                f"{doing}: not there, or not for {self.clients.email} to see: {error.message}",
                fix="Correct billing_dataset (project.dataset), or give the service account access to it.",
                field="billing_dataset",
            ) from error
        except google.GoogleAPICallError as error:
            if "bytesBilledLimitExceeded" in str(error) or "limit for bytes billed" in str(error):
                raise ConfigurationError(
                    f"{doing}: {error.message}",
                    fix="Raise MAXIMUM_BYTES_BILLED, or ask for fewer days at once.",
                    field="maximum_bytes_billed",
                ) from error
            with mapped(doing):
                raise
        except Exception:
            with mapped(doing):
                raise

    def _no_token(self, error: Any) -> MantaError:
        said = str(error.args[0]) if error.args else type(error).__name__
        if getattr(error, "retryable", False):
            return TransientError(
                f"The token endpoint gave {self.clients.email} no token: {said}",
                fix="Wait: it is tried again.",
            )
        return CredentialError(
            f"Google gives {self.clients.email} no token: {said}",
            fix="Check that the key is not deleted and the account not disabled, and store a new key: "
            "manta credential add ORG gcp",
        )


#: For every call: no retries of the client's own, `Patience` decides.
_CALL: dict[str, Any] = {"retry": NO_RETRY, "timeout": CALL_TIMEOUT_S}


def open_source(secret: str, settings: Settings, *, org: str, run_id: str) -> BigQuerySource:
    """The BigQuery that a service account's key opens. Raises CredentialError for what is no such key."""
    return BigQuerySource(
        connect_source(secret, settings),
        maximum_bytes_billed=settings.maximum_bytes_billed,
        labels={"manta-org": org, "manta-run": run_id},
    )

"""The Parquet file of each published partition, kept under its content hash."""

from __future__ import annotations

import errno
import io
import os
import uuid
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import ConfigurationError, NotFoundError, TransientError


class Artifacts:
    """A folder of artifacts, `{root}/{dataset}/{table}/{day}/{content_hash}.parquet`."""

    def __init__(self, root: str, *, token: Callable[[], str] = lambda: uuid.uuid4().hex) -> None:
        if "://" in root:
            raise ConfigurationError(
                f"Artifact root {root} is not a local folder.",
                fix="Mount the bucket and name the folder; object stores come with the extra 'gcs'.",
                field="artifact_root",
            )
        self.root = root
        self._token = token

    def uri(self, dataset: str, table: str, day: date, content_hash: str) -> str:
        """Where the partition's artifact lies; colons are no part of file names."""
        name = f"{content_hash.replace(':', '-')}.parquet"
        return str(Path(self.root) / dataset / table / day.isoformat() / name)

    def store(self, uri: str, data: bytes) -> None:
        """Write the bytes atomically; a file of that size under that content hash is kept.

        Raises TransientError naming the folder when it cannot be written.
        """
        path = Path(uri)
        try:
            if path.exists() and path.stat().st_size == len(data):
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            self._replace(path, data)
        except OSError as error:
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            raise TransientError(
                f"Artifact folder {path.parent} cannot be written: {error.strerror or error}.",
                fix=f"Free space under {self.root}." if full else f"Check that {self.root} is writable.",
            ) from error

    def read(self, uri: str) -> pa.Table:
        """Read an artifact back. Raises NotFoundError when retention has removed it."""
        try:
            return pq.read_table(io.BytesIO(Path(uri).read_bytes()))
        except FileNotFoundError as error:
            raise NotFoundError(
                f"Artifact {uri} is gone.", fix="Run the pipeline again for that day."
            ) from error

    def _replace(self, path: Path, data: bytes) -> None:
        beside = path.with_name(f".{path.name}.{self._token()}")
        try:
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def parquet(table: pa.Table) -> bytes:
    """A table as the Parquet bytes that BigQuery loads."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", store_schema=False)
    return sink.getvalue()

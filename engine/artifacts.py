"""The Parquet file of each published partition, kept under its content hash."""

from __future__ import annotations

import errno
import io
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.bucket import SCHEME, Bucket, split
from engine.errors import ConfigurationError, InternalError, NotFoundError, TransientError
from engine.foreign import Patience


def _no_storage() -> Any:
    raise InternalError(
        "Artifacts in Cloud Storage are wanted without a client.", fix="Give Artifacts its connect."
    )


class Artifacts:
    """Artifacts at `{root}/{dataset}/{table}/{day}/{content_hash}.parquet`: in a folder, or under `gs://`."""

    def __init__(
        self,
        root: str,
        *,
        connect: Callable[[], Any] = _no_storage,
        patience: Patience | None = None,
        token: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """Keep artifacts under `root`; `connect` answers a Cloud Storage client, called when it is needed.

        Raises ConfigurationError for a root that is neither a folder nor `gs://bucket/folder`.
        """
        if root.startswith(SCHEME):
            split(root)
        elif "://" in root:
            raise ConfigurationError(
                f"Artifact root {root} is neither a folder nor in Cloud Storage.",
                fix="Name a folder, or gs://bucket/folder.",
                field="artifact_root",
            )
        self.root = root.rstrip("/") if root.startswith(SCHEME) else str(Path(root))
        self._folder = Folder(self.root, token)
        self._bucket = Bucket(connect, patience or Patience())

    def uri(self, dataset: str, table: str, day: date, content_hash: str) -> str:
        """Where the partition's artifact lies; colons are no part of file names."""
        name = f"{content_hash.replace(':', '-')}.parquet"
        return f"{self.root}/{dataset}/{table}/{day.isoformat()}/{name}"

    def store(self, uri: str, data: bytes) -> None:
        """Write the bytes whole or not at all; what is there already under that content hash is kept.

        Raises TransientError when the place cannot be written now, ConfigurationError when it never will be.
        """
        self._place(uri).store(uri, data)

    def read(self, uri: str) -> pa.Table:
        """Read an artifact back. Raises NotFoundError when retention has removed it."""
        try:
            data = self._place(uri).read(uri)
        except (FileNotFoundError, NotFoundError) as error:
            raise NotFoundError(
                f"Artifact {uri} is gone.", fix="Run the pipeline again for that day."
            ) from error
        return pq.read_table(io.BytesIO(data))

    def remove(self, dataset: str) -> None:
        """Delete every artifact of a dataset under this root; none being there is fine.

        Raises TransientError when the place cannot be written now.
        """
        if not dataset or "/" in dataset:
            raise InternalError(f"{dataset!r} is no dataset.", fix="Name one dataset.")
        place = f"{self.root}/{dataset}/"
        self._place(place).remove(place)

    def _place(self, uri: str) -> Folder | Bucket:
        # By the artifact, not by the root: the ledger also names those of before the root was moved.
        return self._bucket if uri.startswith(SCHEME) else self._folder


@dataclass(frozen=True)
class Folder:
    """Artifacts as files; `token` makes the names of unfinished ones."""

    root: str
    token: Callable[[], str]

    def store(self, uri: str, data: bytes) -> None:
        """Write the bytes beside their place and rename; a file of that size is kept."""
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

    def read(self, uri: str) -> bytes:
        """The file's bytes. Raises FileNotFoundError."""
        return Path(uri).read_bytes()

    def remove(self, place: str) -> None:
        """Delete a folder and all that is in it."""
        try:
            shutil.rmtree(place)
        except FileNotFoundError:
            return
        except OSError as error:
            raise TransientError(
                f"Artifact folder {place} cannot be removed: {error.strerror or error}.",
                fix="Check that it is writable.",
            ) from error

    def _replace(self, path: Path, data: bytes) -> None:
        beside = path.with_name(f".{path.name}.{self.token()}")
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

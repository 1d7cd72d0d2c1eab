"""Artifacts in Cloud Storage: written only where nothing was, or over the very thing that was looked at."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import google_crc32c

from engine.errors import ConfigurationError, NotFoundError, TransientError
from engine.foreign import Conflict, Patience

SCHEME = "gs://"
#: Others that write the same name at the same time; each of these rounds one of them has come through.
MAX_ROUNDS = 8
#: Cloud Storage's rules for names of buckets, and something behind them.
_URI = re.compile(r"gs://(?P<bucket>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(?P<name>.*))?")


@dataclass(frozen=True)
class Bucket:
    """Objects of any bucket; `connect` builds the storage client when the first of them is asked for."""

    connect: Callable[[], Any]
    patience: Patience = field(default_factory=Patience)

    @cached_property
    def _client(self) -> Any:
        return self.connect()

    def store(self, uri: str, data: bytes) -> None:
        """Upload the bytes, checksum and all; an object that holds them already is kept.

        Raises NotFoundError without the bucket, ConfigurationError without the right to write, TransientError
        while Cloud Storage is away.
        """
        generation = 0  # to Cloud Storage: only where there is no object
        for _ in range(MAX_ROUNDS):
            try:
                self._upload(uri, data, generation)
            except Conflict:
                # Also our own upload, when its answer got lost and the call was made again.
                there = self._look(uri)
            else:
                return
            if there is not None and (there.size, there.crc32c) == (len(data), checksum(data)):
                return
            generation = there.generation if there is not None else 0
        raise TransientError(
            f"{uri} was written by others {MAX_ROUNDS} times meanwhile.", fix="Try again when they are done."
        )

    def read(self, uri: str) -> bytes:
        """Download the object and verify its checksum. Raises NotFoundError when it is gone."""
        blob = self._blob(uri)
        data: bytes = self.patience.insist(
            f"Reading {uri}", lambda: blob.download_as_bytes(checksum="crc32c", retry=None)
        )
        return data

    def remove(self, place: str) -> None:
        """Delete every object whose name begins so; one that another deletes meanwhile is fine."""
        bucket, prefix = split(place)

        def names() -> list[str]:
            return [blob.name for blob in self._client.list_blobs(bucket, prefix=prefix, retry=None)]

        for name in self.patience.insist(f"Listing {place}", names):
            self._delete(f"{SCHEME}{bucket}/{name}")

    def _delete(self, uri: str) -> None:
        blob = self._blob(uri)
        with suppress(NotFoundError):
            self.patience.insist(f"Deleting {uri}", lambda: blob.delete(retry=None))

    def _upload(self, uri: str, data: bytes, generation: int) -> None:
        def upload() -> None:
            # A new blob each time: a failed one remembers half of what happened. The client's own retry is
            # off here and below, else it would wait twice over.
            self._blob(uri).upload_from_string(
                data,
                content_type="application/vnd.apache.parquet",
                if_generation_match=generation,
                checksum="crc32c",
                retry=None,
            )

        self.patience.insist(f"Storing {uri}", upload)

    def _look(self, uri: str) -> Any:
        """The object's metadata; None when it is gone again."""
        blob = self._blob(uri)
        try:
            self.patience.insist(f"Looking at {uri}", lambda: blob.reload(retry=None))
        except NotFoundError:
            return None
        return blob

    def _blob(self, uri: str) -> Any:
        bucket, name = split(uri)
        return self._client.bucket(bucket).blob(name)


def split(uri: str) -> tuple[str, str]:
    """Bucket and name of `gs://bucket/name`. Raises ConfigurationError for anything else."""
    parts = _URI.fullmatch(uri)
    if parts is None:
        raise ConfigurationError(
            f"{uri} names no bucket of Cloud Storage.",
            fix="Write gs://bucket/folder.",
            field="artifact_root",
        )
    return parts["bucket"], parts["name"] or ""


def checksum(data: bytes) -> str:
    """CRC32C as Cloud Storage writes it: big-endian, base64."""
    return base64.b64encode(int(google_crc32c.value(data)).to_bytes(4, "big")).decode()

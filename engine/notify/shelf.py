"""An immutable mapping that is changed by copying one bucket of many: a step costs the same always."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

BUCKETS = 512


class Shelf[V](Mapping[str, V]):
    """A mapping of texts whose `put` and `drop` answer a new one and leave the old one as it was.

    A plain dictionary would be copied whole for every event: linear in all that is remembered.
    """

    __slots__ = ("_buckets", "_size")

    def __init__(self, items: Mapping[str, V] | None = None) -> None:
        buckets: list[dict[str, V]] = [{}] * BUCKETS if not items else [{} for _ in range(BUCKETS)]
        for key, value in (items or {}).items():
            buckets[hash(key) % BUCKETS][key] = value
        self._buckets = buckets
        self._size = len(items or ())

    def put(self, key: str, value: V) -> Shelf[V]:
        """With this value under the key."""
        return self._changed(key, {**self._buckets[hash(key) % BUCKETS], key: value})

    def drop(self, key: str) -> Shelf[V]:
        """Without the key, which may be missing."""
        old = self._buckets[hash(key) % BUCKETS]
        return self._changed(key, {k: v for k, v in old.items() if k != key}) if key in old else self

    def _changed(self, key: str, bucket: dict[str, V]) -> Shelf[V]:
        at = hash(key) % BUCKETS
        new = Shelf.__new__(Shelf)
        new._buckets = self._buckets.copy()
        new._buckets[at] = bucket
        new._size = self._size - len(self._buckets[at]) + len(bucket)
        return new

    def __getitem__(self, key: str) -> V:
        return self._buckets[hash(key) % BUCKETS][key]

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default."""
        return self._buckets[hash(key) % BUCKETS].get(key, default)

    def __iter__(self) -> Iterator[str]:
        for bucket in self._buckets:
            yield from bucket

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"Shelf({dict(self)!r})"

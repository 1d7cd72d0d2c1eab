"""What holds a master key: it wraps data keys, and knows the keys it had before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A data key under a master key, and which one: one answer, so that no rotation comes in between."""

    data: bytes
    key_name: str


class KeyWrapper(Protocol):
    """Holds the master key and never gives it away."""

    def current(self) -> str | None:
        """Name of the master key that `wrap` uses now; None while there is none."""
        ...

    def knows(self, key_name: str) -> bool:
        """Whether `unwrap` has this master key, the current one or a former one."""
        ...

    def wrap(self, data: bytes, aad: bytes) -> Wrapped:
        """Encrypt a data key under the current master key, making one when there is none."""
        ...

    def unwrap(self, wrapped: Wrapped, aad: bytes) -> bytes:
        """Decrypt a data key; InvalidTag, ValueError or ConfigurationError when it does not fit."""
        ...

    def renew(self) -> str:
        """Make a new master key the current one, keep the former to unwrap with, and answer the new name."""
        ...


class Stores:
    """Several stores, told apart by the beginning of their keys' names: one wraps, all of them unwrap.

    So a master key can move from a file to Cloud KMS or back. Stores are opened when they are first needed.
    """

    def __init__(self, current: str, stores: Mapping[str, Callable[[], KeyWrapper]]) -> None:
        self._current = current
        self._stores = stores
        self._opened: dict[str, KeyWrapper] = {}

    def current(self) -> str | None:
        """The current store's key."""
        return self._store(self._current).current()

    def knows(self, key_name: str) -> bool:
        """Whether the store that the name begins with is there and has the key."""
        kind = key_name.partition(":")[0]
        return kind in self._stores and self._store(kind).knows(key_name)

    def wrap(self, data: bytes, aad: bytes) -> Wrapped:
        """With the current store's key."""
        return self._store(self._current).wrap(data, aad)

    def unwrap(self, wrapped: Wrapped, aad: bytes) -> bytes:
        """With the key that is named, which must be known."""
        return self._store(wrapped.key_name.partition(":")[0]).unwrap(wrapped, aad)

    def renew(self) -> str:
        """In the current store."""
        return self._store(self._current).renew()

    def _store(self, kind: str) -> KeyWrapper:
        if kind not in self._opened:
            self._opened[kind] = self._stores[kind]()
        return self._opened[kind]

"""Faults for the next deliveries, in order: what the inbox and the Slack stand-in share."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock


@dataclass(slots=True)
class Due:
    """One fault: it hits the next `count` deliveries (None: all until `clear`) that `to` is a part of."""

    name: str
    count: int | None = 1
    to: str = ""
    seconds: float = 1.0
    hits: int = field(default=0, init=False)


class FaultQueue:
    """The scripted faults of one stand-in; `names` are those it knows."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._due: list[Due] = []
        self._lock = Lock()

    def put(self, name: str, *, count: int | None = 1, to: str = "", seconds: float = 1.0) -> Due:
        """Script a fault; `seconds` is what it waits or asks the client to wait."""
        if name not in self.names:
            raise ValueError(f"unknown fault '{name}'; there are {', '.join(self.names)}")
        due = Due(name, count, to, seconds)
        with self._lock:
            self._due.append(due)
        return due

    def clear(self) -> None:
        """No more faults."""
        with self._lock:
            self._due.clear()

    def take(self, *names: str, to: str = "") -> Due | None:
        """Give the first fault of these names that hits `to`, and count it."""
        with self._lock:
            for due in self._due:
                if due.name in names and due.to in to and due.count != 0:
                    due.count = None if due.count is None else due.count - 1
                    due.hits += 1
                    return due
        return None

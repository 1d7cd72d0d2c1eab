"""What clients asked, kept for assertions; secrets never enter."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

SECRET_HEADERS = ("authorization", "x-api-key", "cookie", "proxy-authorization")
MOST = 5_000


@dataclass(slots=True)
class Request:
    """One request as it came in, and the status it was answered with; `time` is real UTC time.

    The sandbox's own clock may stand still, and a test of a client's waiting needs the real one.
    """

    time: str
    provider: str
    org: str | None
    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    key_last4: str | None
    page: int
    status: int = 0  # not answered yet
    fault: str | None = None

    def values(self, name: str) -> list[str]:
        """Give every value of a query parameter, in either array spelling."""
        return [value for key, value in self.query if key.removesuffix("[]") == name]


class Seen:
    """The newest requests, at most MOST."""

    def __init__(self) -> None:
        self._requests: deque[Request] = deque(maxlen=MOST)
        self._lock = Lock()

    def add(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)

    def clear(self) -> None:
        with self._lock:
            self._requests.clear()

    def all(
        self, *, provider: str | None = None, org: str | None = None, path: str | None = None
    ) -> list[Request]:
        """Give requests oldest first, of one provider, organisation or path part where named."""
        with self._lock:
            held = list(self._requests)
        return [
            request
            for request in held
            if (provider is None or request.provider == provider)
            and (org is None or request.org == org)
            and (path is None or path in request.path)
        ]

    def as_json(self, **wanted: str | None) -> list[dict[str, Any]]:
        return [asdict(request) for request in self.all(**wanted)]


def without_secrets(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Copy headers, each secret cut to its last four characters."""
    return {
        name.lower(): f"****{value[-4:]}" if name.lower() in SECRET_HEADERS else value
        for name, value in headers
    }

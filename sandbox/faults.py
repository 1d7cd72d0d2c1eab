"""Faults on demand: which there are, whom they hit, and what they do to an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

# Answered instead of the report.
REPLACING = (
    "rate_limited",  # 429 with Retry-After
    "rate_limited_reset",  # 429 without it, with anthropic-ratelimit-requests-reset (facts 2.5)
    "rate_limited_bare",  # 429 with neither
    "server_error",  # 500
    "overloaded",  # 529
    "html",  # 200 and not JSON
    "redirect",  # 307 to another host
    "revoked_key",  # 401 from here on, until the key is restored
)
# Done to the body that was about to be sent.
BODY = ("cut", "truncated_json")
# Done to the page before it is written.
PAGE = (
    "repeated_cursor",
    "null_cursor",
    "bucket_repeated",
    "bucket_skipped",
    "negative_count",
    "string_count",
    "missing_field",
)
# `timeout` waits `seconds` and then answers as usual.
NAMES = (*REPLACING, *BODY, *PAGE, "timeout")


@dataclass(slots=True)
class Fault:
    """One scripted fault: it lets `after` matching requests pass and then hits the next `count`.

    `path` is a part of the path; `page` counts from 1 along a cursor walk; None matches everything.
    """

    name: str
    count: int = 1
    after: int = 0
    path: str = ""
    provider: str | None = None
    org: str | None = None
    page: int | None = None
    seconds: float = 1.0
    location: str = "http://elsewhere.invalid/"
    hits: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"unknown fault '{self.name}'; there are {', '.join(NAMES)}")

    def matches(self, provider: str, org: str | None, path: str, page: int) -> bool:
        return (
            self.path in path
            and self.provider in (None, provider)
            and self.org in (None, org)
            and self.page in (None, page)
        )


class Faults:
    """The scripted faults, in the order they were put."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = Lock()

    def put(self, name: str, **settings: Any) -> Fault:
        """Script a fault; settings are the fields of `Fault`."""
        fault = Fault(name, **settings)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def as_json(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(fault) for fault in self._faults]

    def take(self, provider: str, org: str | None, path: str, page: int) -> Fault | None:
        """Give the fault that hits this request and count it; the first match that is due wins."""
        with self._lock:
            due: Fault | None = None
            for fault in self._faults:
                if not fault.count or not fault.matches(provider, org, path, page):
                    continue
                if fault.after:
                    fault.after -= 1
                elif due is None:
                    due = fault
            if due is not None:
                due.count -= 1
                due.hits += 1
            return due

    def give_back(self, fault: Fault) -> None:
        """Undo a take: the fault had nothing to act on here, e.g. a cursor on a last page."""
        with self._lock:
            fault.count += 1
            fault.hits -= 1


class CutResponse(Response):
    """Promises the whole body, sends half of it and lets the server close the socket."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})


type ErrorBody = Callable[[int, str], Response]


def replaced(fault: Fault, error: ErrorBody) -> Response:
    """Build the answer that stands in the report's place."""
    if fault.name == "html":
        return HTMLResponse("<html><body><h1>502 Bad Gateway</h1></body></html>", status_code=200)
    if fault.name == "redirect":
        return Response(status_code=307, headers={"location": fault.location})
    if fault.name == "server_error":
        return error(500, "The server had an error while processing your request.")
    if fault.name == "overloaded":
        return error(529, "Overloaded")
    answer = error(429, "Rate limit reached. Please try again later.")
    # Retry-After is whole seconds, at least 1 (facts 1.5).
    wait_s = max(round(fault.seconds), 1)
    if fault.name == "rate_limited":
        answer.headers["retry-after"] = str(wait_s)
    elif fault.name == "rate_limited_reset":
        # The client compares this with its own clock, so it is real time, never the sandbox's set clock.
        reset = datetime.now(UTC) + timedelta(seconds=wait_s)
        answer.headers["anthropic-ratelimit-requests-reset"] = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
    return answer


def broken(fault: Fault, body: bytes) -> Response:
    """Spoil a body on its way out."""
    if fault.name == "cut":
        return CutResponse(body, media_type="application/json")
    return Response(body[: len(body) * 2 // 3], media_type="application/json")


def spoil_row(fault: Fault, results: list[dict[str, Any]]) -> bool:
    """Spoil the first countable value of a page's rows; says whether there was one."""
    for row in results:
        name = next((k for k, v in row.items() if type(v) is int or k == "amount"), None)
        if name is None:
            continue
        if fault.name == "missing_field":
            del row[name]
        elif name == "amount":
            wrong = "-12.5" if fault.name == "negative_count" else "twelve"
            row[name] = {**row[name], "value": wrong} if isinstance(row[name], dict) else wrong
        else:
            row[name] = -(row[name] + 1) if fault.name == "negative_count" else str(row[name])
        return True
    return False

"""The outermost ring, pure ASGI: request ids, hostile paths and headers, sizes, headers, the log line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes
from uuid import uuid4

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.audit import Audit
from engine.log import Log
from serve.problems import INTERNAL_FIX, Problem

API_VERSION = "v1"
MAX_HEADER_BYTES = 16 * 1024
#: Of these only one value may come: with two, who asks would depend on who reads.
SINGLE = (b"x-api-key", b"x-ca-root-key", b"idempotency-key", b"x-user-id")
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_ENCODED_SLASH = re.compile(rb"%(2f|5c)", re.IGNORECASE)


class Edge:
    """Around everything else: nothing malformed gets in, nothing unmarked gets out.

    `monotonic` is in seconds; `note` takes audits of reads and refusals. `echoed`: the proxy in front puts
    X-Request-ID into the answer, as it came or was made there (Ray Serve's does).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        log: Log,
        note: Callable[[Audit], None],
        monotonic: Callable[[], float],
        echoed: bool = False,
    ) -> None:
        self._app = app
        self._echoed = echoed
        self._max_body_bytes = max_body_bytes
        self._log = log
        self._note = note
        self._monotonic = monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._monotonic()
        state: dict[str, Any] = scope.setdefault("state", {})
        request_id = state["request_id"] = _request_id(scope)
        status = 0

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                for name, value in state.get("limit_headers", {}).items():
                    headers.setdefault(name, value)
                if not (self._echoed and _asked_id(scope) == request_id):
                    headers["X-Request-ID"] = request_id
                headers["X-API-Version"] = API_VERSION
                headers["X-Process-Time"] = f"{self._monotonic() - began:.6f}"
            await send(message)

        try:
            if (found := refusal(scope, self._max_body_bytes)) is not None:
                await found.response(request_id)(scope, receive, marked)
            else:
                await self._app(scope, _counted(receive, self._max_body_bytes), marked)
        finally:
            self._record(scope, state, status, self._monotonic() - began)

    def _record(self, scope: Scope, state: dict[str, Any], status: int, seconds: float) -> None:
        audit: Audit | None = state.get("audit")
        failure = state.get("failure")
        fields: dict[str, object] = {
            "request_id": state["request_id"],
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "seconds": round(seconds, 4),
            "ip": client_of(scope),
        }
        if audit is not None:
            fields |= {"org": audit.org, "actor": audit.actor, "action": audit.action}
        if failure is not None:
            fields |= {"error": type(failure).__name__, "message": str(failure)}
        if audit is not None and not (state.get("recorded") and status < HTTPStatus.BAD_REQUEST):
            self._note(replace(audit, status=_outcome(status), detail=getattr(failure, "code", None)))
        line = self._log.error if status >= HTTPStatus.INTERNAL_SERVER_ERROR else self._log.info
        line("request", **fields)


class Caught:
    """The innermost ring: what no handler knew becomes a 500 that tells nothing."""

    def __init__(self, app: ASGIApp, *, log: Log) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise
            scope["state"]["failure"] = error
            found = Problem(500, "internal", "Something went wrong on our side.", INTERNAL_FIX)
            await found.response(scope["state"]["request_id"])(scope, receive, send)


def client_of(scope: Scope) -> str:
    """The address at the other end of the connection; headers that claim another are not believed."""
    client = scope.get("client")
    return str(client[0]) if client else "-"


def refusal(scope: Scope, max_body_bytes: int) -> Problem | None:
    """Why a request is refused by its first lines alone, or None."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if said := _bad_path(scope):
        return Problem(400, "bad_request", said, "Send a plain path, as in /docs.")
    if sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEADER_BYTES:
        return Problem(
            431, "headers_too_large", f"The headers take more than {MAX_HEADER_BYTES} bytes.", "Send fewer."
        )
    for name in SINGLE:
        if len({value for key, value in headers if key == name}) > 1:
            return Problem(
                400, "bad_request", f"{name.decode()} was sent twice, with two values.", "Send it once."
            )
    # Here too who reads would decide which one counts.
    names = [name for name, _ in parse_qsl(scope.get("query_string", b""), keep_blank_values=True)]
    if len(set(names)) < len(names):
        return Problem(400, "bad_request", "A parameter of the query was sent twice.", "Send it once.")
    lengths = [value for key, value in headers if key == b"content-length"]
    if any(not value.isdigit() for value in lengths):
        return Problem(400, "bad_request", "Content-Length is no number.", "Send the body's length in bytes.")
    if any(int(value) > max_body_bytes for value in lengths):
        return too_large(max_body_bytes)
    return None


def too_large(max_body_bytes: int) -> Problem:
    """The refusal of a body."""
    return Problem(
        413, "too_large", f"The body is larger than {max_body_bytes} bytes.", "Send a smaller one."
    )


def _bad_path(scope: Scope) -> str | None:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    raw = raw.partition(b"?")[0]
    if _ENCODED_SLASH.search(raw) or b"\\" in raw:
        return "The path holds an encoded slash or a backslash."
    path = unquote_to_bytes(raw)
    query = unquote_to_bytes(scope.get("query_string", b""))
    if any(byte < 0x20 or byte == 0x7F for byte in (*path, *query)):
        return "The path or query holds a control character."
    if any(part in (b".", b"..") for part in path.split(b"/")):
        return "The path holds a dot segment."
    try:
        path.decode()
        query.decode()
    except UnicodeDecodeError:
        return "The path or query is no UTF-8."
    return None


def _asked_id(scope: Scope) -> str:
    given = {value.decode("latin-1") for key, value in scope["headers"] if key == b"x-request-id"}
    return given.pop() if len(given) == 1 else ""


def _request_id(scope: Scope) -> str:
    asked = _asked_id(scope)
    return asked if _REQUEST_ID.fullmatch(asked) else uuid4().hex


def _counted(receive: Receive, most: int) -> Receive:
    """Counts what arrives: a body may be longer than it said, or not say."""
    seen = 0

    async def counting() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > most:
                raise too_large(most)
        return message

    return counting


def _outcome(status: int) -> Any:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or not status:
        return "FAILED"
    return "REFUSED" if status >= HTTPStatus.BAD_REQUEST else "OK"

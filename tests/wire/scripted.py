"""A server on loopback that answers as a test says, and a way for processors to it."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from engine.errors import MantaError
from engine.http import Http, open_client
from engine.log import JsonLog
from engine.oauth import open_auth
from engine.providers import Provider
from engine.request_auth import RequestAuth
from engine.retry import RetryPolicy
from engine.settings import Settings

NOW = datetime(2025, 12, 9, 8, tzinfo=UTC)
DAY = date(2025, 12, 8)


@dataclass(frozen=True)
class Asked:
    """One request as the server saw it."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Said:
    """An answer: JSON unless it is bytes."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Scripted:
    """A server that answers by a function of the request, and remembers what it was asked."""

    def __init__(self, answer: Callable[[Asked], Said]) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.url = ""


@contextmanager
def serving(answer: Callable[[Asked], Said]) -> Iterator[Scripted]:
    """Serve until the block ends."""
    scripted = Scripted(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            asked = Asked(
                self.command, parts.path, dict(parse_qsl(parts.query)), dict(self.headers.items()), body
            )
            scripted.asked.append(asked)
            said = scripted.answer(asked)
            content = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
            self.send_response(said.status)
            for name, value in {"content-type": "application/json", **said.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _serve  # noqa: N815

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    scripted.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield scripted
    finally:
        server.shutdown()
        server.server_close()


class Open:
    """Permits without a limit that remember refusals."""

    def __init__(self) -> None:
        self.learned: list[tuple[int, dict[str, str]]] = []

    async def take(self) -> None:
        return None

    def learn(self, status: int, headers: Mapping[str, str]) -> None:
        if status == 429:
            self.learned.append((status, dict(headers)))


#: Makes an auth that needs the unit's HTTP client itself, for tokens.
type Opening = Callable[[httpx.AsyncClient], RequestAuth]


@dataclass
class Reading:
    """One execution of a processor: its result or error, what it waited, logged and called."""

    waits: list[float] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    permits: Open = field(default_factory=Open)
    calls: int = 0

    def http(self, client: httpx.AsyncClient, url: str, auth: RequestAuth, **more: Any) -> Http:
        """A client as a unit has it, whose waits are only written down."""

        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)

        return Http(
            client,
            provider=more.pop("provider", "example"),
            base_url=url,
            auth=auth,
            permits=self.permits,
            policy=RetryPolicy(base_s=0.001),
            rand=random.Random(7).random,
            sleep=sleep,
            now=lambda: datetime.now(UTC),
            log=JsonLog(self.lines.append, now=lambda: NOW),
            **more,
        )

    def opening(
        self,
        provider: Provider,
        secret: str,
        settings: Settings,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Opening:
        """The auth of a stored secret, as a unit opens it."""

        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)

        return lambda client: open_auth(
            provider,
            secret,
            settings=settings,
            client=client,
            policy=RetryPolicy(base_s=0.001),
            rand=random.Random(7).random,
            sleep=sleep,
            now=now,
            log=JsonLog(self.lines.append, now=lambda: NOW),
        )

    async def run(
        self,
        engine: Any,
        config: dict[str, Any],
        url: str,
        *,
        days: Sequence[date] = (DAY,),
        auths: Mapping[str, RequestAuth | Opening] | None = None,
        context: Mapping[str, Any] | None = None,
        read_s: float = 5,
        **more: Any,
    ) -> dict[str, Any]:
        """Execute a processor's engine over days, with one client for each auth."""
        async with open_client(read_s=read_s) as client:
            https = {
                name: self.http(client, url, auth(client) if callable(auth) else auth, **more)
                for name, auth in (auths or {"none": RequestAuth({})}).items()
            }
            given = {
                "org_slug": "acme",
                "dates": tuple(days),
                "http": https,
                "log": JsonLog(self.lines.append, now=lambda: NOW),
                "clock": lambda: NOW,
                **(context or {}),
            }
            try:
                result: dict[str, Any] = await engine.execute(config, given)
            finally:
                self.calls = sum(http.calls for http in https.values())
        assert result["status"] == "SUCCESS"
        return result

    async def fails(self, *given: Any, **more: Any) -> MantaError:
        """The error of an execution that must not succeed."""
        try:
            result = await self.run(*given, **more)
        except MantaError as error:
            return error
        raise AssertionError(f"it succeeded: {result['metrics']}")

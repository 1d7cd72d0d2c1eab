"""A mail server on loopback with an inbox to read: real SMTP, STARTTLS and login, faults on demand."""

from __future__ import annotations

import asyncio
import html
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as modern
from typing import Any, Literal, cast

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from sandbox.fault_queue import FaultQueue
from sandbox.loop_thread import serving
from sandbox.loopback_tls import client_context, server_context

LOOPBACK = "127.0.0.1"
MOST = 5_000
#: What is answered instead of 250, and to which command.
ANSWERS = {
    "busy": "421 4.3.2 Service not available, try again later",  # MAIL
    "refuse_sender": "553 5.7.1 Sender address rejected",  # MAIL
    "greylist": "451 4.7.1 Greylisted, please try again later",  # RCPT
    "refuse": "550 5.1.1 The email account that you tried to reach does not exist",  # RCPT
    "reject": "554 5.7.1 Message rejected",  # DATA
    "quota": "550 5.4.5 Daily user sending limit exceeded",  # DATA
    "auth_later": "454 4.7.0 Temporary authentication failure",  # AUTH
    "bad_auth": "535 5.7.8 Username and Password not accepted",  # AUTH
}
#: `slow` keeps the mail and answers after `seconds`; `drop` keeps it and cuts the line instead of answering.
FAULTS = (*ANSWERS, "slow", "drop")
Tls = Literal["none", "starttls", "implicit"]


@dataclass(frozen=True)
class Mail:
    """One mail as it was taken; `at` is real UTC time."""

    number: int
    at: str
    sender: str
    recipients: tuple[str, ...]
    raw: bytes = field(repr=False)
    tls: bool = False
    login: str | None = None

    @property
    def message(self) -> EmailMessage:
        """The mail, parsed."""
        parsed = message_from_bytes(self.raw, policy=modern)
        if not isinstance(parsed, EmailMessage):
            raise TypeError(type(parsed))
        return parsed

    @property
    def subject(self) -> str:
        return str(self.message["Subject"])

    @property
    def message_id(self) -> str:
        return str(self.message["Message-ID"])

    @property
    def text(self) -> str:
        """The plain text part."""
        return self._part("plain")

    @property
    def html(self) -> str:
        """The HTML part, or nothing."""
        return self._part("html")

    def _part(self, kind: Literal["plain", "html"]) -> str:
        part = self.message.get_body((kind,))
        return "" if part is None else str(part.get_content())

    def summary(self) -> dict[str, Any]:
        """One line of the inbox."""
        return {
            "number": self.number,
            "at": self.at,
            "from": str(self.message["From"]),
            "to": list(self.recipients),
            "subject": self.subject,
            "message_id": self.message_id,
        }


class Inbox:
    """The newest mails, at most MOST, and the faults to come."""

    def __init__(self, *, logins: Mapping[str, str] | None = None) -> None:
        self.faults = FaultQueue(FAULTS)
        self.logins = dict(logins or {})
        self._mails: deque[Mail] = deque(maxlen=MOST)
        self._taken = 0

    def all(self, *, to: str = "", subject: str = "") -> list[Mail]:
        """Give mails oldest first whose recipients and subject contain these."""
        return [
            mail
            for mail in tuple(self._mails)
            if to in " ".join(mail.recipients) and subject.casefold() in mail.subject.casefold()
        ]

    def clear(self) -> None:
        """Forget mails and faults."""
        self._mails.clear()
        self.faults.clear()

    def keep(self, sender: str, recipients: list[str], raw: bytes, *, tls: bool, login: str | None) -> None:
        """Take a mail in."""
        self._taken += 1
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._mails.append(Mail(self._taken, at, sender, tuple(recipients), raw, tls, login))


class _Hooks:
    """What the server asks at each command; names and arguments are aiosmtpd's."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def __call__(
        self, _server: SMTP, _session: Any, _envelope: Any, _mechanism: str, data: Any
    ) -> AuthResult:
        for fault in ("auth_later", "bad_auth"):
            if self._inbox.faults.take(fault):
                return AuthResult(success=False, handled=False, message=ANSWERS[fault])
        if not isinstance(data, LoginPassword):
            return AuthResult(success=False, handled=False)
        login, password = data.login.decode(), data.password.decode()
        known = self._inbox.logins.get(login) == password
        return AuthResult(
            success=known, handled=False, message=None if known else ANSWERS["bad_auth"], auth_data=login
        )

    async def handle_MAIL(  # noqa: N802
        self, _server: SMTP, session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        if self._inbox.logins and not session.authenticated:
            return "530 5.7.0 Authentication required"
        if (fault := self._inbox.faults.take("busy", "refuse_sender", to=address)) is not None:
            return ANSWERS[fault.name]
        envelope.mail_from = address
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        if (fault := self._inbox.faults.take("greylist", "refuse", to=address)) is not None:
            return ANSWERS[fault.name]
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802
        to, line = " ".join(envelope.rcpt_tos), cast(asyncio.Transport, server.transport)
        if (fault := self._inbox.faults.take("reject", "quota", to=to)) is not None:
            return ANSWERS[fault.name]
        self._inbox.keep(
            envelope.mail_from,
            envelope.rcpt_tos,
            envelope.original_content,
            tls=session.ssl is not None or line.get_extra_info("sslcontext") is not None,
            login=session.auth_data if session.authenticated else None,
        )
        if self._inbox.faults.take("drop", to=to):
            line.abort()
            await asyncio.sleep(0)
        if (fault := self._inbox.faults.take("slow", to=to)) is not None:
            await asyncio.sleep(fault.seconds)
        return "250 2.0.0 OK kept"


async def listen(inbox: Inbox, *, port: int = 0, tls: Tls = "none") -> asyncio.Server:
    """Start serving on loopback in the running loop; port 0 takes a free one."""
    loop = asyncio.get_running_loop()
    hooks = _Hooks(inbox)

    def connection() -> SMTP:
        return SMTP(
            hooks,
            hostname="inbox.sandbox",
            ident="Manta sandbox",
            loop=loop,
            tls_context=server_context() if tls == "starttls" else None,
            require_starttls=tls == "starttls",
            authenticator=hooks,
            # With TLS from the first byte aiosmtpd does not see that there is TLS.
            auth_require_tls=tls == "starttls" or not inbox.logins,
        )

    return await loop.create_server(
        connection, host=LOOPBACK, port=port, ssl=server_context() if tls == "implicit" else None
    )


@dataclass(frozen=True)
class MailServer:
    """A running server: its address, its inbox, and a TLS context that trusts it."""

    host: str
    port: int
    inbox: Inbox
    tls: ssl.SSLContext = field(repr=False)


@contextmanager
def running(
    *, port: int = 0, tls: Tls = "none", logins: Mapping[str, str] | None = None
) -> Iterator[MailServer]:
    """Serve an inbox in a thread until the block ends; with `logins` nobody sends without one."""
    inbox = Inbox(logins=logins)

    async def main(ready: Callable[[int], None], stop: asyncio.Event) -> None:
        server = await listen(inbox, port=port, tls=tls)
        ready(server.sockets[0].getsockname()[1])
        await stop.wait()
        server.close()

    with serving(main, name="inbox") as found:
        yield MailServer(LOOPBACK, found, inbox, client_context())


class _Web:
    """The inbox over HTTP, one method a route."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def _mail(self, request: Request) -> Mail | None:
        number = request.path_params["number"]
        return next((mail for mail in self._inbox.all() if mail.number == number), None)

    async def page(self, _: Request) -> Response:
        return HTMLResponse(_page(self._inbox.all()))

    async def listing(self, request: Request) -> Response:
        wanted = {name: request.query_params.get(name, "") for name in ("to", "subject")}
        return JSONResponse({"mails": [mail.summary() for mail in self._inbox.all(**wanted)]})

    async def text(self, request: Request) -> Response:
        mail = self._mail(request)
        return PlainTextResponse(mail.text) if mail else PlainTextResponse("no such mail", 404)

    async def shown(self, request: Request) -> Response:
        mail = self._mail(request)
        # A mail program runs no scripts either.
        headers = {"content-security-policy": "sandbox; script-src 'none'"}
        return HTMLResponse(mail.html, headers=headers) if mail else PlainTextResponse("no such mail", 404)

    async def fault(self, request: Request) -> Response:
        try:
            self._inbox.faults.put(**await request.json())
        except (ValueError, TypeError) as problem:
            return JSONResponse({"error": str(problem)}, 400)
        return JSONResponse({"ok": True})

    async def clear(self, _: Request) -> Response:
        self._inbox.clear()
        return JSONResponse({"ok": True})


def routes(inbox: Inbox) -> list[BaseRoute]:
    """The inbox over HTTP: a page, each mail as text and as HTML, JSON for programs, and the faults."""
    web = _Web(inbox)
    return [
        Route("/_inbox", web.page),
        Route("/_inbox/mails", web.listing),
        Route("/_inbox/mails", web.clear, methods=["DELETE"]),
        Route("/_inbox/mails/{number:int}", web.text),
        Route("/_inbox/mails/{number:int}/html", web.shown),
        Route("/_inbox/faults", web.fault, methods=["POST"]),
    ]


def _page(mails: list[Mail]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(mail.at[:19])}</td><td>{html.escape(', '.join(mail.recipients))}</td>"
        f"<td><a href='/_inbox/mails/{mail.number}/html'>{html.escape(mail.subject)}</a>"
        f" (<a href='/_inbox/mails/{mail.number}'>text</a>)</td></tr>"
        for mail in reversed(mails)
    )
    return (
        "<!doctype html><meta charset='utf-8'><title>Sandbox inbox</title>"
        "<style>body{font:15px sans-serif;margin:2em}td{padding:4px 12px;border-bottom:1px solid}</style>"
        f"<h1>Sandbox inbox: {len(mails)} mails</h1><table>{rows}</table>"
    )

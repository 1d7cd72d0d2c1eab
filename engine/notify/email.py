"""Mail over SMTP: STARTTLS or TLS, login, one stable Message-ID, and every recipient's fate."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from typing import Literal

import aiosmtplib

from engine.errors import ConfigurationError, CredentialError, MantaError, TransientError
from engine.notify.channels import Delivery, Secrets, asked_wait, said
from engine.notify.config import ADDRESS, EmailConfig
from engine.notify.render import MOST_ORG_CHARS, mail, one_line, shorten
from engine.notify.retry import Patience, Retried, persist
from engine.notify.types import Message, Severity
from engine.settings import is_loopback

Security = Literal["starttls", "tls", "none"]
#: Saying goodbye must not hold up what is already delivered.
QUIT_S = 2.0
#: The port on which TLS begins with the first byte.
TLS_PORT = 465
#: Gmail answers 550 5.4.5 when a day's mails are used up: permanent by its code, over by itself.
QUOTA_WAIT = timedelta(hours=1)
_UNSAFE_ID = re.compile(r"[^A-Za-z0-9._-]")
_QUOTA = re.compile(r"\b5\.4\.5\b|sending (quota|limit)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MailRoute:
    """Where mails go and in whose name. `starttls` is port 587's way, `tls` port 465's."""

    host: str
    port: int
    sender: str
    to: tuple[str, ...]
    cc: tuple[str, ...] = ()
    security: Security = "starttls"
    sender_name: str = "Manta"
    subject_prefix: str = "[Manta]"
    username: str | None = None
    password: str | None = field(default=None, repr=False)


class EmailNotificationProvider:
    """Sends messages as mails; see `engine.notify.channels.Channel`.

    Refuses at once, with ConfigurationError, a route without recipients, with an address that is none, or
    with a password that would travel readable.
    """

    kind = "email"

    def __init__(
        self,
        route: MailRoute,
        *,
        patience: Patience,
        now: Callable[[], datetime],
        rand: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        tls_context: ssl.SSLContext | None = None,
        on_retry: Callable[[Retried], None] = lambda retried: None,
    ) -> None:
        check_route(route)
        self._route, self._patience, self._tls_context = route, patience, tls_context
        self._now, self._rand, self._sleep, self._on_retry = now, rand, sleep, on_retry

    async def send(self, message: Message) -> Delivery:
        """Deliver to every recipient; those that a server asks to wait are tried again without the others."""
        built = build(self._route, message, now=self._now())
        progress = _Progress([*dict.fromkeys((*self._route.to, *self._route.cc))])
        try:
            await persist(
                lambda number: self._attempt(built, progress, number),
                self._patience,
                rand=self._rand,
                sleep=self._sleep,
                on_retry=self._on_retry,
            )
        except MantaError as error:
            # Once somebody has it, sending the whole message again would double it for them.
            if not progress.taken:
                raise
            progress.refused |= dict.fromkeys(progress.waiting, error.message)
        return Delivery(
            provider_message_id=str(built["Message-ID"]),
            detail=progress.said,
            refused=tuple(progress.refused.items()),
            attempts=progress.attempts,
        )

    async def _attempt(self, built: EmailMessage, progress: _Progress, number: int) -> None:
        progress.attempts = number
        try:
            answers, answer = await self._transmit(built, progress.waiting)
            progress.said = said(answer)
        except aiosmtplib.SMTPRecipientsRefused as error:
            answers = {one.recipient: (one.code, one.message) for one in error.recipients}
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise mapped(error, where=f"{self._route.host}:{self._route.port}") from error
        progress.take(answers)
        if progress.waiting:
            words = "; ".join(f"{address}: {answers[address][1]}" for address in progress.waiting)
            raise TransientError(
                f"{self._route.host}: asked to wait: {said(words)}",
                fix="Wait: mail servers that do not know a sender accept a second attempt.",
                retry_after=asked_wait(words),
            )
        if not progress.taken:
            words = "; ".join(f"{address}: {why}" for address, why in progress.refused.items())
            raise ConfigurationError(
                f"{self._route.host}: every recipient was refused: {said(words)}",
                fix="Correct the recipients of the channel.",
                field="to",
            )

    async def _transmit(
        self, built: EmailMessage, recipients: list[str]
    ) -> tuple[Mapping[str, tuple[int, str]], str]:
        """One conversation with the server: what it said to each refused recipient, and to the mail."""
        route = self._route
        client = aiosmtplib.SMTP(
            hostname=route.host,
            port=route.port,
            username=route.username,
            password=route.password,
            use_tls=route.security == "tls",
            start_tls=route.security == "starttls",
            tls_context=self._tls_context,
            # The attempt as a whole has a limit.
            timeout=None,
        )
        try:
            await client.connect()
            try:
                refused, answer = await client.send_message(built, sender=route.sender, recipients=recipients)
            except (aiosmtplib.SMTPResponseException, aiosmtplib.SMTPRecipientsRefused):
                await _leave(client)
                raise
            await _leave(client)
            return {address: (one.code, one.message) for address, one in refused.items()}, answer
        finally:
            client.close()


async def _leave(client: aiosmtplib.SMTP) -> None:
    """Say goodbye; what comes of it changes nothing any more."""
    if client.is_connected:
        with contextlib.suppress(aiosmtplib.SMTPException, OSError):
            await client.quit(timeout=QUIT_S)


class _Progress:
    """Which recipients have the mail, which will not get it, and which wait for another attempt."""

    def __init__(self, recipients: list[str]) -> None:
        self.waiting = recipients
        self.taken: list[str] = []
        self.refused: dict[str, str] = {}
        self.said = ""
        self.attempts = 0

    def take(self, answers: Mapping[str, tuple[int, str]]) -> None:
        """Sort the recipients of one attempt by what the server said; without a word it took the mail."""
        self.taken += [address for address in self.waiting if address not in answers]
        self.refused |= {
            address: said(f"{code} {words}")
            for address, (code, words) in answers.items()
            if _permanent(code, words)
        }
        self.waiting = [address for address in answers if address not in self.refused]


def mail_route(config: EmailConfig, *, secret: Secrets, admin: str | None = None) -> MailRoute:
    """The route that a configuration describes; `admin` gets the mails where it names nobody.

    The sender is `from_email`, else the login where that is an address, else `admin`. Raises
    ConfigurationError for what is missing; `check_route` says what else can be wrong.
    """
    username, password = secret(config.username_env), secret(config.password_env)
    if bool(username) != bool(password):
        have, lack = config.username_env, config.password_env
        have, lack = (have, lack) if username else (lack, have)
        raise ConfigurationError(f"{have} is set and {lack} is not.", fix=f"Set {lack} too.", field=lack)
    login = username if username and ADDRESS.fullmatch(username) else None
    sender = config.from_email or login or admin
    for name, value in (("smtp_host", config.smtp_host), ("from_email", sender)):
        if not value:
            raise ConfigurationError(
                f"The e-mail channel has no {name}.", fix=f"Set email_config.{name}.", field=name
            )
    return MailRoute(
        host=config.smtp_host or "",
        port=config.smtp_port,
        sender=sender or "",
        to=config.to or ((admin,) if admin else ()),
        cc=config.cc,
        security="none" if not config.use_tls else "tls" if config.smtp_port == TLS_PORT else "starttls",
        sender_name=config.from_name,
        subject_prefix=config.subject_prefix,
        username=username or None,
        password=password or None,
    )


def check_route(route: MailRoute) -> None:
    """Raise ConfigurationError for a route by which no mail can or should be sent."""
    if not route.to:
        raise ConfigurationError(
            "The e-mail channel has no recipient.",
            fix="Name one in email_config.to, or set DEFAULT_ADMIN_EMAIL.",
            field="to",
        )
    for name, addresses in (
        ("from_email", (route.sender,)),
        ("to", route.to),
        ("cc", route.cc),
    ):
        for address in addresses:
            if ADDRESS.fullmatch(address) is None or one_line(address) != address:
                raise ConfigurationError(
                    f"{one_line(address)!r} is no e-mail address.", fix="Write name@host.", field=name
                )
    if route.username and route.security == "none" and not is_loopback(f"{route.host}:{route.port}"):
        raise ConfigurationError(
            f"Without TLS the password for {route.host} would be readable on the way; nothing is sent.",
            fix="Set use_tls to true.",
            field="use_tls",
        )


def build(route: MailRoute, message: Message, *, now: datetime) -> EmailMessage:
    """The whole mail. Its Message-ID follows from the message's id alone, whoever sends it and how often."""
    text = mail(message, subject_prefix=route.subject_prefix)
    built = EmailMessage(policy=SMTP_POLICY)
    built["From"] = Address(one_line(route.sender_name), addr_spec=route.sender)
    built["To"] = [Address(addr_spec=address) for address in route.to]
    if route.cc:
        built["Cc"] = [Address(addr_spec=address) for address in route.cc]
    built["Subject"] = text.subject
    built["Date"] = format_datetime(now)
    built["Message-ID"] = f"<{_UNSAFE_ID.sub('-', message.id)}@manta>"
    # No holiday greetings and no bounces of bounces in answer to a machine.
    built["Auto-Submitted"] = "auto-generated"
    built["X-Auto-Response-Suppress"] = "All"
    built["X-Manta-Event"] = message.event.value
    built["X-Manta-Severity"] = "resolved" if message.resolved else message.severity.value
    if message.org:
        built["X-Manta-Organisation"] = shorten(one_line(message.org), MOST_ORG_CHARS)
    if message.severity is Severity.CRITICAL and not message.resolved:
        built["Importance"] = "high"
    built.set_content(text.text)
    built.add_alternative(text.html, subtype="html")
    return built


def mapped(error: Exception, *, where: str) -> MantaError:
    """The error of ours that an error of the mail library is: what may pass is a TransientError."""
    cause = error if isinstance(error, ssl.SSLError) else error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ConfigurationError(
            f"{where}: its certificate is not trusted: {said(cause.verify_message or str(cause))}",
            fix="Name the host as its certificate does, or add its authority to the system's certificates.",
            field="smtp_host",
        )
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        return ConfigurationError(
            f"{where}: no TLS there: {said(str(cause))}",
            fix="Use port 587 for STARTTLS and port 465 for TLS from the first byte.",
            field="smtp_port",
        )
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return _answered(error, where=where)
    passing = (ConnectionError, TimeoutError, OSError)
    if isinstance(error, passing):
        return TransientError(f"{where}: {said(str(error)) or type(error).__name__}")
    return ConfigurationError(
        f"{where}: {said(str(error))}",
        fix="Compare smtp_host, smtp_port and use_tls with what the server offers.",
        field="email_config",
    )


def _answered(error: aiosmtplib.SMTPResponseException, *, where: str) -> MantaError:
    words = f"{where}: {said(f'{error.code} {error.message}')}"
    if not _permanent(error.code, error.message):
        wait = QUOTA_WAIT if _QUOTA.search(error.message) else asked_wait(error.message)
        return TransientError(words, retry_after=wait)
    if isinstance(error, aiosmtplib.SMTPAuthenticationError) or error.code == 530:
        return CredentialError(
            words,
            fix="Check SMTP_USERNAME and SMTP_PASSWORD; Gmail wants an app password, not the account's own.",
            field="SMTP_PASSWORD",
        )
    return ConfigurationError(words, fix="Correct what the mail server names.", field="email_config")


def _permanent(code: int, words: str) -> bool:
    return 500 <= code < 600 and _QUOTA.search(words) is None

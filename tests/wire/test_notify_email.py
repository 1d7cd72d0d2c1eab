"""Mails over a real SMTP server: what arrives, and what every refusal turns into."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from engine.errors import ConfigurationError, CredentialError, TransientError
from engine.notify.email import EmailNotificationProvider, MailRoute
from engine.notify.retry import Patience, Retried, UndeliveredError
from engine.notify.types import EventName, Link, Message, Severity, Table
from sandbox import smtp
from sandbox.smtp import MailServer

NOW = datetime(2026, 11, 24, 6, 30, tzinfo=UTC)
LOGIN = {"robot@example.com": "app password"}
FAILURE = Message(
    id="5f0c" * 8,
    org="acme_corp",
    event=EventName.PIPELINE_FAILURE,
    severity=Severity.ERROR,
    title="openai/cost/usage_cost failed",
    lines=("OpenAI refuses the key.", "Store a valid key."),
    at=NOW,
    fields=(("Run", "run_1"),),
    links=(Link("Open the run", "https://manta.example/runs/run_1"),),
    tables=(Table("Spend", ("provider", "USD"), (("openai", "12.50"), ("anthropic", "3.75"))),),
    suppressed_count=12,
    since=NOW - timedelta(minutes=5),
)


@pytest.fixture(scope="module")
def _servers() -> Iterator[dict[str, MailServer]]:
    with (
        smtp.running() as plain,
        smtp.running(tls="starttls", logins=LOGIN) as starttls,
        smtp.running(tls="implicit", logins=LOGIN) as implicit,
    ):
        yield {"none": plain, "starttls": starttls, "tls": implicit}


@pytest.fixture
def servers(_servers: dict[str, MailServer]) -> dict[str, MailServer]:
    """A server for each kind of security, with empty inboxes; those with TLS want a login."""
    for server in _servers.values():
        server.inbox.clear()
    return _servers


@dataclass
class Sender:
    """Makes providers that only write down what they would wait."""

    servers: dict[str, MailServer]
    waits: list[float] = field(default_factory=list)
    retries: list[Retried] = field(default_factory=list)

    def __call__(
        self, security: Any = "none", *, patience: Patience | None = None, tls: bool = True, **route: Any
    ) -> EmailNotificationProvider:
        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)

        server = self.servers[security]
        login = {} if security == "none" else {"username": "robot@example.com", "password": "app password"}
        given: dict[str, Any] = {
            "host": server.host,
            "port": server.port,
            "sender": "manta@example.com",
            "to": ("ops@example.com",),
            "security": security,
            **login,
            **route,
        }
        return EmailNotificationProvider(
            MailRoute(**given),
            patience=patience or Patience(timeout_s=10),
            now=lambda: NOW,
            rand=random.Random(3).random,
            sleep=sleep,
            tls_context=server.tls if tls else None,
            on_retry=self.retries.append,
        )


@pytest.fixture
def sender(servers: dict[str, MailServer]) -> Sender:
    return Sender(servers)


async def test_a_mail_has_everything_it_should(sender: Sender) -> None:
    provider = sender(cc=("boss@example.com",), subject_prefix="[Costs]", sender_name="Manta, alerts")
    delivery = await provider.send(FAILURE)
    (mail,) = sender.servers["none"].inbox.all()
    assert mail.recipients == ("ops@example.com", "boss@example.com")
    assert mail.subject == "[Costs] Error: openai/cost/usage_cost failed (acme_corp)"
    assert mail.message_id == delivery.provider_message_id == f"<{'5f0c' * 8}@manta>"
    headers = mail.message
    assert (headers["From"].addresses[0].display_name, headers["Cc"]) == ("Manta, alerts", "boss@example.com")
    assert headers["Auto-Submitted"] == "auto-generated"
    assert headers["X-Manta-Event"] == "pipeline_failure"
    assert headers["X-Manta-Organisation"] == "acme_corp"
    assert headers["Date"].datetime == NOW
    for part in (mail.text, mail.html):
        for words in (
            "OpenAI refuses the key.",
            "12 more in the last 5 minutes",
            "12.50",
            "runs/run_1",
            "run_1",
        ):
            assert words in part
    assert (delivery.detail, delivery.refused, delivery.attempts) == ("2.0.0 OK kept", (), 1)


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_tls_and_login(sender: Sender, security: str) -> None:
    await sender(security).send(FAILURE)
    (mail,) = sender.servers[security].inbox.all()
    assert (mail.tls, mail.login) == (True, "robot@example.com")


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_certificate_that_nobody_vouches_for_is_refused(sender: Sender, security: str) -> None:
    with pytest.raises(ConfigurationError, match="certificate is not trusted"):
        await sender(security, tls=False).send(FAILURE)
    assert sender.servers[security].inbox.all() == []


async def test_a_server_without_starttls_gets_no_readable_mail(sender: Sender) -> None:
    port = sender.servers["none"].port
    with pytest.raises(ConfigurationError, match="STARTTLS"):
        await sender("starttls", port=port).send(FAILURE)
    assert sender.servers["none"].inbox.all() == []


async def test_tls_at_a_port_that_begins_readable(sender: Sender) -> None:
    with pytest.raises(ConfigurationError, match="no TLS there") as caught:
        await sender("tls", port=sender.servers["none"].port).send(FAILURE)
    assert "587" in caught.value.fix


async def test_a_wrong_password(sender: Sender) -> None:
    with pytest.raises(CredentialError, match="535") as caught:
        await sender("starttls", password="guessed").send(FAILURE)
    assert "app password" in caught.value.fix
    assert "guessed" not in str(caught.value)
    assert sender.waits == []


async def test_a_login_that_is_refused_for_now_is_tried_again(sender: Sender) -> None:
    # Every method the server offers is tried in one attempt, so the fault has to hit two.
    sender.servers["starttls"].inbox.faults.put("auth_later", count=2)
    assert (await sender("starttls").send(FAILURE)).attempts == 2


async def test_no_password_where_one_is_asked(sender: Sender) -> None:
    with pytest.raises(CredentialError, match="530"):
        await sender("starttls", username=None, password=None).send(FAILURE)


async def test_a_login_where_none_is_asked(sender: Sender) -> None:
    with pytest.raises(ConfigurationError, match="AUTH"):
        await sender("none", username="a", password="b").send(FAILURE)


@pytest.mark.parametrize("fault", ["greylist", "busy"])
async def test_a_refusal_for_now_is_waited_out(sender: Sender, fault: str) -> None:
    inbox = sender.servers["none"].inbox
    inbox.faults.put(fault, count=2)
    delivery = await sender().send(FAILURE)
    assert delivery.attempts == 3
    assert len(inbox.all()) == 1
    assert [retried.attempt for retried in sender.retries] == [1, 2]
    assert sender.waits == [retried.wait_s for retried in sender.retries]
    assert 0 <= sender.waits[0] <= 1
    assert 0 <= sender.waits[1] <= 2


async def test_what_does_not_pass_is_handed_back(sender: Sender) -> None:
    inbox = sender.servers["none"].inbox
    inbox.faults.put("greylist", count=None)
    with pytest.raises(UndeliveredError, match=r"Greylisted.*\(3 attempts\)") as caught:
        await sender().send(FAILURE)
    assert caught.value.attempts == 3
    assert isinstance(caught.value, TransientError)
    assert (inbox.all(), len(sender.waits)) == ([], 2)


@pytest.mark.parametrize("fault", ["refuse", "refuse_sender", "reject"])
async def test_a_refusal_for_good_is_not_tried_again(sender: Sender, fault: str) -> None:
    inbox = sender.servers["none"].inbox
    due = inbox.faults.put(fault, count=None)
    with pytest.raises(ConfigurationError, match=r"5\.[17]\.1"):
        await sender().send(FAILURE)
    assert (due.hits, sender.waits, inbox.all()) == (1, [], [])


async def test_a_day_s_mails_used_up_is_no_refusal_for_good(sender: Sender) -> None:
    sender.servers["none"].inbox.faults.put("quota", count=None)
    with pytest.raises(UndeliveredError, match="sending limit") as caught:
        await sender().send(FAILURE)
    assert caught.value.retry_after == timedelta(hours=1)
    assert caught.value.attempts == 1


async def test_one_refused_recipient_does_not_stop_the_others(sender: Sender) -> None:
    inbox = sender.servers["none"].inbox
    inbox.faults.put("refuse", to="gone@")
    delivery = await sender(to=("gone@example.com", "ops@example.com")).send(FAILURE)
    assert inbox.all()[0].recipients == ("ops@example.com",)
    (refused,) = delivery.refused
    assert refused[0] == "gone@example.com"
    assert "does not exist" in refused[1]


async def test_only_those_who_wait_get_the_second_attempt(sender: Sender) -> None:
    inbox = sender.servers["none"].inbox
    inbox.faults.put("greylist", to="slow@")
    delivery = await sender(to=("ops@example.com", "slow@example.com")).send(FAILURE)
    assert [mail.recipients for mail in inbox.all()] == [("ops@example.com",), ("slow@example.com",)]
    assert len({mail.message_id for mail in inbox.all()}) == 1
    assert (delivery.attempts, delivery.refused) == (2, ())


async def test_those_who_never_got_it_are_named_and_nobody_gets_it_twice(sender: Sender) -> None:
    inbox = sender.servers["none"].inbox
    inbox.faults.put("greylist", to="slow@", count=None)
    delivery = await sender(to=("ops@example.com", "slow@example.com")).send(FAILURE)
    assert [mail.recipients for mail in inbox.all()] == [("ops@example.com",)]
    assert [address for address, _ in delivery.refused] == ["slow@example.com"]


async def test_everybody_refused(sender: Sender) -> None:
    sender.servers["none"].inbox.faults.put("refuse", count=None)
    with pytest.raises(ConfigurationError, match=r"every recipient was refused: a@b\.c.*d@e\.f") as caught:
        await sender(to=("a@b.c", "d@e.f")).send(FAILURE)
    assert caught.value.field == "to"


@pytest.mark.parametrize(
    ("fault", "patience"), [("drop", Patience(timeout_s=10)), ("slow", Patience(timeout_s=0.3))]
)
async def test_a_mail_taken_without_a_word_comes_again_under_the_same_id(
    sender: Sender, fault: str, patience: Patience
) -> None:
    inbox = sender.servers["none"].inbox
    inbox.faults.put(fault, seconds=5)
    delivery = await sender(patience=patience).send(FAILURE)
    first, second = inbox.all()
    assert first.message_id == second.message_id == delivery.provider_message_id
    assert first.raw.splitlines()[:6] == second.raw.splitlines()[:6]
    assert delivery.attempts == 2


async def test_nobody_listens(sender: Sender) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    with pytest.raises(UndeliveredError, match=f"127.0.0.1:{port}"):
        await sender(port=port).send(FAILURE)
    assert len(sender.waits) == 2


async def test_a_server_that_says_nothing(sender: Sender) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        provider = sender(port=held.getsockname()[1], patience=Patience(max_attempts=2, timeout_s=0.1))
        with pytest.raises(UndeliveredError, match=r"No answer within 0\.1 s\. \(2 attempts\)"):
            await provider.send(FAILURE)


@pytest.mark.parametrize(
    ("route", "field"),
    [
        ({"to": ()}, "to"),
        ({"to": ("ops@example.com\r\nBcc: x@evil.example",)}, "to"),
        ({"to": ("Ops <ops@example.com>",)}, "to"),
        ({"cc": ("nobody",)}, "cc"),
        ({"sender": "a@b@c"}, "from_email"),
        ({"username": "a", "password": "b", "host": "mail.example.com"}, "use_tls"),
    ],
)
def test_a_route_that_cannot_work_is_refused_at_once(
    sender: Sender, route: dict[str, Any], field: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sender(**route)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "change",
    [
        {"title": "failed\r\nBcc: x@evil.example\r\n\r\n<script>alert(1)</script>"},
        {"org": "acme\nX-Evil: 1"},
        {"id": "a>\r\nX-Evil: 1"},
    ],
)
async def test_nothing_from_outside_becomes_a_header(sender: Sender, change: dict[str, Any]) -> None:
    await sender(sender_name="Manta\r\nX-Evil: 1").send(replace(FAILURE, **change))
    (mail,) = sender.servers["none"].inbox.all()
    assert mail.recipients == ("ops@example.com",)
    assert {"Bcc", "X-Evil"} & set(mail.message.keys()) == set()
    assert "<script" not in mail.html


async def test_letters_of_the_world_survive(sender: Sender) -> None:
    title, line = "Kosten über Budget: 経費 💸", "é" * 1200
    await sender(sender_name="Mänta").send(replace(FAILURE, title=title, lines=(line,)))
    (mail,) = sender.servers["none"].inbox.all()
    assert mail.subject == f"[Manta] Error: {title} (acme_corp)"
    assert line in mail.text
    assert line in mail.html
    assert max(map(len, mail.raw.split(b"\r\n"))) <= 998


async def test_a_key_in_an_error_does_not_leave(sender: Sender) -> None:
    key = "sk-admin-abcdefghijklmnop"
    message = replace(FAILURE, title=f"key {key}", lines=(f"Bearer {key}",), fields=(("Error", key),))
    await sender().send(message)
    (mail,) = sender.servers["none"].inbox.all()
    assert key not in mail.text + mail.html + mail.subject


async def test_importance_of_bad_news_only(sender: Sender) -> None:
    inbox = sender.servers["none"].inbox
    await sender().send(replace(FAILURE, severity=Severity.CRITICAL))
    await sender().send(replace(FAILURE, severity=Severity.CRITICAL, resolved=True))
    assert [mail.message["Importance"] for mail in inbox.all()] == ["high", None]
    assert inbox.all()[1].subject.startswith("[Manta] Resolved: ")


def test_the_password_is_not_shown(sender: Sender) -> None:
    route = MailRoute("h", 587, "a@b.c", ("a@b.c",), username="u", password="geheim")
    assert "geheim" not in repr(route)


async def test_the_inbox_is_read_over_http(sender: Sender, get: Callable[..., Any]) -> None:
    await sender().send(FAILURE)
    inbox = sender.servers["none"].inbox
    (listed,) = (await get(smtp.routes(inbox), "/_inbox/mails?to=ops"))["mails"]
    assert listed["subject"].endswith("(acme_corp)")
    number = listed["number"]
    assert "OpenAI refuses" in await get(smtp.routes(inbox), f"/_inbox/mails/{number}")
    assert "<h1" in await get(smtp.routes(inbox), f"/_inbox/mails/{number}/html")
    assert f"/_inbox/mails/{number}/html" in await get(smtp.routes(inbox), "/_inbox")


@pytest.fixture
def get() -> Callable[..., Any]:
    """Asks an application of these routes, without a socket."""

    async def ask(routes: Any, path: str) -> Any:
        transport = httpx.ASGITransport(app=Starlette(routes=routes))
        async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
            response = await client.get(path)
        assert response.status_code == 200
        return response.json() if "json" in response.headers["content-type"] else response.text

    return ask

"""Mails as people read them, whatever a title or an error holds."""

from __future__ import annotations

import email
import json
import re
from dataclasses import replace
from datetime import timedelta
from email.message import EmailMessage
from email.policy import default as modern
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings

from engine.errors import ConfigurationError
from engine.notify.config import EmailConfig
from engine.notify.email import MailRoute, build, check_route, mail_route
from engine.notify.render import MOST_ROWS, breakable, clean, duration, grid, mail, more, right, subject
from engine.notify.types import EventName, Link, Message, Severity, Table
from tests.unit.engine.notify.messages import FAILURE, MESSAGES, NOW, SPEND

ROUTE = MailRoute("mail.example.com", 587, "manta@example.com", ("ops@example.com",))


class Tags(HTMLParser):
    """Which tags, attributes and addresses a page has."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]


def tags(html: str) -> Tags:
    found = Tags()
    found.feed(html)
    return found


PLAIN_TAGS = {
    "html",
    "head",
    "meta",
    "title",
    "body",
    "div",
    "table",
    "tr",
    "td",
    "th",
    "strong",
    "span",
    "h1",
}


@given(MESSAGES)
@settings(max_examples=30, deadline=None)
def test_any_message_is_a_mail_that_does_nothing_but_say_it(message: Message) -> None:
    raw = build(ROUTE, message, now=NOW).as_bytes()
    parsed = email.message_from_bytes(raw, policy=modern)
    assert isinstance(parsed, EmailMessage)
    assert (parsed["To"], parsed["Bcc"]) == ("ops@example.com", None)
    assert parsed["Message-ID"] == f"<{message.id}@manta>"
    # The library folds long words with spaces of its own.
    assert parsed["Subject"].split() == subject(message, prefix="[Manta]").split()
    html, text = (parsed.get_body((kind,)).get_content() for kind in ("html", "plain"))  # type: ignore[union-attr]
    found = tags(html)
    assert found.tags <= PLAIN_TAGS | {"p", "h2", "a", "br", "wbr"}
    assert not {name for name in found.attributes if name.startswith("on")}
    assert all(link.startswith("https://a.example/") for link in found.links)
    assert message.id in text
    assert message.id in html


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "[Manta] Error: Pipeline openai/cost/usage_cost failed (acme_corp)"),
        ({"org": None}, "[Manta] Error: Pipeline openai/cost/usage_cost failed"),
        ({"resolved": True, "title": "Resolved: usage late"}, "[Manta] Resolved: usage late (acme_corp)"),
        ({"title": "", "severity": Severity.CRITICAL}, "[Manta] Critical: pipeline_failure (acme_corp)"),
        ({"event": EventName.SUMMARY_SCHEDULED, "title": "Week 47"}, "[Manta] Summary: Week 47 (acme_corp)"),
        ({"title": "a\r\n\tb\u2028c"}, "[Manta] Error: a b c (acme_corp)"),
    ],
)
def test_subjects(change: dict[str, Any], expected: str) -> None:
    assert subject(replace(FAILURE, **change), prefix="[Manta]") == expected


def test_a_long_subject_keeps_whose_it_is() -> None:
    long = subject(replace(FAILURE, title="x" * 5000))
    assert len(long) == 200
    assert long.endswith("… (acme_corp)")


def test_the_text_part() -> None:
    text = mail(replace(FAILURE, tables=(SPEND,))).text
    assert text.startswith("Error: Pipeline openai/cost/usage_cost failed\n====")
    assert "OpenAI refuses the key.\nStore a valid one.\n" in text
    assert "\n12 more in the last 5 minutes.\n" in text
    assert "\nRun: run_1\nDays: 2026-11-23\n" in text
    assert "\nopenai    9,412.08  +17.4 %\n" in text
    assert "\nOpen the run: https://manta.example/runs/run_1?a=1&b=2\n" in text
    assert "&amp;" not in text
    assert "\n\n\n" not in text


def test_the_html_part() -> None:
    html = mail(replace(FAILURE, tables=(SPEND,))).html
    assert "#c62828" in html
    assert tags(html).links == ["https://manta.example/runs/run_1?a=1&b=2"]
    assert re.search(r'align="right"[^>]*>9,412.08</td>', html)


def test_links_that_are_no_web_address_are_left_out() -> None:
    urls = (
        "javascript:alert(1)",
        "data:text/html,x",
        "//evil",
        "https://ok.example/",
        "https://a b",
        "http://[",
    )
    shown = clean(replace(FAILURE, links=tuple(Link("x", url) for url in urls)))
    assert [link.url for link in shown.links] == ["https://ok.example/"]


def test_more_rows_than_a_mail_shows_are_counted() -> None:
    table = Table("t", ("n",), tuple((str(n),) for n in range(MOST_ROWS + 3)))
    shown = mail(replace(FAILURE, tables=(table,)))
    assert "and 3 more" in shown.text
    assert "and 3 more" in shown.html
    assert grid(table)[-1] == "and 3 more"


def test_columns_of_numbers_are_flush_right() -> None:
    assert right(SPEND) == (False, True, True)
    assert right(Table("t", ("a", "b"), (("12 USD", "2026-11-23"),))) == (True, False)
    assert right(Table("t", ("a",), ())) == (False,)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (61, "2 minutes"),
        (300, "5 minutes"),
        (5400, "90 minutes"),
        (5401, "2 hours"),
        (3 * 86400, "3 days"),
    ],
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration(timedelta(seconds=seconds)) == expected


def test_what_was_held_back() -> None:
    assert more(FAILURE) == "12 more in the last 5 minutes"
    assert more(replace(FAILURE, suppressed_count=1200, since=None)) == "1,200 more"
    assert more(replace(FAILURE, suppressed_count=0)) == ""


def test_breaks_are_offered_and_nothing_is_lost() -> None:
    text = "openai/cost/usage_cost <b> 71 %"
    assert breakable(text).striptags() == text
    assert "/<wbr>cost" in breakable(text)
    assert "<b>" not in breakable(text)


#: Word for word what the original's readme has.
README = json.loads('{"smtp_host": "smtp.gmail.com", "smtp_port": 587, "use_tls": true}')
GMAIL = {"SMTP_USERNAME": "robot@gmail.com", "SMTP_PASSWORD": "app password"}


def test_the_readme_s_configuration_is_enough_for_a_route() -> None:
    route = mail_route(EmailConfig.model_validate(README), secret=GMAIL.get, admin="admin@example.com")
    assert (route.host, route.port, route.security) == ("smtp.gmail.com", 587, "starttls")
    assert (route.sender, route.to) == ("robot@gmail.com", ("admin@example.com",))
    assert (route.username, route.password) == ("robot@gmail.com", "app password")
    check_route(route)


def test_port_465_is_tls_from_the_first_byte() -> None:
    config = EmailConfig.model_validate({**README, "smtp_port": 465, "from_email": "a@b.c", "to": ["d@e.f"]})
    route = mail_route(config, secret={}.get)
    assert (route.security, route.sender, route.to, route.username) == ("tls", "a@b.c", ("d@e.f",), None)
    assert mail_route(config.model_copy(update={"use_tls": False}), secret={}.get).security == "none"


@pytest.mark.parametrize(
    ("config", "secrets", "field"),
    [
        ({}, GMAIL, "smtp_host"),
        (README, {}, "from_email"),
        (README, {"SMTP_USERNAME": "robot@gmail.com"}, "SMTP_PASSWORD"),
        (README, {"SMTP_PASSWORD": "x"}, "SMTP_USERNAME"),
        (README, {"SMTP_USERNAME": "apikey", "SMTP_PASSWORD": "x"}, "from_email"),
    ],
)
def test_what_a_mail_route_lacks_is_named(config: Any, secrets: dict[str, str], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        mail_route(EmailConfig.model_validate(config), secret=secrets.get)
    assert caught.value.field == field

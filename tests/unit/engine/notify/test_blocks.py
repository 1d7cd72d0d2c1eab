"""Slack messages: within Slack's limits, calling nobody that is not meant, cut where it is said."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from engine.notify.blocks import CUT, MOST_CHARS, escape, mention, payload
from engine.notify.config import SlackConfig
from engine.notify.slack import SlackRoute, bound_elsewhere, slack_route
from engine.notify.types import EventName, Link, Message, Severity, Table
from sandbox import slack_webhook
from tests.unit.engine.notify.messages import FAILURE, MESSAGES, SPEND

LINK = re.compile(r"<https://a\.example/x%7Cy%3E\?q=1&amp;r=2\|[^<>|]*>")


def blocks(message: Message) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = payload(message)["attachments"][0]["blocks"]
    return found


def texts(message: Message) -> list[str]:
    parts = [[b.get("text"), *b.get("fields", []), *b.get("elements", [])] for b in blocks(message)]
    return [part["text"] for block in parts for part in block if part]


@given(MESSAGES)
@settings(max_examples=30, deadline=None)
def test_any_message_keeps_to_slack_s_limits_and_calls_nobody(message: Message) -> None:
    body = msgspec.json.encode(payload(message))
    code, parsed = slack_webhook._checked(body)
    assert code == ""
    found = texts(message)
    assert sum(map(len, found)) <= MOST_CHARS + len(CUT)
    assert len(parsed["text"]) < 1000
    for text in (parsed["text"], *found):
        assert "<" not in LINK.sub("", text)
    assert f"id {message.id}" in found[-1]
    assert parsed["metadata"]["event_payload"]["id"] == message.id


@pytest.mark.parametrize(
    ("change", "start", "colour"),
    [
        ({"severity": Severity.INFO}, ":large_blue_circle: *Info: ", "#0b62c4"),
        ({"severity": Severity.WARNING}, ":large_yellow_circle: *Warning: ", "#9a6700"),
        ({}, ":red_circle: *Error: ", "#c62828"),
        ({"severity": Severity.CRITICAL}, ":rotating_light: *Critical: ", "#7b1fa2"),
        ({"resolved": True}, ":white_check_mark: *Resolved: ", "#1a7f37"),
        ({"event": EventName.SUMMARY_SCHEDULED}, ":red_circle: *Summary: ", "#c62828"),
    ],
)
def test_each_severity_has_its_look(change: dict[str, Any], start: str, colour: str) -> None:
    body = payload(replace(FAILURE, **change))
    assert body["text"].startswith(start)
    assert body["attachments"][0]["color"] == colour


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("U012AB3CD", "<@U012AB3CD>"),
        ("<@W012AB3CD>", "<@W012AB3CD>"),
        ("S0614TZR7", "<!subteam^S0614TZR7>"),
        ("here", "<!here>"),
        ("@channel", "<!channel>"),
    ],
)
def test_mentions(given: str, expected: str) -> None:
    assert mention(given) == expected


@pytest.mark.parametrize("given", ["peter", "@peter", "U1> <!channel", "", "u012ab3cd"])
def test_no_mentions(given: str) -> None:
    with pytest.raises(ValueError, match="no Slack user id"):
        mention(given)


def test_text_that_is_too_long_is_cut_and_says_so() -> None:
    section = texts(replace(FAILURE, lines=("x" * 9000,)))[0]
    assert len(section) <= 3000
    assert section.endswith(f"…\n{CUT}")


def test_text_that_ends_with_an_ellipsis_is_not_said_to_be_cut() -> None:
    assert texts(replace(FAILURE, lines=("and so on…",)))[0] == "and so on…"


def test_what_does_not_fit_at_all_is_left_out_and_says_so() -> None:
    fields = tuple((str(n), "x" * 1900) for n in range(20))
    found = texts(replace(FAILURE, fields=fields))
    assert CUT in found
    assert "Open the run" in found[-2]


def test_a_table_has_a_fixed_width_and_as_many_rows_as_fit() -> None:
    assert "openai    9,412.08  +17.4 %" in texts(replace(FAILURE, tables=(SPEND,)))[-3]
    long = Table("t", ("a", "b"), tuple(("<" * 28, str(n)) for n in range(400)))
    shown = texts(replace(FAILURE, tables=(long,)))[-3]
    assert len(shown) <= 3000
    assert re.search(r"and 3\d\d more\n```$", shown)


def test_an_escape_is_never_split() -> None:
    for limit in range(1, 30):
        cut = escape("a&b<c>d" * 4, limit)
        assert len(cut) <= limit
        assert re.fullmatch(r"([abcd]|&amp;|&lt;|&gt;)*…", cut)
    assert escape("a&b", 7) == "a&amp;b"


def test_a_link_with_a_label_that_breaks_out() -> None:
    message = replace(FAILURE, links=(Link("a|b>c", "https://x.example/?q=<a>&b=1|2"),))
    assert "<https://x.example/?q=%3Ca%3E&amp;b=1%7C2|a/b&gt;c>" in texts(message)


def test_the_readme_s_configuration_is_enough_for_a_route() -> None:
    config = SlackConfig.model_validate({"default_channel": "#alerts"})
    webhook = {"SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/x"}
    route = slack_route(config, secret=webhook.get)
    assert (route.by_bot, route.webhook_url) == (False, "https://hooks.slack.com/services/x")
    assert "#alerts has no effect" in bound_elsewhere(route)
    token = {"SLACK_BOT_TOKEN": "xoxb-1"}
    route = slack_route(config, secret={**webhook, **token}.get)
    assert (route.by_bot, bound_elsewhere(route)) == (True, "")
    assert bound_elsewhere(SlackRoute(channel="#alerts")) == ""

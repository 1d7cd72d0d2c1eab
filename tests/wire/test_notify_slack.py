"""Messages over a real webhook server: what is posted, and what every refusal turns into."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

from engine.errors import ConfigurationError, CredentialError
from engine.http import open_client
from engine.notify.retry import Patience, Retried, UndeliveredError
from engine.notify.slack import SlackNotificationProvider, SlackRoute
from engine.notify.types import EventName, Link, Message, Severity
from sandbox import slack_webhook
from sandbox.slack_webhook import TOKEN, Slack
from tests.wire.scripted import Asked, Said, serving

NOW = datetime(2026, 11, 24, 6, 30, tzinfo=UTC)
FAILURE = Message(
    id="5f0c" * 8,
    org="acme_corp",
    event=EventName.PIPELINE_FAILURE,
    severity=Severity.ERROR,
    title="openai/cost/usage_cost failed",
    lines=("OpenAI refuses the key.",),
    at=NOW,
    fields=(("Run", "run_1"),),
    links=(Link("Open the run", "https://manta.example/runs/run_1"),),
    suppressed_count=12,
    since=NOW - timedelta(minutes=5),
)


@pytest.fixture(scope="module")
def _slack() -> Iterator[Slack]:
    with slack_webhook.running() as slack:
        yield slack


@pytest.fixture
def slack(_slack: Slack) -> Slack:
    """Slack's stand-in, empty."""
    _slack.workspace.clear()
    return _slack


@dataclass
class Poster:
    """Makes providers that only write down what they would wait."""

    slack: Slack
    client: httpx.AsyncClient
    waits: list[float] = field(default_factory=list)
    retries: list[Retried] = field(default_factory=list)

    def __call__(
        self, route: SlackRoute | None = None, *, patience: Patience | None = None
    ) -> SlackNotificationProvider:
        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)

        return SlackNotificationProvider(
            route or SlackRoute(webhook_url=self.slack.webhook_url),
            client=self.client,
            patience=patience or Patience(timeout_s=10),
            now=lambda: NOW,
            rand=random.Random(3).random,
            sleep=sleep,
            webhook_bases=("http://127.0.0.1:",),
            api_base=self.slack.api_url,
            on_retry=self.retries.append,
        )

    def bot(self, channel: str = "#alerts", token: str = TOKEN, **more: Any) -> SlackNotificationProvider:
        """A provider with a bot token."""
        return self(SlackRoute(bot_token=token, channel=channel), **more)


@pytest_asyncio.fixture
async def poster(slack: Slack) -> AsyncIterator[Poster]:
    async with open_client() as client:
        yield Poster(slack, client)


async def test_a_webhook_post_has_everything_it_should(poster: Poster) -> None:
    route = SlackRoute(webhook_url=poster.slack.webhook_url, mentions=("U012AB3CD", "here"))
    delivery = await poster(route).send(FAILURE)
    (post,) = poster.slack.workspace.all()
    assert post.payload["text"] == (
        ":red_circle: *Error: openai/cost/usage_cost failed (acme_corp)* <@U012AB3CD> <!here>"
    )
    assert post.payload["attachments"][0]["color"] == "#c62828"
    for words in (
        "OpenAI refuses the key.",
        "*Run*\nrun_1",
        "12 more in the last 5 minutes",
        "2026-11-24 06:30:00",
    ):
        assert words in post.text
    assert "<https://manta.example/runs/run_1|Open the run>" in post.text
    assert post.stable_id == delivery.provider_message_id == FAILURE.id
    assert f"id {FAILURE.id}" in post.text
    assert (post.via, delivery.attempts, poster.waits) == ("webhook", 1, [])


async def test_a_bot_posts_to_the_channel_it_is_told(poster: Poster) -> None:
    delivery = await poster.bot("#costs").send(FAILURE)
    (post,) = poster.slack.workspace.all()
    assert (post.via, post.channel) == ("bot", "C0COSTS")
    assert delivery.provider_message_id.startswith("C0COSTS:")


async def test_a_bot_without_a_channel_leaves_it_to_the_webhook(poster: Poster) -> None:
    route = SlackRoute(webhook_url=poster.slack.webhook_url, bot_token=TOKEN)
    await poster(route).send(FAILURE)
    assert [post.via for post in poster.slack.workspace.all()] == ["webhook"]


async def test_good_news_is_green_and_calls_nobody(poster: Poster) -> None:
    route = SlackRoute(webhook_url=poster.slack.webhook_url, mentions=("channel",))
    await poster(route).send(replace(FAILURE, resolved=True))
    (post,) = poster.slack.workspace.all()
    assert post.payload["text"].startswith(":white_check_mark: *Resolved: ")
    assert "<!" not in post.text
    assert post.payload["attachments"][0]["color"] == "#1a7f37"


async def test_retry_after_is_kept_in_full(poster: Poster) -> None:
    poster.slack.workspace.faults.put("rate_limited", seconds=7)
    delivery = await poster().send(FAILURE)
    (wait_s,) = poster.waits
    assert 7 <= wait_s < 8
    assert delivery.attempts == 2


async def test_a_retry_after_beyond_patience_is_handed_back(poster: Poster) -> None:
    due = poster.slack.workspace.faults.put("rate_limited", seconds=120, count=None)
    with pytest.raises(UndeliveredError, match="429") as caught:
        await poster.bot().send(FAILURE)
    assert caught.value.retry_after == timedelta(seconds=120)
    assert (due.hits, poster.waits) == (1, [])


@pytest.mark.parametrize("fault", ["rate_limited_bare", "server_error"])
async def test_what_passes_is_tried_again(poster: Poster, fault: str) -> None:
    poster.slack.workspace.faults.put(fault, count=2)
    assert (await poster().send(FAILURE)).attempts == 3
    assert [retried.attempt for retried in poster.retries] == [1, 2]


async def test_what_does_not_pass_is_handed_back(poster: Poster) -> None:
    poster.slack.workspace.faults.put("server_error", count=None)
    with pytest.raises(UndeliveredError, match=r"HTTP 500 rollup_error \(3 attempts\)"):
        await poster().send(FAILURE)
    assert poster.slack.workspace.all() == []


@pytest.mark.parametrize(
    ("fault", "patience"), [("lost", Patience(timeout_s=10)), ("slow", Patience(timeout_s=0.3))]
)
async def test_a_post_taken_without_a_sign_comes_again_under_the_same_id(
    poster: Poster, fault: str, patience: Patience
) -> None:
    poster.slack.workspace.faults.put(fault, seconds=0.6)
    await poster(patience=patience).send(FAILURE)
    assert [post.stable_id for post in poster.slack.workspace.all()] == [FAILURE.id] * 2
    assert poster.retries[0].attempt == 1


@pytest.mark.parametrize(
    ("fault", "kind", "fix"),
    [
        ("no_service", CredentialError, "incoming webhook"),
        ("channel_not_found", ConfigurationError, "default_channel"),
        ("channel_is_archived", ConfigurationError, "Unarchive"),
        ("action_prohibited", ConfigurationError, "administrator"),
        ("redirect", ConfigurationError, ""),
    ],
)
async def test_a_refusal_for_good_is_not_tried_again(
    poster: Poster, fault: str, kind: type[Exception], fix: str
) -> None:
    due = poster.slack.workspace.faults.put(fault, count=None)
    with pytest.raises(kind) as caught:
        await poster().send(FAILURE)
    assert fix in str(caught.value)
    assert (due.hits, poster.waits) == (1, [])
    assert "services/" not in str(caught.value)


@pytest.mark.parametrize(
    ("channel", "token", "kind", "fix"),
    [
        ("#nowhere", TOKEN, ConfigurationError, "default_channel"),
        ("#elsewhere", TOKEN, ConfigurationError, "/invite"),
        ("#alerts", "xoxb-revoked", CredentialError, "SLACK_BOT_TOKEN"),
    ],
)
async def test_a_bot_is_refused(
    poster: Poster, channel: str, token: str, kind: type[Exception], fix: str
) -> None:
    with pytest.raises(kind) as caught:
        await poster.bot(channel, token).send(FAILURE)
    assert fix in str(caught.value)
    assert token not in str(caught.value)


@pytest.mark.parametrize("by_bot", [False, True])
async def test_a_form_that_slack_dislikes_is_sent_in_plain_words(poster: Poster, by_bot: bool) -> None:
    poster.slack.workspace.faults.put("invalid_blocks")
    delivery = await (poster.bot() if by_bot else poster()).send(FAILURE)
    (post,) = poster.slack.workspace.all()
    assert "attachments" not in post.payload
    assert "OpenAI refuses the key." in post.text
    assert FAILURE.id in post.text
    assert "invalid_blocks" in delivery.detail


async def test_a_message_that_slack_takes_in_no_form(poster: Poster) -> None:
    poster.slack.workspace.faults.put("invalid_payload", count=None)
    with pytest.raises(ConfigurationError, match="invalid_payload"):
        await poster().send(FAILURE)
    assert poster.waits == []


async def test_nobody_listens(poster: Poster) -> None:
    with serving(lambda asked: Said({})) as gone:
        url = gone.url
    with pytest.raises(UndeliveredError, match="ConnectError") as caught:
        await poster(SlackRoute(webhook_url=f"{url}/services/secret")).send(FAILURE)
    assert "secret" not in str(caught.value)


async def test_passing_codes_under_status_200(poster: Poster) -> None:
    answers = iter([{"ok": False, "error": "internal_error"}, {"ok": True, "channel": "C1", "ts": "1.2"}])

    def answer(asked: Asked) -> Said:
        return Said(next(answers))

    with serving(answer) as server:
        provider = SlackNotificationProvider(
            SlackRoute(bot_token="xoxb-1", channel="C1"),
            client=poster.client,
            patience=Patience(initial_delay_s=0),
            now=lambda: NOW,
            rand=lambda: 0.0,
            sleep=_no_sleep,
            api_base=f"{server.url}/api",
        )
        delivery = await provider.send(FAILURE)
    assert (delivery.provider_message_id, delivery.attempts) == ("C1:1.2", 2)
    assert server.asked[0].headers["authorization"] == "Bearer xoxb-1"
    assert server.asked[0].path == "/api/chat.postMessage"


async def _no_sleep(_: float) -> None:
    return None


@pytest.mark.parametrize(
    ("route", "field"),
    [
        (SlackRoute(), "slack_config"),
        (SlackRoute(bot_token="xoxb-1"), "slack_config"),
        (SlackRoute(webhook_url="https://hooks.slack.com.evil.example/x"), "SLACK_WEBHOOK_URL"),
        (SlackRoute(webhook_url="http://hooks.slack.com/services/x"), "SLACK_WEBHOOK_URL"),
        (SlackRoute(webhook_url="http://169.254.169.254/"), "SLACK_WEBHOOK_URL"),
        (SlackRoute(webhook_url="https://hooks.slack.com/x", mentions=("@peter",)), "mentions"),
    ],
)
async def test_a_route_that_cannot_work_is_refused_at_once(
    poster: Poster, route: SlackRoute, field: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SlackNotificationProvider(
            route,
            client=poster.client,
            patience=Patience(),
            now=lambda: NOW,
            rand=lambda: 0.0,
            sleep=_no_sleep,
        )
    assert caught.value.field == field


@pytest.mark.parametrize("attack", ["<!channel> <@U1>", "<https://evil.example|Open the run>", "a & b < c"])
async def test_nothing_from_outside_calls_or_links(poster: Poster, attack: str) -> None:
    message = replace(
        FAILURE, title=attack, org=attack, lines=(attack,), fields=((attack, attack),), links=()
    )
    await poster().send(message)
    (post,) = poster.slack.workspace.all()
    assert "<" not in post.text


def test_secrets_are_not_shown() -> None:
    shown = repr(SlackRoute(webhook_url="https://hooks.slack.com/geheim", bot_token="xoxb-geheim"))
    assert "geheim" not in shown


async def test_the_workspace_is_read_over_http(poster: Poster) -> None:
    await poster().send(FAILURE)
    url = poster.slack.url
    (listed,) = (await poster.client.get(f"{url}/_slack/posts")).json()["posts"]
    assert listed["id"] == FAILURE.id
    payload = (await poster.client.get(f"{url}/_slack/posts/{listed['number']}")).json()
    assert payload["metadata"]["event_payload"]["id"] == FAILURE.id
    put: Callable[..., Any] = poster.client.post
    assert (await put(f"{url}/_slack/faults", json={"name": "nonsense"})).status_code == 400
    assert (await put(f"{url}/_slack/faults", json={"name": "server_error"})).status_code == 200

"""Slack: an incoming webhook, bound to its channel, or a bot token, which may post to any it is in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
import msgspec

from engine.errors import ConfigurationError, CredentialError, MantaError, TransientError
from engine.limits import asked_wait_s
from engine.notify.blocks import escape, mention, payload
from engine.notify.channels import Delivery, Secrets, said
from engine.notify.config import SlackConfig
from engine.notify.render import clean
from engine.notify.retry import Patience, Retried, persist
from engine.notify.types import Message, Severity

#: Slack's own, and that of its cloud for governments.
WEBHOOK_BASES = ("https://hooks.slack.com/", "https://hooks.slack-gov.com/")
API_BASE = "https://slack.com/api"
MOST_PLAIN_CHARS = 3500
#: Passing by Slack's description, whatever the HTTP status.
_PASSING = frozenset(
    {
        "ratelimited",
        "rate_limited",
        "message_limit_exceeded",
        "internal_error",
        "fatal_error",
        "rollup_error",
        "request_timeout",
        "service_unavailable",
        "team_added_to_org",
    }
)
#: Slack does not like the form of the message: an alert in plain words is better than none.
_FORM = frozenset(
    {
        "invalid_payload",
        "invalid_blocks",
        "invalid_blocks_format",
        "invalid_attachments",
        "msg_blocks_too_long",
        "msg_too_long",
        "too_many_attachments",
        "invalid_metadata_format",
        "invalid_metadata_schema",
        "metadata_too_large",
        "metadata_must_be_sent_from_app",
    }
)
_TOKEN = "Create a new bot token in Slack and set SLACK_BOT_TOKEN."  # noqa: S105
_WEBHOOK = "Create a new incoming webhook in Slack and set SLACK_WEBHOOK_URL."
_FIXES: Mapping[str, str] = {
    "no_service": _WEBHOOK,
    "no_service_id": _WEBHOOK,
    "no_team": _WEBHOOK,
    "team_disabled": _WEBHOOK,
    "invalid_token": _WEBHOOK,
    "no_active_hooks": _WEBHOOK,
    "channel_not_found": "Correct default_channel; name a private channel by its id and invite the bot.",
    "channel_is_archived": "Unarchive the channel or choose another one.",
    "is_archived": "Unarchive the channel or choose another one.",
    "not_in_channel": "Invite the bot to the channel: /invite @name.",
    "action_prohibited": "Ask a workspace administrator to let the app post there.",
    "posting_to_general_channel_denied": "Choose a channel in which everybody may post.",
    "restricted_action": "Ask a workspace administrator to let the app post there.",
    "user_not_found": "Correct mentions: a person is named by the member id (U...).",
    "missing_scope": "Give the app the scope chat:write and install it again.",
    "invalid_auth": _TOKEN,
    "not_authed": _TOKEN,
    "account_inactive": _TOKEN,
    "token_revoked": _TOKEN,
    "token_expired": _TOKEN,
}
_CREDENTIAL = frozenset(code for code, fix in _FIXES.items() if fix in (_TOKEN, _WEBHOOK))


@dataclass(frozen=True, slots=True)
class SlackRoute:
    """Where messages go: a bot token with a channel, else a webhook; `mentions` are for bad news."""

    webhook_url: str | None = field(default=None, repr=False)
    bot_token: str | None = field(default=None, repr=False)
    channel: str | None = None
    mentions: tuple[str, ...] = ()
    mention_severity: Severity = Severity.ERROR

    @property
    def by_bot(self) -> bool:
        """True when `chat.postMessage` is used, and so the channel is ours to choose."""
        return bool(self.bot_token and self.channel)


class SlackNotificationProvider:
    """Posts messages to Slack; see `engine.notify.channels.Channel`.

    `client` follows no redirects (`engine.http.open_client`). Refuses at once, with ConfigurationError, a
    route without a way to Slack, a webhook that is not Slack's, and a mention that calls nobody;
    `webhook_bases` and `api_base` say what Slack's is.
    """

    kind = "slack"

    def __init__(
        self,
        route: SlackRoute,
        *,
        client: httpx.AsyncClient,
        patience: Patience,
        now: Callable[[], datetime],
        rand: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        webhook_bases: tuple[str, ...] = WEBHOOK_BASES,
        api_base: str = API_BASE,
        on_retry: Callable[[Retried], None] = lambda retried: None,
    ) -> None:
        check_route(route, webhook_bases=webhook_bases)
        self._route, self._client, self._patience = route, client, patience
        self._api_base = api_base.rstrip("/")
        self._now, self._rand, self._sleep, self._on_retry = now, rand, sleep, on_retry

    async def send(self, message: Message) -> Delivery:
        """Post a message; where Slack refuses its form, once more in plain words."""
        calls = not message.resolved and message.severity >= self._route.mention_severity
        body = payload(message, mentions=self._route.mentions if calls else ())
        return await persist(
            lambda number: self._attempt(message, body, number),
            self._patience,
            rand=self._rand,
            sleep=self._sleep,
            on_retry=self._on_retry,
        )

    async def _attempt(self, message: Message, body: Mapping[str, Any], number: int) -> Delivery:
        code, answer = await self._post(body)
        note = ""
        if code in _FORM:
            note = f"; in plain words, since Slack answered {code}"
            code, answer = await self._post(plain(body, message))
        if code:
            raise refused(code)
        posted = answer.get("ts")
        return Delivery(
            provider_message_id=f"{answer.get('channel', '')}:{posted}" if posted else message.id,
            detail=("posted" if posted else "taken by the webhook") + note,
            attempts=number,
        )

    async def _post(self, body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        """Slack's error code, empty when it took the message, and its answer where that is JSON.

        Raises TransientError for what passes.
        """
        url, headers = self._route.webhook_url or "", {"content-type": "application/json; charset=utf-8"}
        if self._route.by_bot:
            url, body = f"{self._api_base}/chat.postMessage", {**body, "channel": self._route.channel}
            headers["authorization"] = f"Bearer {self._route.bot_token}"
        try:
            response = await self._client.post(
                url, content=msgspec.json.encode(body), headers=headers, timeout=self._patience.timeout_s
            )
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            # Neither the text nor the cause: both can quote the address, which is a secret, or the token.
            raise ConfigurationError(
                f"Slack: the request cannot be built ({type(error).__name__}).", fix=_WEBHOOK
            ) from None
        except httpx.RequestError as error:
            raise TransientError(f"Slack: {type(error).__name__} {said(str(error))}".rstrip()) from None
        return self._judge(response)

    def _judge(self, response: httpx.Response) -> tuple[str, Mapping[str, Any]]:
        answer = _json(response.content)
        code = str(answer.get("error") or "") if answer else ""
        if not response.is_success:
            code = code or said(response.text)[:60] or f"HTTP {response.status_code}"
        elif answer and answer.get("ok") is False:
            code = code or "unnamed error"
        else:
            return "", answer
        status = response.status_code
        if status in (408, 425, 429) or status >= 500 or code in _PASSING:
            asked_s = asked_wait_s(response.headers, now=self._now())
            raise TransientError(
                f"Slack: HTTP {status} {code}",
                retry_after=None if asked_s is None else timedelta(seconds=asked_s),
            )
        return code, answer


def slack_route(config: SlackConfig, *, secret: Secrets) -> SlackRoute:
    """The route that a configuration describes; `check_route` says what can be wrong with it."""
    return SlackRoute(
        webhook_url=secret(config.webhook_url_env) or None,
        bot_token=secret(config.bot_token_env) or None,
        channel=config.default_channel,
        mentions=config.mentions,
        mention_severity=config.mention_severity,
    )


def bound_elsewhere(route: SlackRoute) -> str:
    """What to tell somebody who names a channel without a bot token; empty when there is nothing to tell."""
    if not route.channel or route.by_bot or not route.webhook_url:
        return ""
    return (
        f"default_channel {route.channel} has no effect: a webhook posts to the channel it was made for. "
        "Set SLACK_BOT_TOKEN to choose the channel."
    )


def check_route(route: SlackRoute, *, webhook_bases: tuple[str, ...] = WEBHOOK_BASES) -> None:
    """Raise ConfigurationError for a route by which nothing can or should be posted."""
    if not route.by_bot and not route.webhook_url:
        raise ConfigurationError(
            "The Slack channel has neither a webhook nor a bot token with a channel.",
            fix="Set SLACK_WEBHOOK_URL, or SLACK_BOT_TOKEN and default_channel.",
            field="slack_config",
        )
    if not route.by_bot and not (route.webhook_url or "").startswith(webhook_bases):
        raise ConfigurationError(
            "The Slack webhook does not begin with https://hooks.slack.com/; nothing is sent there.",
            fix="Copy the address of the incoming webhook from Slack.",
            field="SLACK_WEBHOOK_URL",
        )
    for name in route.mentions:
        try:
            mention(name)
        except ValueError as error:
            raise ConfigurationError(
                f"{error}.", fix="Copy the member id from the person's Slack profile.", field="mentions"
            ) from None


def plain(body: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """The same message without blocks, colour and metadata: its headline, its lines, its id."""
    lines = escape("\n".join(clean(message).lines), MOST_PLAIN_CHARS)
    return {"text": "\n".join([body["text"], *([lines] if lines else []), f"id {message.id}"])}


def refused(code: str) -> MantaError:
    """The error of a code that no waiting cures."""
    kind = CredentialError if code in _CREDENTIAL else ConfigurationError
    return kind(
        f"Slack refuses the message: {code}.",
        fix=_FIXES.get(code, "Correct what Slack's code names."),
        field="slack_config",
    )


def _json(content: bytes) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}

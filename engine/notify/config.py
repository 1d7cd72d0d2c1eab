"""The models of `configs/notifications/config.json` and `configs/{org_slug}/notifications.json`.

Every key may be left out, so that a file of an organisation holds only what is different for it.
"""

from __future__ import annotations

import re
from datetime import time
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    field_validator,
    model_validator,
)

from engine.located import wrong
from engine.notify.types import EventName, Severity

type Kind = Literal["email", "slack"]

ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
EMAIL_SECRETS = {
    "smtp_username": "SMTP_USERNAME",
    "smtp_password": "SMTP_PASSWORD",
    "username": "SMTP_USERNAME",
    "password": "SMTP_PASSWORD",
}
SLACK_SECRETS = {
    "webhook_url": "SLACK_WEBHOOK_URL",
    "bot_token": "SLACK_BOT_TOKEN",
    "token": "SLACK_BOT_TOKEN",
}
#: Seven days: a problem that is over is remembered for eight.
LONGEST = 604_800


def _address(text: str) -> str:
    if not ADDRESS.fullmatch(text):
        raise wrong((), f"{text!r} is no email address", "write name@example.com")
    return text


def _variable(suffix: str) -> Any:
    """The name of an environment variable of one kind, so that no other secret can be sent away."""
    return StringConstraints(pattern=rf"^([A-Z][A-Z0-9_]*_)?{suffix}$")


Seconds = Annotated[int, Field(strict=True, ge=0, le=LONGEST)]
Timeout = Annotated[int, Field(strict=True, gt=0, le=300)]
Delay = Annotated[float, Field(strict=True, ge=0, le=3600)]
Address = Annotated[str, AfterValidator(_address)]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=100)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EmailConfig(_Model):
    """Email over SMTP: STARTTLS with `use_tls`, TLS from the start on port 465; secrets by environment.

    `to` without entries is DEFAULT_ADMIN_EMAIL in the root file; a file of an organisation names its own.
    """

    #: Off, nothing is mailed.
    enabled: StrictBool = True
    #: The mail server, such as `smtp.gmail.com`; it has to stand in one of the two files.
    smtp_host: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:-]+$")] | None = None
    #: 587 for STARTTLS, 465 for TLS from the first byte.
    smtp_port: Annotated[int, Field(strict=True, ge=1, le=65535)] = 587
    #: Off sends readable, which is refused with a login and to any other machine.
    use_tls: StrictBool = True
    #: The environment variable with the login; an organisation with a mail server of its own names its
    #: own.
    username_env: Annotated[str, _variable("SMTP_USERNAME")] = "SMTP_USERNAME"
    #: The environment variable with the password.
    password_env: Annotated[str, _variable("SMTP_PASSWORD")] = "SMTP_PASSWORD"  # noqa: S105 - a name
    #: The sender. Default the login, if it is an address.
    from_email: Address | None = None
    #: The sender's name.
    from_name: Line = "Manta"
    #: Who gets the mails. Default DEFAULT_ADMIN_EMAIL, in the root file only.
    to: tuple[Address, ...] = ()
    #: Who gets a copy.
    cc: tuple[Address, ...] = ()
    #: What every subject begins with.
    subject_prefix: Line = "[Manta]"
    #: What is less bad is not mailed.
    minimum_severity: Severity = Severity.INFO

    @model_validator(mode="before")
    @classmethod
    def _holds_no_secret(cls, given: object) -> object:
        return _without_secrets(given, EMAIL_SECRETS)


class SlackConfig(_Model):
    """Slack by webhook, which is bound to its own channel, or by bot token, which posts to `default_channel`.

    `mentions` are user ids (U...), group ids (S...), `here`, `channel` or `everyone`, called from
    `mention_severity` on.
    """

    #: Off, nothing is posted.
    enabled: StrictBool = True
    #: `#name` or a channel's id: where a bot token posts. A webhook is bound to its own channel.
    default_channel: (
        Annotated[str, StringConstraints(pattern=r"^(#[^\s,#]{1,80}|[CGD][A-Z0-9]{8,})$")] | None
    ) = None
    #: The environment variable with the incoming webhook.
    webhook_url_env: Annotated[str, _variable("SLACK_WEBHOOK_URL")] = "SLACK_WEBHOOK_URL"
    #: The environment variable with the bot token; with it and `default_channel` no webhook is needed.
    bot_token_env: Annotated[str, _variable("SLACK_BOT_TOKEN")] = "SLACK_BOT_TOKEN"  # noqa: S105 - a name
    #: Who is called: user ids (`U...`), group ids (`S...`), `here`, `channel` or `everyone`.
    mentions: tuple[
        Annotated[str, StringConstraints(pattern=r"^([US][A-Z0-9]{6,}|here|channel|everyone)$")], ...
    ] = ()
    #: How bad it has to be for `mentions` to be called.
    mention_severity: Severity = Severity.ERROR
    #: What is less bad is not posted.
    minimum_severity: Severity = Severity.INFO

    @model_validator(mode="before")
    @classmethod
    def _holds_no_secret(cls, given: object) -> object:
        return _without_secrets(given, SLACK_SECRETS)


class EventTrigger(_Model):
    """How one event is announced; what is left out follows the keys of the same name above.

    Without `providers` it goes to every channel there is.
    """

    #: Off, the event is not announced. An event that is not listed is, but for `pipeline_started` and
    #: `pipeline_success`.
    enabled: StrictBool = True
    #: `email`, `slack` or both. Default every channel that is set up.
    providers: tuple[Kind, ...] | None = None
    #: The same problem is announced once in this time; more is counted. 0 for events that report.
    cooldown_seconds: Seconds | None = None
    #: A problem that lasts is brought to mind again this often, and not announced more often.
    repeat_interval_seconds: Seconds | None = None
    #: What is less bad is not announced.
    minimum_severity: Severity | None = None
    #: Whether the end of a problem is announced to who was told of its beginning.
    send_resolved: StrictBool | None = None


class RetryConfig(_Model):
    """How often a channel is tried for one message, and how long is waited in between, with full jitter."""

    #: Attempts at one message on one channel, the first included.
    max_attempts: Annotated[int, Field(strict=True, ge=1, le=10)] = 3
    #: The longest wait before the second attempt; a random part of it is waited.
    initial_delay_seconds: Delay = 1
    #: The longest wait before any attempt, and the longest Retry-After that is waited for.
    max_delay_seconds: Delay = 30
    #: Whether the wait doubles with each attempt.
    exponential_backoff: StrictBool = True

    @model_validator(mode="after")
    def _grows(self) -> RetryConfig:
        if self.max_delay_seconds < self.initial_delay_seconds:
            said = "is less than initial_delay_seconds"
            raise wrong(("max_delay_seconds",), said, "make it at least as long")
        return self


class QuietHoursConfig(_Model):
    """Local times (HH:MM) between which only `passes` and worse is sent; `end` may be the next morning."""

    #: Local time, `"22:00"`.
    start: time
    #: Local time; before `start` it is the next morning's.
    end: time
    #: Whose clock it is.
    timezone: str = "UTC"
    #: How bad it has to be to be sent nevertheless.
    passes: Severity = Severity.CRITICAL

    @field_validator("start", "end", mode="before")
    @classmethod
    def _is_clock_time(cls, given: object) -> object:
        if not isinstance(given, str) or not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", given):
            raise wrong((), f"{given!r} is no time of day", 'write it as "22:00"')
        return given

    @field_validator("timezone")
    @classmethod
    def _exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise wrong((), f"{name!r} is no timezone", "write UTC or a name like Europe/Berlin") from error
        return name

    @model_validator(mode="after")
    def _is_a_span(self) -> QuietHoursConfig:
        if self.start == self.end:
            raise wrong(("end",), "is the same as start", "leave quiet_hours out, or give them a length")
        return self


#: What many organisations can have in common.
COMMON = (
    EventName.PIPELINE_FAILURE,
    EventName.PIPELINE_PARTIAL,
    EventName.STEP_FAILURE,
    EventName.UNIT_QUARANTINED,
    EventName.CREDENTIAL_INVALID,
    EventName.DATA_LATE,
    EventName.MODEL_UNPRICED,
)


class RollUpConfig(_Model):
    """Root file only: what many organisations have in common at a provider is one message to the operator.

    Organisations with channels of their own are told by their own rules as well; the operator hears of them
    once there are `minimum_organisations`. A roll-up waits `wait_seconds` for the others.
    """

    #: The events that are rolled up, where they name a provider or concern the operator's own channel.
    events: tuple[EventName, ...] = COMMON
    #: From how many organisations with channels of their own the operator hears of it.
    minimum_organisations: Annotated[int, Field(strict=True, ge=1)] = 2
    #: How long the first message waits for the other organisations.
    wait_seconds: Seconds = 30


class NotificationConfig(_Model):
    """All settings of notifications: of the root file, or of an organisation's file laid over it.

    `run_link` is the address of a run, with `{run_id}` in it; root file only, as is `roll_up`.
    """

    #: Off, nothing is announced.
    enabled: StrictBool = True
    #: One attempt to send one message.
    timeout_seconds: Timeout = 30
    #: Email; null switches it off.
    email_config: EmailConfig | None = None
    #: Slack; null switches it off.
    slack_config: SlackConfig | None = None
    #: How each event is announced, by its name.
    event_triggers: dict[EventName, EventTrigger] = Field(default_factory=dict)
    #: How a message is tried again.
    retry_config: RetryConfig = RetryConfig()
    #: For events that do not say; 0 for `pipeline_started`, `pipeline_success` and `summary_scheduled`.
    cooldown_seconds: Seconds = 300
    #: For events that do not say. Default no reminders.
    repeat_interval_seconds: Seconds | None = None
    #: How long a first message waits for other problems of its organisation, event and pipeline.
    group_wait_seconds: Seconds = 5
    #: The least time between two messages of such a group.
    group_interval_seconds: Seconds = 60
    #: What is less bad is not announced.
    minimum_severity: Severity = Severity.INFO
    #: Whether the end of a problem is announced to who was told of its beginning.
    send_resolved: StrictBool = True
    #: When only the worst is sent; the rest waits for their end.
    quiet_hours: QuietHoursConfig | None = None
    #: Root file only: what many organisations have in common is one message to the operator.
    roll_up: RollUpConfig = RollUpConfig()
    #: Root file only: the address of a run, with `{run_id}` in it.
    run_link: Annotated[str, StringConstraints(pattern=r"^https?://\S*\{run_id\}\S*$")] | None = None

    @field_validator("event_triggers", mode="before")
    @classmethod
    def _events_exist(cls, given: object) -> object:
        for name in given if isinstance(given, dict) else ():
            if name not in list(EventName):
                raise wrong((str(name),), "is no event", f"use one of {', '.join(EventName)}")
        return given

    def channel(self, kind: Kind) -> EmailConfig | SlackConfig | None:
        """The settings of a channel that is switched on, or None."""
        found = self.email_config if kind == "email" else self.slack_config
        return found if found and found.enabled else None


def _without_secrets(given: object, secrets: dict[str, str]) -> object:
    for key in given if isinstance(given, dict) else ():
        if key in secrets:
            fix = f"remove it and set {secrets[key]} in the environment"
            raise wrong((key,), "is a secret, and this file can hold none", fix)
    return given

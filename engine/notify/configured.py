"""From the files' settings to the rules' policies: defaults, and which channels can be reached at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from engine.located import Problem
from engine.notify.config import EmailConfig, EventTrigger, Kind, NotificationConfig, SlackConfig
from engine.notify.policy import NEVER, Policies, Policy, QuietHours, RollUp, Route, Rule
from engine.notify.sources import ORG_FILE, ROOT_FILE, Configs
from engine.notify.types import NOTICES, EventName, Severity

KINDS: tuple[Kind, ...] = ("email", "slack")
#: Good news by the hour is what makes people mute a channel: these are announced only where a file asks.
OFF = frozenset({EventName.PIPELINE_STARTED, EventName.PIPELINE_SUCCESS})


@dataclass(frozen=True, slots=True)
class Around:
    """What the environment adds: who the operator's mails go to, and which secrets are set, by variable."""

    admin_email: str | None = None
    secrets: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel that can be reached: whose it is, its kind, and the settings to reach it by."""

    id: str
    org: str | None
    kind: Kind
    config: NotificationConfig
    to: tuple[str, ...] = ()


def channel_id(org: str | None, kind: Kind) -> str:
    """`email` for the operator's, `acme/email` for an organisation's."""
    return kind if org is None else f"{org}/{kind}"


def channels(configs: Configs, around: Around) -> dict[str, Channel]:
    """Every channel that the files name and the environment has the secrets for, by id."""
    owners: list[tuple[str | None, frozenset[Kind]]] = [(None, frozenset(KINDS)), *configs.own.items()]
    found: dict[str, Channel] = {}
    for org, kinds in owners:
        config = configs.of(org)
        for kind in KINDS:
            if kind in kinds and config.channel(kind) and not unreachable(config, kind, around):
                email = config.email_config
                to = (email.to or _admins(around)) if kind == "email" and email else ()
                found[channel_id(org, kind)] = Channel(channel_id(org, kind), org, kind, config, to)
    return found


def unreachable(config: NotificationConfig, kind: Kind, around: Around) -> tuple[str, str] | None:
    """What a channel lacks and how to mend it, or None where it can be reached."""
    channel = config.channel(kind)
    if isinstance(channel, EmailConfig) and not (channel.to or around.admin_email):
        return "has nobody to write to", "add to, or set DEFAULT_ADMIN_EMAIL in the environment"
    if isinstance(channel, SlackConfig):
        bot = channel.bot_token_env in around.secrets and channel.default_channel
        if not bot and channel.webhook_url_env not in around.secrets:
            fix = f"set {channel.webhook_url_env}, or {channel.bot_token_env} and default_channel"
            return "has neither a webhook nor a bot token with a channel", fix
    return None


def config_warnings(configs: Configs, around: Around) -> list[Problem]:
    """What the files ask for and the environment cannot give; nothing here makes a file unusable."""
    found: list[Problem] = []
    for org in (None, *sorted(configs.orgs)):
        document = configs.documents.get(ROOT_FILE if org is None else f"configs/{org}/{ORG_FILE}")
        if document is None:
            continue
        config = configs.of(org)
        for kind in KINDS:
            at = (f"{kind}_config",)
            if at not in document.lines or not config.channel(kind):
                continue
            if lacking := unreachable(config, kind, around):
                found.append(document.problem(at, *lacking))
        found += [
            document.problem(("slack_config", "default_channel"), *said) for said in _unused(config, around)
        ]
    return found


def _unused(config: NotificationConfig, around: Around) -> Iterator[tuple[str, str]]:
    slack = config.channel("slack")
    if isinstance(slack, SlackConfig) and slack.default_channel and slack.bot_token_env not in around.secrets:
        said = "has no effect on a webhook, which posts to the channel that it was made for"
        yield said, f"set {slack.bot_token_env} to choose the channel, or remove it"


def policies(configs: Configs, around: Around) -> Policies:
    """The rules of everybody."""
    reached = channels(configs, around)
    roll_up = configs.root.roll_up
    return Policies(
        operator=_policy(configs.root, None, frozenset(KINDS), reached),
        default=_policy(configs.root, "", frozenset(), reached),
        orgs={org: _policy(config, org, configs.own[org], reached) for org, config in configs.orgs.items()},
        roll_up=RollUp(
            events=frozenset(roll_up.events),
            organisations=roll_up.minimum_organisations,
            wait=timedelta(seconds=roll_up.wait_seconds),
        ),
        run_link=configs.root.run_link,
    )


def _policy(
    config: NotificationConfig, org: str | None, own: frozenset[Kind], reached: Mapping[str, Channel]
) -> Policy:
    """The rules of an organisation that has the channels `own` itself, and shares the operator's others."""
    rules = {}
    for event in EventName:
        trigger = config.event_triggers.get(event, EventTrigger(enabled=event not in OFF))
        wanted = KINDS if trigger.providers is None else trigger.providers
        routes = []
        for kind in wanted:
            shared = org is not None and kind not in own
            name = channel_id(None if shared else org, kind)
            if config.channel(kind) and name in reached:
                routes.append(_route(config, trigger, kind, name, shared=shared))
        rules[event] = _rule(config, trigger, event, tuple(routes))
    return Policy(rules)


def _rule(
    config: NotificationConfig, trigger: EventTrigger, event: EventName, routes: tuple[Route, ...]
) -> Rule:
    cooldown = 0 if event in NOTICES else config.cooldown_seconds
    repeat = _first(trigger.repeat_interval_seconds, config.repeat_interval_seconds)
    return Rule(
        enabled=config.enabled and trigger.enabled,
        routes=routes,
        cooldown=timedelta(seconds=_first(trigger.cooldown_seconds, cooldown) or 0),
        repeat=timedelta(seconds=repeat) if repeat else None,
        # A digest has no company to wait for.
        wait=NEVER if event in NOTICES else timedelta(seconds=config.group_wait_seconds),
        interval=NEVER if event in NOTICES else timedelta(seconds=config.group_interval_seconds),
    )


def _route(
    config: NotificationConfig, trigger: EventTrigger, kind: Kind, name: str, *, shared: bool
) -> Route:
    channel = config.channel(kind)
    least = (config.minimum_severity, trigger.minimum_severity, channel.minimum_severity if channel else None)
    wanted = _first(trigger.send_resolved, config.send_resolved)
    quiet = config.quiet_hours
    return Route(
        name,
        shared=shared,
        minimum=max((each for each in least if each), key=lambda each: each.rank, default=Severity.INFO),
        quiet=QuietHours(quiet.start, quiet.end, quiet.timezone, quiet.passes) if quiet else None,
        send_resolved=bool(wanted),
    )


def _admins(around: Around) -> tuple[str, ...]:
    return (around.admin_email,) if around.admin_email else ()


def _first[T](*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)

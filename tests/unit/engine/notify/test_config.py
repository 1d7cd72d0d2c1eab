"""The files of notifications: the readme's own, an organisation's over it, and what is refused where."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.errors import NotFoundError
from engine.notify.config import NotificationConfig
from engine.notify.configured import Around, channels, config_warnings, policies
from engine.notify.policy import Route
from engine.notify.sources import ConfigSource, config_problems, read_configs, resolve
from engine.notify.types import EventName, Severity

README = Path(__file__).with_name("readme.json")
SHIPPED = Path(__file__).parents[4]
BOTH = Around("admin@example.com", frozenset({"SLACK_WEBHOOK_URL"}))
BASE = json.loads(README.read_text())
type Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files by organisation (`root` for the root file) and answers their root."""

    def write(**given: object) -> Path:
        for org, value in given.items():
            name = "notifications/config.json" if org == "root" else f"{org}/notifications.json"
            path = tmp_path / "configs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(value if isinstance(value, str) else json.dumps(value, indent=2))
        return tmp_path

    return write


def test_the_readmes_json_loads_unchanged(write: Write) -> None:
    root = write(root=README.read_text())
    assert config_problems(root) == []
    config = resolve(root, "acme")
    assert config.model_dump(mode="json", exclude_unset=True) == BASE
    rule = policies(read_configs(root), BOTH).of("acme").rule(EventName.PIPELINE_FAILURE)
    assert rule.cooldown == timedelta(seconds=300)
    assert rule.routes == (Route("email", shared=True), Route("slack", shared=True))


def test_what_is_shipped_has_no_problem() -> None:
    assert config_problems(SHIPPED) == []
    assert read_configs(SHIPPED).root.event_triggers


def test_an_organisations_file_lies_over_the_root_file_key_by_key(write: Write) -> None:
    root = write(
        root=BASE | {"quiet_hours": {"start": "22:00", "end": "06:00"}},
        acme={
            "timeout_seconds": 5,
            "email_config": {"to": ["ada@acme.example"]},
            "slack_config": None,
            "event_triggers": {"pipeline_failure": {"providers": ["email"]}},
            "quiet_hours": {"timezone": "Europe/Berlin"},
        },
    )
    config = resolve(root, "acme")
    assert (config.timeout_seconds, config.slack_config) == (5, None)
    assert config.email_config
    assert (config.email_config.smtp_host, config.email_config.to) == (
        "smtp.gmail.com",
        ("ada@acme.example",),
    )
    trigger = config.event_triggers[EventName.PIPELINE_FAILURE]
    assert (trigger.providers, trigger.cooldown_seconds) == (("email",), 300)
    assert config.quiet_hours
    assert (config.quiet_hours.start.hour, config.quiet_hours.timezone) == (22, "Europe/Berlin")
    assert resolve(root, "globex") == resolve(root, None)


MANY: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"enable": True}, "2: enable: unknown key: remove it or correct its name"),
    "no flag": ({"enabled": "yes"}, "2: enabled: input should be a valid boolean: correct the value"),
    "no time": ({"timeout_seconds": 0}, "2: timeout_seconds: input should be greater than 0: correct"),
    "password": (
        {"email_config": {"smtp_host": "a", "smtp_password": "x"}},
        "4: email_config.smtp_password: is a secret, and this file can hold none: remove it and set SMTP_P",
    ),
    "webhook": (
        {"slack_config": {"webhook_url": "https://hooks.slack.com/services/x"}},
        "3: slack_config.webhook_url: is a secret, and this file can hold none: remove it and set SLACK_W",
    ),
    "address": (
        {"email_config": {"smtp_host": "a", "to": ["ada@x.example", "nobody"]}},
        "6: email_config.to[1]: 'nobody' is no email address: write name@example.com",
    ),
    "host": ({"email_config": {"to": ["a@x.example"]}}, "2: email_config: names no smtp_host: add smtp_host"),
    "header": (
        {"email_config": {"smtp_host": "a", "subject_prefix": "x\nBcc: y"}},
        "4: email_config.subject_prefix: string should match pattern",
    ),
    "event": (
        {"event_triggers": {"pipeline_broken": {}}},
        "3: event_triggers.pipeline_broken: is no event: use one of pipeline_started, pipeline_success, ",
    ),
    "channel": (
        {"event_triggers": {"data_late": {"providers": ["slack"]}}},
        "4: event_triggers.data_late.providers: names slack, which has no slack_config: add slack_config",
    ),
    "no span": (
        {"quiet_hours": {"start": "22:00", "end": "22:00"}},
        "4: quiet_hours.end: is the same as start: leave quiet_hours out, or give them a length",
    ),
    "clock": (
        {"quiet_hours": {"start": "9", "end": "22:00"}},
        "3: quiet_hours.start: '9' is no time of day: write it as \"22:00\"",
    ),
    "timezone": (
        {"quiet_hours": {"start": "21:00", "end": "22:00", "timezone": "Berlin"}},
        "5: quiet_hours.timezone: 'Berlin' is no timezone: write UTC or a name like Europe/Berlin",
    ),
    "delays": (
        {"retry_config": {"max_delay_seconds": 0.5}},
        "3: retry_config.max_delay_seconds: is less than initial_delay_seconds: make it at least as long",
    ),
    "variable": (
        {"slack_config": {"bot_token_env": "MANTA_ROOT_KEY"}},
        "3: slack_config.bot_token_env: string should match pattern",
    ),
}


@pytest.mark.parametrize(("given", "said"), MANY.values(), ids=MANY)
def test_what_is_wrong_is_said_with_its_line(write: Write, given: dict[str, Any], said: str) -> None:
    root = write(root=given)
    (problem,) = config_problems(root)
    assert str(problem).startswith(f"configs/notifications/config.json:{said}")
    with pytest.raises(NotFoundError, match=r"config\.json:"):
        resolve(root, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n "enabled": true,\n}', "2: file: is no JSON"),
        ('{"enabled": true, "enabled": false}', "1: enabled: the key appears twice: keep one of them"),
        ("[]", "1: file: is no object"),
        ("", "1: file: is no JSON"),
        ('{"cooldown_seconds": NaN}', "1: file: is no JSON: NaN is no number"),
        ("[" * 100_000, "1: file: is no JSON"),
    ],
)
def test_what_is_no_json_is_said_with_its_line(write: Write, text: str, said: str) -> None:
    (problem,) = config_problems(write(root=text))
    assert str(problem).startswith(f"configs/notifications/config.json:{said}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"run_link": "https://x.example/{run_id}"}, "2: run_link: is the operator's alone"),
        ({"roll_up": {}}, "2: roll_up: is the operator's alone"),
        ({"email_config": {"cc": ["a@x.example"]}}, "2: email_config: changes the channel without to"),
        (
            {"slack_config": {"mentions": ["here"]}},
            "2: slack_config: changes the channel without webhook_url_env",
        ),
        (
            {"email_config": {"to": ["a@x.example"], "smtp_host": "mail.evil.example"}},
            "6: email_config.smtp_host: is another server than the operator's",
        ),
    ],
)
def test_what_an_organisation_may_not(write: Write, given: dict[str, Any], said: str) -> None:
    root = write(root=BASE, acme=given)
    (problem,) = config_problems(root)
    assert str(problem).startswith(f"configs/acme/notifications.json:{said}")
    assert "acme" not in read_configs(root).orgs


def test_a_folder_of_pipelines_is_no_organisation(write: Write) -> None:
    root = write(root=BASE, openai={})
    (root / "configs" / "openai" / "usage.yml").write_text("a: b")
    (problem,) = config_problems(root)
    assert problem.problem == "lies in configs/openai, which is no organisation's folder"


def test_channels_are_the_operators_or_an_organisations_own(write: Write) -> None:
    root = write(
        root=BASE,
        acme={"email_config": {"to": ["ada@acme.example"]}},
        globex={"slack_config": {"webhook_url_env": "GLOBEX_SLACK_WEBHOOK_URL"}},
    )
    configs = read_configs(root)
    assert configs.problems == ()
    around = Around("admin@example.com", frozenset({"SLACK_WEBHOOK_URL", "GLOBEX_SLACK_WEBHOOK_URL"}))
    found = channels(configs, around)
    assert set(found) == {"email", "slack", "acme/email", "globex/slack"}
    assert (found["email"].to, found["acme/email"].to) == (("admin@example.com",), ("ada@acme.example",))
    of = policies(configs, around).of
    routes = {org: of(org).rule(EventName.DATA_LATE).routes for org in (None, "acme", "globex", "initech")}
    assert {org: [(r.channel_id, r.shared) for r in found] for org, found in routes.items()} == {
        None: [("email", False), ("slack", False)],
        "acme": [("acme/email", False), ("slack", True)],
        "globex": [("email", True), ("globex/slack", False)],
        "initech": [("email", True), ("slack", True)],
    }


def test_a_channel_without_its_secret_is_left_out_and_warned_of(write: Write) -> None:
    configs = read_configs(write(root=README.read_text()))
    assert channels(configs, Around()) == {}
    assert [
        (problem.line, problem.field, problem.problem) for problem in config_warnings(configs, Around())
    ] == [
        (4, "email_config", "has nobody to write to"),
        (9, "slack_config", "has neither a webhook nor a bot token with a channel"),
        (
            10,
            "slack_config.default_channel",
            "has no effect on a webhook, which posts to the channel that it was made for",
        ),
    ]


def test_a_bot_token_makes_the_default_channel_work(write: Write) -> None:
    configs = read_configs(write(root=BASE))
    around = Around("admin@example.com", frozenset({"SLACK_BOT_TOKEN"}))
    assert config_warnings(configs, around) == []
    assert set(channels(configs, around)) == {"email", "slack"}


def test_good_news_is_announced_only_where_a_file_asks_for_it(write: Write) -> None:
    root = write(root=BASE | {"event_triggers": {"pipeline_success": {}}})
    rules = policies(read_configs(root), BOTH).operator.rules
    assert (rules[EventName.PIPELINE_SUCCESS].enabled, rules[EventName.PIPELINE_STARTED].enabled) == (
        True,
        False,
    )
    assert rules[EventName.SUMMARY_SCHEDULED].cooldown == timedelta()


def test_the_strictest_severity_holds(write: Write) -> None:
    email = {"smtp_host": "x", "minimum_severity": "warning"}
    trigger = {"data_late": {"minimum_severity": "error"}}
    root = write(root={"email_config": email, "event_triggers": trigger})
    rules = policies(read_configs(root), BOTH).operator.rules
    assert rules[EventName.DATA_LATE].routes[0].minimum is Severity.ERROR
    assert rules[EventName.STEP_FAILURE].routes[0].minimum is Severity.WARNING


def test_a_file_is_read_again_when_it_changed_and_only_then(write: Write) -> None:
    root = write(root=BASE)
    source = ConfigSource(root)
    first = source.current()
    assert source.current() is first
    write(root=BASE | {"timeout_seconds": 31})
    assert source.current().root.timeout_seconds == 31
    write(acme={"timeout_seconds": 7})
    assert source.current().of("acme").timeout_seconds == 7
    (root / "configs/acme/notifications.json").unlink()
    assert source.current().of("acme").timeout_seconds == 31


def test_a_broken_edit_leaves_what_held_before(write: Write) -> None:
    root = write(root=BASE | {"timeout_seconds": 31}, acme={"timeout_seconds": 7})
    source = ConfigSource(root)
    source.current()
    write(root='{"timeout_seconds": 3', acme={"timeout_seconds": 8})
    broken = source.current()
    assert (broken.root.timeout_seconds, len(broken.problems)) == (31, 1)
    write(root=BASE | {"timeout_seconds": 32}, acme={"timeout": 9})
    half = source.current()
    assert (half.root.timeout_seconds, half.of("acme").timeout_seconds) == (32, 7)
    write(acme={})
    assert source.current().problems == ()


def test_no_file_at_all_is_no_problem(tmp_path: Path) -> None:
    assert config_problems(tmp_path) == []
    assert resolve(tmp_path, "acme") == NotificationConfig()

"""The files of notifications: read, laid over each other key by key, and read again when they change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.catalog import NOT_PIPELINES, pipeline_files
from engine.errors import NotFoundError
from engine.located import Document, MisplacedError, Problem, parse
from engine.notify.config import EmailConfig, Kind, NotificationConfig
from engine.notify.json_file import read_json

ROOT_FILE = "configs/notifications/config.json"
ORG_FILE = "notifications.json"
#: The operator's alone: an organisation cannot decide what others have in common with it.
OPERATORS = ("roll_up", "run_link")
#: What says where a channel leads; an organisation's file without one of these would write to the operator.
TARGETS: Mapping[str, tuple[str, ...]] = {
    "email_config": ("to",),
    "slack_config": ("webhook_url_env", "bot_token_env", "default_channel"),
}


@dataclass(frozen=True)
class Configs:
    """The root file, and the organisations' files over it; `own` are the channels that each has itself."""

    root: NotificationConfig = field(default_factory=NotificationConfig)
    orgs: Mapping[str, NotificationConfig] = field(default_factory=dict)
    own: Mapping[str, frozenset[Kind]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    documents: Mapping[str, Document] = field(default_factory=dict, repr=False)

    def of(self, org: str | None) -> NotificationConfig:
        """What holds for an organisation: its file over the root file; the root file for None."""
        return self.root if org is None else self.orgs.get(org, self.root)


def resolve(root: Path, org: str | None) -> NotificationConfig:
    """What holds for an organisation by the files under `root` (see `Configs.of`).

    Raises NotFoundError, with the first problem, where the files cannot be used.
    """
    configs = read_configs(root)
    if configs.problems:
        raise NotFoundError(
            f"No usable notification settings: {configs.problems[0]}.",
            fix="Run manta validate, and correct them.",
        )
    return configs.of(org)


def config_problems(root: Path) -> list[Problem]:
    """What is wrong in the notification files under `root`, by file and line."""
    return list(read_configs(root).problems)


def files(root: Path) -> dict[str | None, Path]:
    """The notification files there are: None for the root file, else the organisation's slug."""
    found: dict[str | None, Path] = {}
    if (path := root / ROOT_FILE).is_file():
        found[None] = path
    for path in sorted((root / "configs").glob(f"*/{ORG_FILE}")):
        found[path.parent.name] = path
    return found


def read_configs(root: Path) -> Configs:
    """All files under `root`; one that cannot be used leaves its problems and what lies below it."""
    problems: list[Problem] = []
    documents: dict[str | None, Document] = {}
    for org, path in files(root).items():
        try:
            documents[org] = read_json(path, root=root)
        except MisplacedError as error:
            problems += error.problems
    base, below, found = _root(documents.get(None))
    problems += found
    orgs: dict[str, NotificationConfig] = {}
    own: dict[str, frozenset[Kind]] = {}
    for org, document in documents.items():
        if org is None:
            continue
        config, found = _org(root, org, document, base, below)
        problems += found
        if config:
            orgs[org], own[org] = config, _own(document.value)
    named = {document.name: document for document in documents.values()}
    return Configs(base, orgs, own, tuple(sorted(problems)), named)


def _root(document: Document | None) -> tuple[NotificationConfig, dict[str, Any], list[Problem]]:
    """The root file's settings and what it says; nothing of one that cannot be used."""
    if document is None:
        return NotificationConfig(), {}, []
    config, problems = parse(NotificationConfig, document)
    if config is None:
        return NotificationConfig(), {}, problems
    return config, document.value, [*problems, *_incomplete(config, document)]


def _org(
    root: Path, org: str, document: Document, base: NotificationConfig, below: dict[str, Any]
) -> tuple[NotificationConfig | None, list[Problem]]:
    """An organisation's file over the root file; only both together have to be complete."""
    whole = Document(document.name, laid_over(below, document.value), document.lines)
    config, problems = parse(NotificationConfig, whole)
    if config:
        problems += [*_incomplete(config, whole), *_foreign_login(config, base, document)]
    problems += _misplaced(root, org, document)
    return (None if problems else config), problems


def laid_over(below: Any, above: Any) -> Any:
    """`above` over `below`, key by key; lists and null replace what is below them."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: laid_over(below.get(key), value) for key, value in above.items()}


def _misplaced(root: Path, org: str, document: Document) -> Iterator[Problem]:
    """What an organisation's file may not hold, and where none may lie."""
    folder = root / "configs" / org
    if org in NOT_PIPELINES or any(path.is_relative_to(folder) for path in pipeline_files(root)):
        said = f"lies in configs/{org}, which is no organisation's folder"
        yield document.problem((), said, f"move it to configs/{{org_slug}}/{ORG_FILE}, or to {ROOT_FILE}")
    for key in OPERATORS:
        if key in document.value:
            yield document.problem((key,), "is the operator's alone", f"move it to {ROOT_FILE}")
    for key, targets in TARGETS.items():
        channel = document.value.get(key)
        if not isinstance(channel, dict) or channel.get("enabled") is False:
            continue
        if not any(channel.get(target) for target in targets):
            names = " or ".join(targets)
            said = f"changes the channel without {names}, and so would change the operator's own"
            yield document.problem((key,), said, f"add {targets[0]}, or remove {key}")


def _incomplete(config: NotificationConfig, document: Document) -> Iterator[Problem]:
    if (email := config.channel("email")) and isinstance(email, EmailConfig) and not email.smtp_host:
        at = ("email_config",)
        yield document.problem(at, "names no smtp_host", "add smtp_host, such as smtp.gmail.com")
    for event, trigger in config.event_triggers.items():
        for kind in trigger.providers or ():
            if trigger.enabled and getattr(config, f"{kind}_config") is None:
                place = ("event_triggers", event.value, "providers")
                yield document.problem(
                    place, f"names {kind}, which has no {kind}_config", f"add {kind}_config"
                )


def _foreign_login(
    config: NotificationConfig, base: NotificationConfig, document: Document
) -> Iterator[Problem]:
    """Another mail server must not be given the operator's password."""
    mine, theirs = config.email_config, base.email_config
    if mine is None or theirs is None or mine.smtp_host == theirs.smtp_host:
        return
    if mine.password_env == theirs.password_env:
        at = ("email_config", "smtp_host")
        said = "is another server than the operator's, which would be given the operator's password"
        yield document.problem(at, said, "add username_env and password_env of its own")


def _own(value: Mapping[str, Any]) -> frozenset[Kind]:
    kinds: tuple[Kind, ...] = ("email", "slack")
    return frozenset(kind for kind in kinds if value.get(f"{kind}_config"))


class ConfigSource:
    """The files of one root, read again when one is changed, added or removed.

    A file that is broken is left as it was when it could last be used, so that an edit in the wrong moment
    loses no alert; its problems are in `Configs.problems`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: object = None
        self._configs = Configs()

    def current(self) -> Configs:
        """What holds now; the same object as before where no file has changed."""
        seen = {str(path): _stamp(path) for path in files(self._root).values()}
        if seen != self._seen:
            self._configs = self._kept(read_configs(self._root))
            self._seen = seen
        return self._configs

    def _kept(self, new: Configs) -> Configs:
        """The new settings, with the last good ones of files that cannot be used."""
        broken = {problem.file for problem in new.problems}
        old = self._configs
        if ROOT_FILE in broken:
            return Configs(old.root, old.orgs, old.own, new.problems, old.documents)
        bad = {org for org in old.orgs if f"configs/{org}/{ORG_FILE}" in broken}
        orgs = {**new.orgs, **{org: old.orgs[org] for org in bad}}
        own = {**new.own, **{org: old.own[org] for org in bad}}
        return Configs(new.root, orgs, own, new.problems, new.documents)


def _stamp(path: Path) -> object:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    # The content too: a coarse clock gives two quick edits of one length the same time.
    return stat.st_mtime_ns, stat.st_size, stat.st_ino, path.read_bytes()

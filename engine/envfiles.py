"""Reads the committed `.env.*` files: NAME=value a line, settings and references only."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigurationError
from engine.secretscan import scan

ENVIRONMENTS = ("local", "stage", "prod")
LINE = re.compile(r"^(?:export\s+)?([A-Z][A-Z0-9_]*)\s*=\s*(.*)$")


@dataclass(frozen=True, slots=True)
class Variable:
    """A value and where it was read: `path:line` or "the environment"."""

    value: str
    where: str


def read_env(path: Path) -> dict[str, Variable]:
    """The variables of one file; none when it does not exist.

    No interpolation and no escapes: what stands there is the value. Raises ConfigurationError for a line that
    is no assignment and for a name set twice.
    """
    if not path.exists():
        return {}
    found: dict[str, Variable] = {}
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line, where = raw.strip(), f"{path}:{number}"
        if not line or line.startswith("#"):
            continue
        match = LINE.match(line)
        if match is None:
            raise ConfigurationError(f"{where}: no setting.", fix="Write NAME=value, or # before a comment.")
        name, value = match[1], _bare(match[2])
        if name in found:
            raise ConfigurationError(
                f"{where}: {name}: set before, at {found[name].where}.",
                fix="Keep one of the two.",
                field=name,
            )
        found[name] = Variable(value, where)
    return found


def _bare(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return re.split(r"(?:^|\s+)#", value, maxsplit=1)[0].strip()


def refuse_unknown(
    variables: Mapping[str, Variable], known: Collection[str], *, process_only: Collection[str]
) -> None:
    """Refuse names that no setting has: a typo would otherwise be a setting that silently does nothing.

    `process_only` are those that choose the file and therefore cannot stand in it.
    """
    for name, var in variables.items():
        if name in process_only:
            raise ConfigurationError(
                f"{var.where}: {name}: comes too late here, for it chooses this file.",
                fix=f"Set {name} in the process environment.",
                field=name,
            )
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = (
                f"Did you mean {near[0]}?" if near else "Remove the line; docs/configs.md lists all settings."
            )
            raise ConfigurationError(f"{var.where}: {name}: no such setting.", fix=hint, field=name)


def refuse_secrets(root: Path) -> None:
    """Refuse a secret-looking value in any of the three committed files, never showing it."""
    for env in ENVIRONMENTS:
        path = root / f".env.{env}"
        suspects = scan(path.read_text(encoding="utf-8")) if path.exists() else []
        if suspects:
            first = suspects[0]
            raise ConfigurationError(
                f"{path}:{first.line}: {first.name}: looks like {first.looks_like}; this file is committed.",
                fix="Take the line out and revoke the secret. Provider keys go in with `manta credential "
                "add`, others into the process environment.",
                field=first.name,
            )


def ignored(root: Path) -> tuple[str, ...]:
    """What lies beside the three files and is not read."""
    path = root / ".env"
    return (f"{path} is ignored: Manta reads .env.local, .env.stage or .env.prod.",) if path.exists() else ()

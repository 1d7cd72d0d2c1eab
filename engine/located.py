"""YAML with the line of every key, so that a problem is reported as `file:line: field: problem: fix`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

type At = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in a config file; `str()` is the line that `manta validate` prints."""

    file: str
    line: int
    field: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field or 'file'}: {self.problem}: {self.fix}"


class MisplacedError(Exception):
    """A file that cannot be read as YAML at all; carries its problems."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(str(problems[0]))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Document:
    """One YAML file: its value and the line (from 1) of each path in it."""

    name: str
    value: Any
    lines: Mapping[At, int] = field(repr=False)

    def problem(self, at: At, problem: str, fix: str) -> Problem:
        """A problem at a path, on the line of the path or of its nearest parent that the file has."""
        near = next((at[:n] for n in range(len(at), -1, -1) if at[:n] in self.lines), ())
        return Problem(self.name, self.lines.get(near, 1), dotted(at), problem, fix)

    def at(self, at: At) -> Any:
        """The value at a path."""
        value = self.value
        for part in at:
            value = value[part]
        return value

    def place(self, under: At, value: object) -> At:
        """The first path below `under` that holds this value, or `under` itself."""
        below = (at for at in self.lines if at[: len(under)] == under)
        return next((at for at in below if self.at(at) == value), under)

    def problems(self, error: ValidationError, prefix: At = ()) -> list[Problem]:
        """The problems of a model that refused this document (or the part of it under `prefix`)."""
        return [self._translated(detail, prefix) for detail in error.errors(include_url=False)]

    def _translated(self, detail: ErrorDetails, prefix: At) -> Problem:
        context = detail.get("ctx", {})
        at = prefix + self._known(prefix, detail["loc"]) + tuple(context.get("at", ()))
        if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            return self.problem(at, "unknown key", "remove it or correct its name")
        if detail["type"] == "missing":
            return self.problem(at, "is missing", "add it")
        message = detail["msg"].removeprefix("Value error, ").rstrip(".")
        return self.problem(at, message[:1].lower() + message[1:], context.get("fix", "correct the value"))

    def _known(self, prefix: At, loc: At) -> At:
        """`loc` without the names of union members, which pydantic adds and the file does not have."""
        found: At = ()
        for n, part in enumerate(loc):
            last = n == len(loc) - 1
            if prefix + found + (part,) in self.lines or last:
                found += (part,)
        return found


def wrong(at: At, problem: str, fix: str) -> PydanticCustomError:
    """What a model validator raises to name the place inside the model and the fix."""
    # Braces would be read as placeholders.
    return PydanticCustomError("misplaced", "{what}", {"what": problem, "at": at, "fix": fix})


def dotted(at: At) -> str:
    """`("steps", 1, "retry")` as `steps[1].retry`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).removeprefix(".")


def read(path: Path, *, root: Path) -> Document:
    """Read one file; its name in problems is relative to `root`.

    Raises MisplacedError for a syntax error, a duplicate key, a key that is no text or an empty file.
    """
    name = path.relative_to(root).as_posix()
    lines: dict[At, int] = {}
    problems: list[Problem] = []
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        if not isinstance(node, yaml.MappingNode):
            raise MisplacedError([Problem(name, 1, "", "holds no keys", "write `key: value` lines")])
        for at, line, complaint in _walk(node, ()):
            lines.setdefault(at, line)
            if complaint:
                problems.append(Problem(name, line, dotted(at), complaint, "keep one key, written as text"))
        if problems:
            raise MisplacedError(problems)
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        found = Problem(name, line, "", f"no YAML: {error.problem}", "correct the syntax")
        raise MisplacedError([found]) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        found = Problem(name, 1, "", "no readable text", "save it as UTF-8 YAML")
        raise MisplacedError([found]) from error
    return Document(name, value, lines)


def _walk(node: yaml.Node, at: At) -> Iterator[tuple[At, int, str]]:
    """(path, line, complaint or "") of every key and list entry below a node."""
    yield at, node.start_mark.line + 1, ""
    if isinstance(node, yaml.SequenceNode):
        for n, child in enumerate(node.value):
            yield from _walk(child, (*at, n))
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, child in node.value:
            text = str(key.value)
            here, line = (*at, text), key.start_mark.line + 1
            plain = key.tag == "tag:yaml.org,2002:str"
            complaint = "" if plain else "a key that is no text"
            yield here, line, "the key appears twice" if text in seen else complaint
            seen.add(text)
            yield from _walk(child, here)


def parse[M: BaseModel](
    model: type[M], document: Document, *, at: At = (), given: Mapping[str, Any] | None = None
) -> tuple[M | None, list[Problem]]:
    """The document (or the part at `at`) as a model, or its problems.

    `given` are fields that come from the file's place and may not stand in the file.
    """
    value = document.at(at)
    if not isinstance(value, dict):
        return None, [document.problem(at, "is no mapping", "write `key: value` lines below it")]
    if taken := [key for key in given or {} if key in value]:
        fix = "remove it: it follows from the file's place"
        return None, [document.problem((*at, key), "unknown key", fix) for key in taken]
    try:
        return model.model_validate({**value, **(given or {})}), []
    except ValidationError as error:
        return None, document.problems(error, at)

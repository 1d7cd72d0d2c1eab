"""JSON with the line of every key: strictly what RFC 8259 says, which YAML readers do not quite accept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from engine.located import At, Document, MisplacedError, Problem, dotted

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


def read_json(path: Path, *, root: Path) -> Document:
    """Read one file; its name in problems is relative to `root`.

    Raises MisplacedError for a syntax error, a key that appears twice, or anything but an object.
    """
    name = path.relative_to(root).as_posix()
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise MisplacedError([Problem(name, 1, "", "is no UTF-8 text", "save it as UTF-8")]) from error
    except json.JSONDecodeError as error:
        said = f"is no JSON: {error.msg[:1].lower()}{error.msg[1:]} (column {error.colno})"
        raise MisplacedError([Problem(name, error.lineno, "", said, "correct the syntax")]) from error
    except (ValueError, RecursionError) as error:
        raise MisplacedError([Problem(name, 1, "", f"is no JSON: {error}", "correct the value")]) from error
    if not isinstance(value, dict):
        raise MisplacedError([Problem(name, 1, "", "is no object", 'write { "key": value }')])
    lines: dict[At, int] = {}
    twice: list[Problem] = []
    for at, line in _places(text):
        if at in lines:
            twice.append(Problem(name, line, dotted(at), "the key appears twice", "keep one of them"))
        lines.setdefault(at, line)
    if twice:
        raise MisplacedError(twice)
    return Document(name, value, lines)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _places(text: str) -> Iterator[tuple[At, int]]:
    """(path, line from 1) of the whole, and of every key and entry, of a text that is known to be JSON."""
    yield (), 1
    stack: list[tuple[At, Any]] = []
    here: At = ()
    line, seen, after = 1, 0, ""
    for match in TOKEN.finditer(text):
        part = match[0]
        line, seen = line + text.count("\n", seen, match.start()), match.start()
        if stack and stack[-1][1] is not None and part != "]" and after in ("[", ","):
            here = (*stack[-1][0], stack[-1][1])
            yield here, line
        if part in "{[":
            stack.append((here, 0 if part == "[" else None))
        elif part in "}]":
            stack.pop()
        elif part == "," and stack[-1][1] is not None:
            stack[-1] = (stack[-1][0], stack[-1][1] + 1)
        elif stack and stack[-1][1] is None and after in ("{", ","):
            here = (*stack[-1][0], json.loads(part))
            yield here, line
        after = part

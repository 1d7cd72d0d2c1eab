"""Which tables SQL text names, and whether it stays within the dataset that it is given."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.procedures.sql_text import SqlError, Token, tokens

#: What stands after these names a table, unless it is a function.
_READING = frozenset({"FROM", "JOIN", "USING", "LIKE", "CLONE", "COPY"})
_WRITING = frozenset({"INTO", "UPDATE", "MERGE", "INSERT", "DELETE", "TABLE", "VIEW", "CALL", "SCHEMA", "TO"})
_BETWEEN = frozenset({"IF", "NOT", "EXISTS", "INTO", "FROM", "TABLE"})
#: Words after which no table stands, though the one before promised it.
_NO_NAME = frozenset({"SET", "WHERE", "VALUES", "SELECT", "UNNEST", "ALL", "COLUMN", "ROW", "BY", "ON", "AS"})
_FREE = frozenset({"INFORMATION_SCHEMA", "_SESSION"})
_PLACEHOLDER = re.compile(r"%[stT]|@\w+")
_SPEAKS_SQL = re.compile(
    r"\s*\(?\s*(SELECT|WITH|INSERT|UPDATE|DELETE|MERGE|CREATE|DROP|ALTER|TRUNCATE|FROM|JOIN|CALL|INTO|TABLE)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Named:
    """A table as the text names it: its parts (project, dataset, table), and whether it is written to."""

    parts: tuple[str, ...]
    line: int
    written: bool

    @property
    def table(self) -> str:
        """The name without dataset."""
        return self.parts[-1]


def named(taken: Sequence[Token]) -> tuple[Named, ...]:
    """Every table that the tokens name, but for WITH names and temporary tables; strings are not read."""
    own = _own(taken)
    return tuple(
        one
        for one in _paths(taken)
        if not (len(one.parts) == 1 and one.table.lower() in own) and one.parts[0].upper() not in _FREE
    )


def refuse_datasets(taken: Sequence[Token], *, bare: bool) -> None:
    """Refuse a name with a dataset, in the code and in strings that hold SQL; `bare` allows names without.

    Raises SqlError with the line. What a script puts together from pieces cannot be seen.
    """
    for one in named(taken):
        if len(one.parts) > 1:
            raise _foreign(".".join(one.parts), one.line, bare=bare)
        if not bare:
            raise SqlError(
                f"Table {one.table} is named outside of dynamic SQL, where no dataset is known.",
                line=one.line,
                fix="Reach it by EXECUTE IMMEDIATE FORMAT with `%s.name` and the parameter dataset.",
            )
    for token in taken:
        if token.kind == "name" and _is_foreign(token.content):
            raise _foreign(token.content, token.line, bare=bare)
        if token.kind == "string":
            _refuse_in_string(token, bare=bare)


def _refuse_in_string(string: Token, *, bare: bool) -> None:
    content = string.content
    for match in re.finditer(r"`([^`\n]+)`", content):
        if _is_foreign(match[1]):
            raise _foreign(match[1], string.line + content.count("\n", 0, match.start()), bare=bare)
    if not _SPEAKS_SQL.match(content):
        return
    try:
        inner = tokens(content)
    except SqlError:
        # A piece of a statement: its quotes may be closed in the next one.
        return
    for one in named(inner):
        if len(one.parts) > 1 and _is_foreign(".".join(one.parts)):
            raise _foreign(".".join(one.parts), string.line + one.line - 1, bare=bare)


def _is_foreign(path: str) -> bool:
    dataset = path.split(".")[:-1]
    return any(part and not _PLACEHOLDER.fullmatch(part) and part.upper() not in _FREE for part in dataset)


def _foreign(path: str, line: int, *, bare: bool) -> SqlError:
    fix = (
        "Name the table alone: it is the dataset's that the statement is run on."
        if bare
        else "Take the dataset from the parameter: FORMAT('... `%s.name` ...', dataset)."
    )
    return SqlError(f"{path} names a dataset.", line=line, fix=fix)


def _own(taken: Sequence[Token]) -> set[str]:
    """Names that the text makes itself: WITH names, temporary tables, and the functions it calls."""
    own: set[str] = set()
    for n, token in enumerate(taken):
        following = [part.text.upper() for part in taken[n + 1 : n + 3]]
        if token.kind in ("word", "name") and following == ["AS", "("]:
            own.add(token.content.lower())
        if token.word in ("TEMP", "TEMPORARY"):
            rest = [part for part in taken[n + 1 : n + 6] if part.word not in (_BETWEEN | {"FUNCTION"})]
            own.update(part.content.lower() for part in rest[:1])
    return own


def _paths(taken: Sequence[Token]) -> Iterator[Named]:
    functions: list[str] = []
    for n, token in enumerate(taken):
        before = taken[n - 1].word if n else ""
        if token.text == "(":
            functions.append(before)
        elif token.text == ")" and functions:
            functions.pop()
        elif token.word in _READING | _WRITING and not _is_no_clause(taken, n, functions):
            place = n + 1
            while place < len(taken) and taken[place].word in _BETWEEN:
                place += 1
            parts, after = _path(taken, place)
            function = after < len(taken) and taken[after].text == "(" and token.word in _READING
            if parts and not function:
                yield Named(parts, taken[place].line, token.word in _WRITING)


def _is_no_clause(taken: Sequence[Token], n: int, functions: Sequence[str]) -> bool:
    """EXTRACT(DAY FROM day), IS DISTINCT FROM, x LIKE 'a', DELETE FROM: words that no table stands after."""
    word, before = taken[n].word, taken[n - 1].word if n else ""
    following = taken[n + 1].word if n + 1 < len(taken) else ""
    return (
        (word == "FROM" and (before in ("DISTINCT", "DELETE") or functions[-1:] in (["EXTRACT"], ["TRIM"])))
        or (word in ("INTO", "TABLE") and before in ("INSERT", "MERGE"))
        or (word in ("LIKE", "CLONE", "COPY") and not _defines(taken, n))
        or (word == "INTO" and before not in ("INSERT", "MERGE", "DATA"))
        or (word == "USING" and not _merges(taken, n))
        or (word == "TO" and before != "RENAME")
        or (word == "TABLE" and before in ("TEMP", "TEMPORARY"))
        or following in _NO_NAME
    )


def _defines(taken: Sequence[Token], n: int) -> bool:
    """CREATE TABLE name LIKE other: the statement began at most eight tokens before."""
    return any(token.word == "CREATE" for token in taken[max(0, n - 10) : n])


def _merges(taken: Sequence[Token], n: int) -> bool:
    return any(token.word == "MERGE" for token in taken[max(0, n - 8) : n])


def _path(taken: Sequence[Token], place: int) -> tuple[tuple[str, ...], int]:
    """The dotted name at a place, and the place after it."""
    parts: list[str] = []
    while place < len(taken) and taken[place].kind in ("word", "name") and taken[place].word not in _NO_NAME:
        parts += taken[place].content.split(".")
        place += 1
        # A project may have dashes, also without backticks.
        while place + 1 < len(taken) and taken[place].text == "-" and taken[place + 1].kind == "word":
            parts[-1] += f"-{taken[place + 1].text}"
            place += 2
        if place < len(taken) and taken[place].text == ".":
            place += 1
            continue
        break
    return tuple(part for part in parts if part), place

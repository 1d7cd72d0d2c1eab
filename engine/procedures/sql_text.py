"""GoogleSQL as text: tokens with their lines, statements of a script, and the tables that it names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.errors import ConfigurationError

Kind = Literal["word", "name", "string", "number", "parameter", "mark"]

_TOKEN = re.compile(
    r"""
      (?P<blank>\s+|--[^\n]*|\#[^\n]*|/\*.*?\*/)
    | (?P<string>(?i:rb|br|r|b)?(?:\"{3}(?:\\.|(?!\"{3}).)*\"{3}|'{3}(?:\\.|(?!'{3}).)*'{3}
                              |\"(?!\"\")(?:\\.|[^\"\\\n])*\"|'(?!'')(?:\\.|[^'\\\n])*'|\"\"|''))
    | (?P<name>`(?:\\.|[^`\\\n])*`)
    | (?P<parameter>@@?[A-Za-z_][\w.]*)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<number>\d[\w.]*)
    | (?P<open>/\*|"|'|`)
    | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_UNCLOSED = {"/*": "comment", '"': "string", "'": "string", "`": "name in backticks"}
_QUOTES = re.compile(r"^[A-Za-z]{0,2}(\"{3}|'{3}|\"|')(.*)\1$", re.DOTALL)

#: Words that a statement, or a part of a block, can begin with.
BEGINNINGS = re.compile(
    "ALTER|ASSERT|BEGIN|BREAK|CALL|CASE|COMMIT|CONTINUE|CREATE|DECLARE|DELETE|DROP|ELSE|ELSEIF|END|EXCEPTION"
    "|EXECUTE|EXPORT|FOR|FROM|GRANT|IF|INSERT|ITERATE|LEAVE|LOAD|LOOP|MERGE|RAISE|REPEAT|RETURN|REVOKE"
    "|ROLLBACK|SELECT|SET|TRUNCATE|UNDROP|UNTIL|UPDATE|WHEN|WHILE|WITH"
)
_BLOCKS = frozenset({"BEGIN", "CASE", "FOR", "IF", "LOOP", "REPEAT", "WHILE"})
#: After END, the word that has to come back.
_CLOSING = _BLOCKS - {"BEGIN"}
_OPENING = {"(": ")", "[": "]", "{": "}"}
#: A CASE within an expression ends with END alone.
_CASE_VALUE = "CASE expression"


class SqlError(ConfigurationError):
    """SQL text that cannot be taken apart; `line` counts from 1."""

    def __init__(self, message: str, *, line: int, fix: str = "Correct the statement.") -> None:
        super().__init__(message, fix=fix)
        self.line = line


@dataclass(frozen=True, slots=True)
class Token:
    """One token; `line` counts from 1, `start` and `end` are places in the text."""

    kind: Kind
    text: str
    line: int
    start: int
    end: int

    @property
    def word(self) -> str:
        """The upper-case text of a bare word, else nothing: a quoted name is never a keyword."""
        return self.text.upper() if self.kind == "word" else ""

    @property
    def content(self) -> str:
        """What stands between a string's quotes or a name's backticks, as written."""
        if self.kind == "name":
            return self.text[1:-1]
        found = _QUOTES.match(self.text)
        return found[2] if self.kind == "string" and found else self.text


@dataclass(frozen=True, slots=True)
class Statement:
    """One top-level statement, blocks with all that is in them; without its semicolon."""

    text: str
    line: int
    tokens: tuple[Token, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The keywords it begins with, at most eight tokens of it."""
        return tuple(token.word for token in self.tokens[:8])


def tokens(sql: str) -> tuple[Token, ...]:
    """Take SQL apart, comments left out. Raises SqlError for what is never closed."""
    found: list[Token] = []
    line, place = 1, 0
    while place < len(sql):
        match = _TOKEN.match(sql, place)
        if match is None:  # pragma: no cover - the last alternative takes any character
            raise SqlError(f"Unexpected {sql[place]!r}.", line=line)
        kind, text = str(match.lastgroup), match[0]
        if kind == "open":
            raise SqlError(f"The {_UNCLOSED[text]} that begins here is never closed.", line=line)
        if kind != "blank":
            found.append(Token(kind, text, line, place, match.end()))  # type: ignore[arg-type]
        line += text.count("\n")
        place = match.end()
    return tuple(found)


def statements(sql: str) -> tuple[Statement, ...]:
    """The top-level statements of a script, in order.

    Raises SqlError with the line for blocks and parentheses that do not match, and for a statement that
    begins with a word that no statement begins with.
    """
    walk = _Walk(tokens(sql))
    made = []
    for first, last in walk.ranges():
        part = walk.tokens[first:last]
        made.append(Statement(sql[part[0].start : part[-1].end], part[0].line, part))
    return tuple(made)


@dataclass(frozen=True, slots=True)
class _Open:
    """A block or parenthesis that waits for its end."""

    what: str
    line: int


class _Walk:
    """Goes through tokens once and knows at each where a statement may begin."""

    def __init__(self, taken: Sequence[Token]) -> None:
        self.tokens = tuple(taken)
        self._stack: list[_Open] = []
        self._begins = True
        self._procedure = False
        #: Tokens that belong to the one before: the IF of END IF, the colon of a label.
        self._spoken_for = -1

    def ranges(self) -> list[tuple[int, int]]:
        """Where each top-level statement begins and ends."""
        found: list[tuple[int, int]] = []
        first = 0
        for n, token in enumerate(self.tokens):
            if token.text == ";" and not self._stack:
                if first < n:
                    found.append((first, n))
                first, self._begins, self._procedure = n + 1, True, False
            elif n != self._spoken_for:
                self._take(n, token)
        if self._stack:
            left = self._stack[-1]
            raise SqlError(f"The {left.what} that begins here has no end.", line=left.line)
        if first < len(self.tokens):
            found.append((first, len(self.tokens)))
        return found

    def _take(self, n: int, token: Token) -> None:
        begins, top = self._begins, self._stack[-1].what if self._stack else ""
        if begins and token.text not in (";", "("):
            if self._text(n + 1) == ":":
                self._spoken_for = n + 1
                return
            if not BEGINNINGS.fullmatch(token.word):
                raise SqlError(f"No statement begins with {token.text[:40]}.", line=token.line)
        self._begins = token.text == ";"
        if token.kind == "mark":
            self._take_mark(token, top)
        elif token.kind == "word":
            self._take_word(n, token, top, begins=begins)

    def _take_mark(self, token: Token, top: str) -> None:
        if token.text in _OPENING:
            self._stack.append(_Open(token.text, token.line))
        elif token.text in _OPENING.values():
            if _OPENING.get(top) != token.text:
                raise SqlError(f"Nothing is open that this {token.text} could close.", line=token.line)
            self._stack.pop()
        elif token.text == ";" and (top in _OPENING or top == _CASE_VALUE):
            raise SqlError(f"The {top} is not closed before the statement ends.", line=token.line)

    def _take_word(self, n: int, token: Token, top: str, *, begins: bool) -> None:
        word = token.word
        if word == "END":
            self._end(n, token, top)
        elif self._opens(n, word, begins=begins):
            self._stack.append(_Open(word, token.line))
            self._begins = word in ("BEGIN", "LOOP", "REPEAT")
        elif word == "CASE":
            self._stack.append(_Open(_CASE_VALUE, token.line))
        elif word in ("THEN", "ELSE"):
            self._begins = top in ("IF", "BEGIN", "CASE")
        elif word == "DO":
            self._begins = top in ("FOR", "WHILE")
        elif word == "PROCEDURE" and "CREATE" in (self._word(n - 1), self._word(n - 3)):
            self._procedure = True

    def _opens(self, n: int, word: str, *, begins: bool) -> bool:
        if word == "BEGIN":
            body = self._procedure and not self._stack
            return body or (begins and self._text(n + 1).upper() not in ("TRANSACTION", ";", ""))
        return begins and word in _BLOCKS

    def _end(self, n: int, token: Token, top: str) -> None:
        if top not in _BLOCKS and top != _CASE_VALUE:
            raise SqlError("Nothing is open that this END could end.", line=token.line)
        opened = self._stack.pop()
        if opened.what in _CLOSING:
            if self._word(n + 1) != opened.what:
                said = f"The {opened.what} of line {opened.line} ends with END {opened.what}"
                raise SqlError(f"{said}; here stands END {self._text(n + 1)}.", line=token.line)
            self._spoken_for = n + 1

    def _text(self, n: int) -> str:
        return self.tokens[n].text if 0 <= n < len(self.tokens) else ""

    def _word(self, n: int) -> str:
        return self.tokens[n].word if 0 <= n < len(self.tokens) else ""

"""Procedure files, procedures/{domain}/{name}.sql: read, checked and taken apart (docs/procedures.md)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.located import Problem
from engine.procedures.sql_tables import refuse_datasets
from engine.procedures.sql_text import SqlError, Statement, Token, statements

#: Everything under procedures/ but this folder is stored procedures.
MIGRATIONS = "migrations"
SCALARS = (
    *("BIGNUMERIC", "BOOL", "BYTES", "DATE", "DATETIME", "FLOAT64"),
    *("INT64", "JSON", "NUMERIC", "STRING", "TIME", "TIMESTAMP"),
)
#: Parameters that the executor binds, and their type.
BOUND = {"dataset": "STRING", "staging": "STRING"}
_SNAKE = re.compile(r"[a-z][a-z0-9_]*")
_HASH_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Argument:
    """A parameter of a procedure; `type` as BigQuery spells it: "DATE", "ARRAY<STRING>"."""

    name: str
    type: str

    def __str__(self) -> str:
        return f"{self.name} {self.type}"


@dataclass(frozen=True, slots=True)
class Definition:
    """What a procedure is, wherever it was read: two equal ones are the same procedure."""

    arguments: tuple[Argument, ...]
    body: str

    @property
    def text(self) -> str:
        """Parameters and body as lines, in one form for the file's and the warehouse's."""
        signature = ",\n  ".join(map(str, self.arguments))
        inner = _canonical(self.body)
        return f"(\n  {signature}\n)\nBEGIN\n{inner}\nEND\n"

    @property
    def content_hash(self) -> str:
        """SHA-256 over `text`, in hexadecimal."""
        return hashlib.sha256(f"{_HASH_VERSION}\n{self.text}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ProcedureFile:
    """One checked file. `file` is relative to the root; `body_line` is where its BEGIN stands, from 1."""

    name: str
    domain: str
    file: str
    body_line: int
    definition: Definition
    sql: str

    def statement(self, reference: str) -> str:
        """The file's own text with the procedure's name qualified: lines stay where they are."""
        head, _, rest = self.sql.partition(self.name)
        return f"{head}`{reference}`{rest}"


@dataclass(frozen=True, slots=True)
class FilesRead:
    """The procedures whose files are right, by name, and what is wrong with the others."""

    procedures: dict[str, ProcedureFile]
    problems: tuple[Problem, ...]


def read_procedures(root: Path) -> FilesRead:
    """Read every procedure file under `root`/procedures, without asking BigQuery."""
    found: dict[str, ProcedureFile] = {}
    problems: list[Problem] = []
    folder = root / "procedures"
    for path in sorted(folder.glob("**/*.sql")):
        place = path.relative_to(folder).parts
        file = path.relative_to(root).as_posix()
        if place[0] == MIGRATIONS:
            continue
        if len(place) != 2:
            fix = "move it to procedures/{domain}/{name}.sql"
            problems.append(Problem(file, 1, "", "does not lie in a domain's folder", fix))
            continue
        try:
            made = procedure_of(path.read_text("utf-8"), domain=place[0], stem=path.stem, file=file)
        except UnicodeDecodeError:
            problems.append(Problem(file, 1, "", "is not UTF-8", "save it as UTF-8"))
        except SqlError as error:
            problems.append(located(error, file))
        else:
            found[made.name] = made
    return FilesRead(found, tuple(problems))


def located(error: SqlError, file: str) -> Problem:
    """The error as `file:line: field: problem: fix`."""
    fix = error.fix.rstrip(".")
    return Problem(file, error.line, "", error.message.rstrip("."), fix[:1].lower() + fix[1:])


def procedure_of(sql: str, *, domain: str, stem: str, file: str) -> ProcedureFile:
    """Take one file apart. Raises SqlError with the line for anything but one well-formed procedure."""
    sql = sql.replace("\r\n", "\n")
    wanted = f"{domain}_{stem}"
    if not (_SNAKE.fullmatch(domain) and _SNAKE.fullmatch(stem)):
        raise SqlError(f"{domain}/{stem}.sql is not snake_case.", line=1, fix="Rename the folder or file.")
    made = statements(sql)
    if not made:
        raise SqlError(
            "The file holds no statement.", line=1, fix=f"Write CREATE OR REPLACE PROCEDURE {wanted}."
        )
    if len(made) > 1:
        raise SqlError(
            "A second statement begins here.",
            line=made[1].line,
            fix="Keep one CREATE OR REPLACE PROCEDURE in a file; what changes tables once is a migration.",
        )
    return _procedure(made[0], sql, wanted=wanted, domain=domain, file=file)


def _procedure(one: Statement, sql: str, *, wanted: str, domain: str, file: str) -> ProcedureFile:
    if one.words[:4] != ("CREATE", "OR", "REPLACE", "PROCEDURE"):
        raise SqlError(
            "The file does not begin with CREATE OR REPLACE PROCEDURE.",
            line=one.line,
            fix=f"Write CREATE OR REPLACE PROCEDURE {wanted}(...) BEGIN ... END.",
        )
    name, opening = one.tokens[4], next((n for n, t in enumerate(one.tokens) if t.text == "("), 0)
    if opening != 5 or name.text != wanted:
        said = "".join(token.text for token in one.tokens[4 : opening or 5])
        raise SqlError(
            f"The procedure is called {said}.",
            line=name.line,
            fix=f"Call it {wanted}, after its folder and file, without dataset and backticks.",
        )
    closing = _closing(one.tokens, opening)
    body = one.tokens[closing + 1 :]
    if not body or body[0].word != "BEGIN" or body[-1].word != "END":
        at = body[0] if body else one.tokens[-1]
        raise SqlError(
            f"After the parameters stands {at.text}, not BEGIN ... END.",
            line=at.line,
            fix="Leave OPTIONS and what else stands there out: Manta writes the description.",
        )
    refuse_datasets(body, bare=False)
    text = sql[body[0].start : body[-1].end]
    definition = Definition(_arguments(one.tokens[opening + 1 : closing]), text)
    return ProcedureFile(wanted, domain, file, body[0].line, definition, sql)


def _closing(taken: Sequence[Token], opening: int) -> int:
    depth = 0
    for n in range(opening, len(taken)):
        depth += {"(": 1, ")": -1}.get(taken[n].text, 0)
        if depth == 0:
            return n
    raise SqlError("The parameters are never closed.", line=taken[opening].line)


def _arguments(taken: Sequence[Token]) -> tuple[Argument, ...]:
    if not taken:
        return ()
    parts: list[list[Token]] = [[]]
    for token in taken:
        if token.text == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    made: list[Argument] = []
    for part in parts:
        argument = _argument(part, line=part[0].line if part else taken[0].line)
        if argument.name in [other.name for other in made]:
            raise SqlError(f"Parameter {argument.name} stands there twice.", line=part[0].line)
        made.append(argument)
    return tuple(made)


def _argument(part: Sequence[Token], *, line: int) -> Argument:
    words = [token.text for token in part]
    if words and words[0].upper() in ("OUT", "INOUT"):
        raise SqlError(
            f"Parameter {' '.join(words)} gives back a value, which nothing reads.",
            line=line,
            fix="Return rows through the staging table.",
        )
    if words and words[0].upper() == "IN":
        words = words[1:]
    name, kind = (words[0] if words else ""), "".join(words[1:]).upper()
    if not _SNAKE.fullmatch(name):
        raise SqlError(f"{name or 'Nothing'!r} is no parameter's name.", line=line, fix="Use snake_case.")
    element = kind.removeprefix("ARRAY<").removesuffix(">") if kind.endswith(">") else kind
    if element not in SCALARS:
        raise SqlError(
            f"Parameter {name} is of type {kind or 'nothing'}.",
            line=line,
            fix=f"Use {', '.join(SCALARS)}, or ARRAY<one of them>.",
        )
    if BOUND.get(name, kind) != kind:
        raise SqlError(
            f"Parameter {name} is bound by Manta as {BOUND[name]}.", line=line, fix="Correct its type."
        )
    return Argument(name, kind)


def _canonical(body: str) -> str:
    """The statements between BEGIN and END: BigQuery may give a body back with or without the two."""
    text = "\n".join(line.rstrip() for line in body.replace("\r\n", "\n").split("\n"))
    bare = text.strip()
    if bare[:5].upper() == "BEGIN" and bare[-3:].upper() == "END":
        text = bare[5:-3]
    return text.strip("\n").rstrip()

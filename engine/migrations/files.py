"""Migration files, procedures/migrations/NNN_name.sql: read, checked and taken apart (docs/procedures.md)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from engine.located import Problem
from engine.procedures.files import MIGRATIONS, located
from engine.procedures.sql_tables import named, refuse_datasets
from engine.procedures.sql_text import SqlError, Statement, statements, tokens

Scope = Literal["tenant", "central"]
NAME = re.compile(r"(\d{3,})_[a-z0-9_]+")
_HEADER = re.compile(r"--\s*(?P<key>[a-z]+)\s*:\s*(?P<value>.*?)\s*")
_TABLE = re.compile(r"[A-Za-z_]\w*")
#: Statements that do not belong into a migration, and where they belong.
_ELSEWHERE = {
    ("CREATE", "PROCEDURE"): "give the procedure a file of its own under procedures/{domain}",
    ("CREATE", "SCHEMA"): "datasets are made by manta org add",
    ("ALTER", "SCHEMA"): "datasets are made by manta org add",
    ("DROP", "SCHEMA"): "datasets go with manta org purge",
    ("DECLARE", ""): "put it into a BEGIN ... END block: every statement is a job of its own",
    ("SET", ""): "put it into a BEGIN ... END block: every statement is a job of its own",
}


@dataclass(frozen=True, slots=True)
class Part:
    """What runs as one job: a statement, a block, or a transaction from BEGIN to COMMIT."""

    sql: str
    line: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MigrationFile:
    """One checked file. `requires` are tables: a dataset that lacks one has nothing to migrate."""

    number: int
    name: str
    file: str
    scope: Scope
    requires: tuple[str, ...]
    parts: tuple[Part, ...]
    checksum: str

    def checksum_of(self, first: int) -> str:
        """A hash of the first parts: whether what ran already still stands in the file."""
        return _hash("\n;\n".join(part.sql for part in self.parts[:first]))


@dataclass(frozen=True, slots=True)
class MigrationsRead:
    """The migrations whose files are right, in order, and what is wrong with the others."""

    migrations: tuple[MigrationFile, ...]
    problems: tuple[Problem, ...]


def read_migrations(root: Path) -> MigrationsRead:
    """Read every migration file under `root`, without asking BigQuery."""
    found: list[MigrationFile] = []
    problems: list[Problem] = []
    for path in sorted((root / "procedures" / MIGRATIONS).glob("**/*.sql")):
        file = path.relative_to(root).as_posix()
        try:
            made = migration_of(path.read_text("utf-8"), name=path.stem, file=file)
        except UnicodeDecodeError:
            problems.append(Problem(file, 1, "", "is not UTF-8", "save it as UTF-8"))
        except SqlError as error:
            problems.append(located(error, file))
        else:
            same = next((other for other in found if other.number == made.number), None)
            if same is not None:
                said = f"has the number of {same.file.rpartition('/')[2]}"
                problems.append(Problem(file, 1, "", said, "give it the next free number"))
            found.append(made)
    return MigrationsRead(tuple(sorted(found, key=lambda one: one.number)), tuple(problems))


def migration_of(sql: str, *, name: str, file: str) -> MigrationFile:
    """Take one file apart. Raises SqlError with the line."""
    sql = sql.replace("\r\n", "\n")
    match = NAME.fullmatch(name)
    if match is None:
        raise SqlError(f"{name}.sql is no migration's name.", line=1, fix="Call it NNN_what_it_does.sql.")
    scope, requires = _header(sql)
    refuse_datasets(tokens(sql), bare=True)
    made = tuple(_parts(sql))
    if not made:
        raise SqlError("The file holds no statement.", line=1, fix="Write what it changes.")
    return MigrationFile(int(match[1]), name, file, scope, requires, made, _hash(sql))


def _header(sql: str) -> tuple[Scope, tuple[str, ...]]:
    """What the comments at the top say: `-- scope: tenant`, `-- requires: table, table`."""
    said: dict[str, tuple[str, int]] = {}
    for number, text in enumerate(sql.split("\n"), start=1):
        if text.strip() and not text.startswith("--"):
            break
        match = _HEADER.fullmatch(text)
        if match and match["key"] in ("scope", "requires"):
            said[match["key"]] = (match["value"], number)
    scope, line = said.get("scope", ("", 1))
    if scope not in get_args(Scope):
        raise SqlError(
            f"The scope is {scope!r}." if scope else "The file does not say its scope.",
            line=line,
            fix="Begin it with `-- scope: tenant` or `-- scope: central`.",
        )
    tables, line = said.get("requires", ("", 1))
    names = tuple(name.strip() for name in tables.split(",")) if tables else ()
    if wrong := [name for name in names if not _TABLE.fullmatch(name)]:
        raise SqlError(
            f"requires names {wrong[0]!r}, which is no table.", line=line, fix="Name tables, with commas."
        )
    return ("tenant" if scope == "tenant" else "central"), names


def _parts(sql: str) -> Iterator[Part]:
    """Statements, those of a transaction together: in jobs of their own they would be none."""
    held: list[Statement] = []
    for one in statements(sql):
        words = one.words
        for (first, thing), where in _ELSEWHERE.items():
            if words[0] == first and (not thing or thing in words[1:5]):
                raise SqlError(
                    f"{first} {thing}".strip() + " has no place in a migration.", line=one.line, fix=where
                )
        held.append(one)
        opens = held[0].words[:2] == ("BEGIN", "TRANSACTION") or held[0].text.upper() == "BEGIN"
        if not opens or words[0] in ("COMMIT", "ROLLBACK"):
            yield _part(sql, held)
            held = []
    if held:
        raise SqlError("The transaction that begins here is not committed.", line=held[0].line)


def _part(sql: str, held: list[Statement]) -> Part:
    taken = tuple(token for one in held for token in one.tokens)
    found = named(taken)
    writes = {one.table for one in found if one.written}
    reads = {one.table for one in found} - writes
    text = sql[held[0].tokens[0].start : held[-1].tokens[-1].end]
    return Part(text, held[0].line, tuple(sorted(reads)), tuple(sorted(writes)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

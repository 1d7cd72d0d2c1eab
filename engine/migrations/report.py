"""What migrations did, or in a dry run would do, dataset by dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.migrations.files import MigrationFile


@dataclass(frozen=True, slots=True)
class Touched:
    """A table that a migration names; `rows` is None where the table is not there or is a view."""

    table: str
    written: bool
    exists: bool
    rows: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One migration in one dataset. `done` statements of `statements` have run, in all."""

    org: str
    dataset: str
    migration: str
    state: Literal["pending", "applied", "skipped", "unchanged", "refused", "failed"]
    statements: int
    done: int
    touched: tuple[Touched, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What was done, or in a dry run would be, dataset by dataset."""

    dry_run: bool
    migrations: tuple[MigrationFile, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing failed or was refused."""
        return not any(one.state in ("failed", "refused") for one in self.outcomes)

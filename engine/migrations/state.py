"""Where a dataset stands with its migrations, and what may be done next: pure, without a warehouse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.errors import StateError
from engine.migrations.files import MigrationFile

#: STARTED: under way, or its process died; what ran is in `done`. SKIPPED: a required table is not there.
RecordState = Literal["STARTED", "APPLIED", "SKIPPED", "FAILED"]
FINISHED = ("APPLIED", "SKIPPED")


@dataclass(frozen=True, slots=True)
class Record:
    """The last word on one migration in one dataset."""

    org: str
    dataset: str
    name: str
    number: int
    checksum: str
    state: RecordState
    attempt: int
    done: int
    done_checksum: str
    version: int
    error: str | None = None

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.state in FINISHED


@dataclass(frozen=True, slots=True)
class Start:
    """Run the parts from `first` on (counted from 0), as this attempt, from this record's version on."""

    first: int
    attempt: int
    version: int


def next_start(
    wanted: MigrationFile, files: Sequence[MigrationFile], records: Mapping[str, Record]
) -> Start | None:
    """What to do about one migration in a dataset with these records; None when it is done already.

    `files` are all of its scope. Raises StateError: for one that was changed after it was applied, one whose
    file is gone, an earlier one that is open, a later one that is applied.
    """
    refuse_changed(files, records)
    record = records.get(wanted.name)
    if record is not None and record.finished:
        return None
    for other in files:
        there = records.get(other.name)
        finished = there is not None and there.finished
        if other.number < wanted.number and not finished:
            raise StateError(
                f"{wanted.name} comes after {other.name}, which is not applied.",
                fix=f"Apply {other.name} first.",
            )
        if other.number > wanted.number and finished:
            raise StateError(
                f"{other.name} is applied already and comes after {wanted.name}.",
                fix=f"Give {wanted.name} the next free number.",
            )
    if record is None:
        return Start(0, 1, 0)
    if record.state == "STARTED" and record.checksum != wanted.checksum:
        # What its process did last may not be on record.
        raise StateError(
            f"{wanted.file} was changed while it was under way in {record.dataset}.",
            fix="Bring it back as it was and apply it; change things in a new migration.",
        )
    if record.done_checksum != wanted.checksum_of(record.done):
        raise StateError(
            f"The first {record.done} statements of {wanted.name} ran before the file was changed.",
            fix="Bring them back as they were, and change only what comes after them.",
        )
    return Start(record.done, record.attempt + (record.state == "FAILED"), record.version)


def refuse_changed(files: Sequence[MigrationFile], records: Mapping[str, Record]) -> None:
    """Raise StateError when what was applied is not what the files say now."""
    by_name = {one.name: one for one in files}
    for record in sorted(records.values(), key=lambda one: one.number):
        if not record.finished:
            continue
        file = by_name.get(record.name)
        if file is None:
            raise StateError(
                f"{record.name} was applied to {record.dataset}, and its file is gone.",
                fix=f"Bring back procedures/migrations/{record.name}.sql.",
            )
        if file.checksum != record.checksum:
            raise StateError(
                f"{file.file} was changed after it was applied to {record.dataset}.",
                fix="Bring it back as it was, and write a new migration.",
            )

"""What may be done about a migration, given what is on record of a dataset."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.errors import StateError
from engine.migrations.files import MigrationFile, migration_of
from engine.migrations.state import Record, RecordState, Start, next_start


def file(number: int, sql: str = "SELECT 1; SELECT 2; SELECT 3") -> MigrationFile:
    name = f"{number:03}_step"
    return migration_of(f"-- scope: tenant\n{sql}", name=name, file=f"procedures/migrations/{name}.sql")


def record(of: MigrationFile, state: RecordState, done: int = 3, attempt: int = 1) -> Record:
    return Record(
        "acme",
        "acme_local",
        of.name,
        of.number,
        of.checksum,
        state,
        attempt,
        done,
        of.checksum_of(done),
        version=5,
    )


FILES = [file(1), file(2), file(3)]
ONE, TWO, THREE = FILES


def start(of: MigrationFile, *records: Record, files: list[MigrationFile] = FILES) -> Start | None:
    return next_start(of, files, {one.name: one for one in records})


def test_the_first_one_begins_at_its_first_statement() -> None:
    assert start(ONE) == Start(0, 1, 0)


def test_an_applied_or_skipped_one_is_not_run_twice() -> None:
    assert start(ONE, record(ONE, "APPLIED")) is None
    assert start(ONE, record(ONE, "SKIPPED", done=0)) is None


def test_the_next_one_may_follow() -> None:
    assert start(TWO, record(ONE, "SKIPPED", done=0)) == Start(0, 1, 0)


def test_one_that_was_killed_goes_on_where_it_was_as_the_same_attempt() -> None:
    assert start(ONE, record(ONE, "STARTED", done=1)) == Start(1, 1, 5)


def test_one_that_failed_goes_on_where_it_failed_as_a_new_attempt() -> None:
    assert start(ONE, record(ONE, "FAILED", done=2, attempt=3)) == Start(2, 4, 5)


def test_what_failed_may_be_corrected_and_what_ran_may_not() -> None:
    mended, other = file(1, "SELECT 1; SELECT 2; SELECT 4"), file(1, "SELECT 0; SELECT 2; SELECT 3")
    failed = record(ONE, "FAILED", done=2)
    assert start(mended, failed, files=[mended]) == Start(2, 2, 5)
    with pytest.raises(StateError, match="The first 2 statements of 001_step ran before"):
        start(other, failed, files=[other])


def test_one_that_is_under_way_may_not_be_changed_at_all() -> None:
    mended = file(1, "SELECT 1; SELECT 2; SELECT 4")
    with pytest.raises(StateError, match="changed while it was under way"):
        start(mended, record(ONE, "STARTED", done=1), files=[mended])


@pytest.mark.parametrize("state", ["STARTED", "FAILED"])
def test_an_earlier_one_that_is_open_goes_first(state: RecordState) -> None:
    with pytest.raises(StateError, match="comes after 001_step, which is not applied"):
        start(TWO, record(ONE, state, done=1))
    with pytest.raises(StateError, match="comes after 001_step"):
        start(TWO)


def test_one_that_comes_late_is_refused() -> None:
    with pytest.raises(StateError, match="003_step is applied already and comes after 002_step"):
        start(TWO, record(ONE, "APPLIED"), record(THREE, "APPLIED"))


def test_a_file_that_was_changed_or_is_gone_stops_everything() -> None:
    changed = replace(record(ONE, "APPLIED"), checksum="0")
    with pytest.raises(StateError, match=r"001_step.sql was changed after it was applied to acme_local"):
        start(TWO, changed)
    with pytest.raises(StateError, match="its file is gone"):
        start(TWO, record(ONE, "APPLIED"), files=[TWO, THREE])

"""`manta export`: what it refuses before the warehouse is asked."""

from __future__ import annotations

import pytest

from serve.cli.main import run
from tests.unit.serve.doubles import a_table


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "a.csv"], "What to export is not said"),
        (["--focus"], "Missing option"),
        (["--focus", "-o", "a.xlsx"], "its name says no format"),
        (["--focus", "-o", "a.csv", "--end", "2026-03-01"], "--end without --start"),
        (["--focus", "-o", "a.csv", "--start", "2026-02-30"], "February 2026 has 28 days"),
        (["--focus", "-o", "a.csv", "--start", "2026-03-02", "--end", "2026-03-01"], "lies before --start"),
    ],
)
def test_what_is_refused(arguments: list[str], said: str) -> None:
    given = a_table()
    assert run(["export", "acme_corp", *arguments], given.desk) == 2
    assert said in given.err


def test_an_unknown_organisation() -> None:
    given = a_table()
    assert run(["export", "nobody", "--focus", "-o", "a.csv"], given.desk) == 2
    assert "no organisation 'nobody'" in given.err

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from engine.errors import UsageError
from serve.cli.arguments import day, day_range, last_closed_day, variables

CLOSED = date(2026, 3, 14)


@pytest.mark.parametrize(
    ("text", "said", "fix"),
    [
        ("2025-02-30", "February 2025 has 28 days", "2025-02-28"),
        ("2024-02-30", "February 2024 has 29 days", "2024-02-29"),
        ("2025-04-31", "April 2025 has 30 days", "2025-04-30"),
        ("2025-01-00", "January 2025 has 31 days", "2025-01-01"),
        ("2025-13-01", "no month 13", "01 to 12"),
        ("0000-01-01", "no month", "01 to 12"),
        ("yesterday", "is no day", "YYYY-MM-DD"),
        ("20250101", "is no day", "YYYY-MM-DD"),
        ("2025-1-1", "is no day", "YYYY-MM-DD"),
    ],
)
def test_a_wrong_day_names_option_day_and_fix(text: str, said: str, fix: str) -> None:
    with pytest.raises(UsageError) as refused:
        day(text, option="--date")
    assert refused.value.message.startswith(f"--date {text}: ")
    assert said in refused.value.message
    assert fix in refused.value.fix
    assert refused.value.field == "date"


def test_the_last_closed_day_is_the_provider_s() -> None:
    now = datetime(2026, 3, 15, 2, 0, tzinfo=UTC)
    assert last_closed_day(now, "UTC") == date(2026, 3, 14)
    assert last_closed_day(now, "America/Los_Angeles") == date(2026, 3, 13)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ((None, None, None), (CLOSED, CLOSED)),
        (("2026-03-01", None, None), (date(2026, 3, 1), date(2026, 3, 1))),
        ((None, "2026-03-01", "2026-03-02"), (date(2026, 3, 1), date(2026, 3, 2))),
        ((None, "2026-03-01", None), (date(2026, 3, 1), CLOSED)),
        ((None, "2026-03-15", None), (date(2026, 3, 15), date(2026, 3, 15))),
    ],
)
def test_ranges(given: tuple[str | None, str | None, str | None], meant: tuple[date, date]) -> None:
    assert day_range(*given, closed=CLOSED) == meant


@pytest.mark.parametrize("given", [("2026-03-01", "2026-03-01", None), (None, None, "2026-03-01")])
def test_a_range_that_says_two_things_is_refused(given: tuple[str | None, str | None, str | None]) -> None:
    with pytest.raises(UsageError):
        day_range(*given, closed=CLOSED)


def test_variables_are_typed_by_what_they_look_like() -> None:
    known = dict.fromkeys("abcdef")
    pairs = ["a=1", "b=true", "c=x=y", "d=1.5", "e=null", 'f={"x": 1}']
    found = variables(pairs, known=known, pipeline="p")
    assert found == {"a": 1, "b": True, "c": "x=y", "d": 1.5, "e": None, "f": '{"x": 1}'}


@pytest.mark.parametrize(("pair", "said"), [("novalue", "no name=value"), ("z=1", "has a, b")])
def test_a_wrong_variable_is_named(pair: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        variables([pair], known={"a": 1, "b": 2}, pipeline="p")

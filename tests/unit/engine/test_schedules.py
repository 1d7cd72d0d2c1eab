"""When a schedule is due, daylight saving included, and which expressions are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.schedules import Schedule


def at(day: int, hour: int, minute: int = 0, *, month: int = 3) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


def test_ticks_are_on_the_clock_of_the_zone() -> None:
    berlin = Schedule(cron="30 2 * * *", timezone="Europe/Berlin")
    assert berlin.next_tick(at(10, 12)) == at(11, 1, 30)
    assert berlin.last_tick(at(10, 12)) == at(10, 1, 30)


def test_a_tick_in_the_skipped_hour_comes_once_and_one_in_the_doubled_hour_too() -> None:
    berlin = Schedule(cron="30 2 * * *", timezone="Europe/Berlin")
    # 29 March 2026: 02:00 becomes 03:00. 25 October: 03:00 becomes 02:00 again.
    spring = berlin.next_tick(at(28, 12))
    assert spring is not None
    assert at(29, 0) < spring <= at(29, 1, 30)
    assert berlin.next_tick(spring) == at(30, 0, 30)
    autumn = berlin.next_tick(at(24, 12, month=10))
    assert autumn == at(25, 0, 30, month=10)
    assert berlin.next_tick(autumn) == at(26, 1, 30, month=10)


@given(st.integers(0, 730 * 24 * 60).map(lambda minutes: at(1, 0) + timedelta(minutes=minutes)))
def test_last_and_next_are_either_side_with_nothing_between(moment: datetime) -> None:
    schedule = Schedule(cron="*/20 5,17 * * *", timezone="America/New_York")
    last, following = schedule.last_tick(moment), schedule.next_tick(moment)
    assert last is not None
    assert following is not None
    assert last < moment < following or moment in (last, following)
    assert schedule.next_tick(last) in (following, moment)


def test_a_day_that_never_comes_has_no_tick() -> None:
    assert Schedule(cron="0 0 29 2 *").next_tick(at(1, 0)) == datetime(2028, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize("cron", ["", "* * * *", "0 0 31 2 *", "60 * * * *", "* * * * * *", "daily"])
def test_what_is_no_cron_expression_is_refused(cron: str) -> None:
    with pytest.raises(ValidationError, match=r"has not five fields|is no cron expression"):
        Schedule(cron=cron)


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="is no timezone"):
        Schedule(cron="0 0 * * *", timezone="Europe/Bonn")

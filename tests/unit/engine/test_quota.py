"""Quotas: what is refused until when, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from engine.errors import LimitError
from engine.plans import Limits
from engine.quota import Quotas, Usage

NOW = datetime(2026, 11, 24, 22, 15, tzinfo=UTC)
FREE = Limits(None, None, None)


def refused(quotas: Quotas, limits: Limits, now: datetime = NOW) -> LimitError:
    with pytest.raises(LimitError) as caught:
        quotas.reserve("acme", "refused", limits, now)
    return caught.value


def filled(count: int) -> Quotas:
    quotas = Quotas()
    for n in range(count):
        quotas.reserve("acme", f"run-{n}", FREE, NOW)
    return quotas


@pytest.mark.parametrize(
    ("limits", "code", "retry_after"),
    [
        (Limits(3, None, None), "daily_quota", timedelta(hours=1, minutes=45)),
        (Limits(None, 3, None), "monthly_quota", timedelta(days=6, hours=1, minutes=45)),
        (Limits(None, None, 3), "concurrent_runs", timedelta(seconds=30)),
        (Limits(3, 3, 3), "monthly_quota", timedelta(days=6, hours=1, minutes=45)),
        (Limits(3, None, 3), "daily_quota", timedelta(hours=1, minutes=45)),
    ],
)
def test_refusals_say_which_limit_and_until_when(limits: Limits, code: str, retry_after: timedelta) -> None:
    quotas = filled(3)
    error = refused(quotas, limits)
    assert (error.code, error.retry_after) == (code, retry_after)
    assert "acme" in error.message
    assert error.fix
    assert quotas.usage("acme", NOW) == Usage(3, 3, 3)
    quotas.reserve("other", "run-x", limits, NOW)


def test_the_year_ends_too() -> None:
    new_years_eve = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    quotas = Quotas()
    quotas.restore([("acme", date(2026, 12, 30), 1)], [], new_years_eve)
    assert refused(quotas, Limits(None, 1, None), new_years_eve).retry_after == timedelta(seconds=1)
    later = new_years_eve + timedelta(seconds=1)
    quotas.reserve("acme", "run", Limits(1, 1, 1), later)
    assert quotas.usage("acme", later) == Usage(1, 1, 1)


def test_a_day_is_utcs_wherever_the_clock_is() -> None:
    quotas = Quotas()
    berlin = timezone(timedelta(hours=1))
    quotas.reserve("acme", "run", FREE, datetime(2026, 11, 25, 0, 30, tzinfo=berlin))
    assert quotas.usage("acme", NOW).today == 1


def test_midnight_gives_a_new_day_of_the_same_month() -> None:
    quotas = filled(3)
    tomorrow = NOW + timedelta(hours=2)
    quotas.reserve("acme", "next", Limits(1, 4, None), tomorrow)
    assert quotas.usage("acme", tomorrow) == Usage(1, 4, 1)
    assert refused(quotas, Limits(2, 4, None), tomorrow).code == "monthly_quota"


def test_a_known_run_is_not_counted_again() -> None:
    quotas = filled(1)
    quotas.reserve("acme", "run-0", Limits(1, 1, 1), NOW)
    assert quotas.usage("acme", NOW) == Usage(1, 1, 1)


@pytest.mark.parametrize(
    ("end", "left"),
    [
        (lambda quotas: quotas.release("run-0"), Usage(1, 1, 0)),
        (lambda quotas: quotas.withdraw("run-0"), Usage(0, 0, 0)),
        (lambda quotas: (quotas.release("run-0"), quotas.withdraw("run-0")), Usage(1, 1, 0)),
        (lambda quotas: (quotas.withdraw("run-0"), quotas.withdraw("run-0")), Usage(0, 0, 0)),
        (lambda quotas: (quotas.withdraw("nobody"), quotas.release("nobody")), Usage(1, 1, 1)),
    ],
)
def test_what_ends_gives_back_its_own(end: Callable[[Quotas], object], left: Usage) -> None:
    quotas = filled(1)
    end(quotas)
    assert quotas.usage("acme", NOW) == left


def test_a_lease_that_ran_out_comes_back_with_its_renewal() -> None:
    quotas = Quotas(lease_s=120)
    one = Limits(None, None, 1)
    quotas.reserve("acme", "slow", one, NOW)
    later = NOW + timedelta(seconds=120)
    assert refused(quotas, one, later - timedelta(seconds=1)).code == "concurrent_runs"
    assert quotas.usage("acme", later) == Usage(1, 1, 0)
    quotas.reserve("acme", "second", one, later)
    quotas.renew("slow", later)
    assert quotas.usage("acme", later) == Usage(2, 2, 2)
    quotas.renew("nobody", later)
    quotas.release("slow")
    assert quotas.usage("acme", later) == Usage(2, 2, 1)


def test_restoring_forgets_what_was_and_counts_active_runs_once() -> None:
    quotas = filled(5)
    quotas.restore(
        [("acme", date(2026, 11, 1), 4), ("acme", NOW.date(), 2), ("other", NOW.date(), 1)],
        [("acme", "old", NOW - timedelta(days=2)), ("acme", "new", NOW)],
        NOW,
    )
    assert quotas.usage("acme", NOW) == Usage(2, 6, 2)
    assert quotas.usage("other", NOW) == Usage(1, 1, 0)
    assert quotas.usage("nobody", NOW) == Usage(0, 0, 0)
    # A run of a day that was not counted has nothing to give back.
    quotas.withdraw("old")
    assert quotas.usage("acme", NOW) == Usage(2, 6, 1)


def test_nothing_is_kept_for_ever() -> None:
    quotas = filled(3)
    far = NOW + timedelta(days=40)
    quotas.reserve("other", "run-x", FREE, far)
    for n in range(3):
        quotas.renew(f"run-{n}", far)
    assert quotas.usage("acme", far) == Usage(0, 0, 0)
    assert quotas.usage("acme", NOW) == Usage(0, 0, 0)

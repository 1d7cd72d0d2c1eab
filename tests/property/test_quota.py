"""Quotas against a book that is kept by hand, through crashes, lost leases and any order of calls."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.errors import LimitError
from engine.plans import Limits
from engine.quota import Quotas, Usage
from engine.request_limits import RequestLimits

LEASE_S = 120
ORGS = ("acme", "globex")
some = st.none() | st.integers(1, 4)


@dataclass
class Entry:
    """A run as the warehouse would have it, and until when its place at once is held."""

    org: str
    accepted: datetime
    until: datetime
    active: bool = True


class QuotaMachine(RuleBasedStateMachine):
    """`book` is what is on record; whoever asks renews, ends, withdraws, crashes or forgets to."""

    @initialize(limits=st.tuples(*[st.builds(Limits, some, some, some)] * 2), hour=st.integers(0, 23))
    def begin(self, limits: tuple[Limits, Limits], hour: int) -> None:
        self.limits = dict(zip(ORGS, limits, strict=True))
        self.now = datetime(2026, 11, 29, hour, 58, tzinfo=UTC)
        self.quotas = Quotas(lease_s=LEASE_S)
        self.book: dict[str, Entry] = {}
        self.numbers = 0

    def expected(self, org: str) -> Usage:
        runs = [entry for entry in self.book.values() if entry.org == org]
        today = [e for e in runs if e.accepted.date() == self.now.date()]
        month = [e for e in runs if e.accepted.month == self.now.month]
        return Usage(len(today), len(month), sum(e.active and e.until > self.now for e in runs))

    @rule(org=st.sampled_from(ORGS))
    def reserve(self, org: str) -> None:
        self.numbers += 1
        run_id, limits, used = f"run-{self.numbers}", self.limits[org], self.expected(org)
        full = [
            code
            for code, limit, count in (
                ("monthly_quota", limits.monthly, used.month),
                ("daily_quota", limits.daily, used.today),
                ("concurrent_runs", limits.concurrent, used.concurrent),
            )
            if limit is not None and count >= limit
        ]
        if full:
            with pytest.raises(LimitError) as caught:
                self.quotas.reserve(org, run_id, limits, self.now)
            assert caught.value.code == full[0]
            assert caught.value.retry_after > timedelta(0)
        else:
            self.quotas.reserve(org, run_id, limits, self.now)
            self.book[run_id] = Entry(org, self.now, self.now + timedelta(seconds=LEASE_S))

    def active(self) -> list[str]:
        return [run_id for run_id, entry in self.book.items() if entry.active]

    @precondition(lambda self: self.active())
    @rule(data=st.data())
    def reserve_again(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(self.active()))
        org = self.book[run_id].org
        self.quotas.reserve(org, run_id, self.limits[org], self.now)

    @precondition(lambda self: self.active())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(self.active()))
        self.quotas.release(run_id)
        self.book[run_id].active = False

    @precondition(lambda self: self.active())
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(self.active()))
        self.quotas.withdraw(run_id)
        del self.book[run_id]

    @precondition(lambda self: self.book)
    @rule(data=st.data())
    def end_twice(self, data: st.DataObject) -> None:
        ended = [run_id for run_id, entry in self.book.items() if not entry.active]
        for run_id in [*ended, "never-reserved"]:
            data.draw(st.sampled_from([self.quotas.release, self.quotas.withdraw]))(run_id)
            self.quotas.renew(run_id, self.now)

    @precondition(lambda self: self.active())
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        for run_id in data.draw(st.sets(st.sampled_from(self.active()))):
            self.quotas.renew(run_id, self.now)
            self.book[run_id].until = self.now + timedelta(seconds=LEASE_S)

    @rule(seconds=st.sampled_from([1, 30, LEASE_S, 3600, 40_000]))
    def time_passes(self, seconds: int) -> None:
        # Short of the day after which nobody counts on a renewal: what is unrenewed for longer is forgotten.
        oldest = min((e.until for e in self.book.values() if e.active), default=self.now)
        if self.now + timedelta(seconds=seconds) < oldest + timedelta(hours=23):
            self.now += timedelta(seconds=seconds)

    @rule()
    def crash(self) -> None:
        used = Counter((entry.org, entry.accepted.date()) for entry in self.book.values())
        self.quotas = Quotas(lease_s=LEASE_S)
        self.quotas.restore(
            [(org, day, count) for (org, day), count in used.items() if day.month == self.now.month],
            [(entry.org, run_id, entry.accepted) for run_id, entry in self.book.items() if entry.active],
            self.now,
        )
        for run_id in self.active():
            self.book[run_id].until = self.now + timedelta(seconds=LEASE_S)

    @invariant()
    def the_book_is_right(self) -> None:
        for org in ORGS:
            assert self.quotas.usage(org, self.now) == self.expected(org)

    @invariant()
    def nothing_is_kept_that_no_run_has(self) -> None:
        assert self.quotas.reservations <= len(self.active())


QuotaMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestQuotas = QuotaMachine.TestCase


@given(
    limits=st.builds(Limits, some, some, some),
    steps=st.lists(st.tuples(st.sampled_from(["reserve", "release", "renew all"]), st.integers(0, 60))),
)
def test_never_more_than_the_limits_while_leases_live(limits: Limits, steps: list[tuple[str, int]]) -> None:
    quotas, now = Quotas(lease_s=LEASE_S), datetime(2026, 11, 30, 23, 50, tzinfo=UTC)
    live: list[str] = []
    for n, (step, seconds) in enumerate(steps):
        now += timedelta(seconds=seconds)
        for run_id in live:
            quotas.renew(run_id, now)
        if step == "release" and live:
            quotas.release(live.pop())
        elif step == "reserve":
            try:
                quotas.reserve("acme", f"run-{n}", limits, now)
            except LimitError:
                continue
            live.append(f"run-{n}")
        used = quotas.usage("acme", now)
        assert used.concurrent == len(live)
        for count, limit in (
            (used.concurrent, limits.concurrent),
            (used.today, limits.daily),
            (used.month, limits.monthly),
        ):
            assert limit is None or count <= limit


@given(
    rate=st.integers(1, 1000),
    gaps=st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=200),
    others=st.integers(0, 5),
)
def test_no_window_sees_more_than_a_bucket_and_its_filling(rate: int, gaps: list[float], others: int) -> None:
    limits, at, admitted = RequestLimits({"p": rate}), 0.0, 0
    for gap in gaps:
        at += gap
        for other in range(others):
            limits.take("p", f"other-{other}", at)
        admission = limits.take("p", "key", at)
        admitted += admission.allowed
        assert 0 <= admission.remaining < rate
        assert admission.reset_s <= 60 + 1e-6
        assert admitted <= rate + at * rate / 60 + 1e-6
        if not admission.allowed:
            assert 0 < admission.retry_after_s <= 60 / rate + 1e-6
            assert limits.peek("p", "key", at + admission.retry_after_s).allowed

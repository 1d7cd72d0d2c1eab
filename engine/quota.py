"""How many runs organisations have started and have under way, counted in memory; no clock of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from engine.errors import LimitError
from engine.plans import Limits

#: How soon a run may have ended, when too many are under way.
CONCURRENT_RETRY = timedelta(seconds=30)
#: A reservation that nobody has renewed for so long belongs to no run that lives.
FORGET_AFTER = timedelta(days=1)
#: Between two looks for what can be forgotten.
SWEEP_EVERY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Usage:
    """Runs accepted today and this month (UTC), and unfinished now."""

    today: int
    month: int
    concurrent: int


@dataclass(frozen=True, slots=True)
class _Reservation:
    org: str
    day: date
    until: datetime


class Quotas:
    """Reservations by run id. Times are aware datetimes, days are UTC's.

    A run holds its place at once until it is released or its lease of `lease_s` seconds runs out; whoever
    keeps the run going renews it. What it took of its day and month stays taken, unless it is withdrawn.
    Not thread-safe.
    """

    def __init__(self, lease_s: float = 120) -> None:
        self._lease = timedelta(seconds=lease_s)
        self._used: defaultdict[str, dict[date, int]] = defaultdict(dict)
        self._held: dict[str, _Reservation] = {}
        self._by_org: defaultdict[str, set[str]] = defaultdict(set)
        self._next_sweep: datetime | None = None

    def restore(
        self,
        used: Iterable[tuple[str, date, int]],
        active: Iterable[tuple[str, str, datetime]],
        now: datetime,
    ) -> None:
        """Begin from what is on record, forgetting all else.

        `used` counts the runs accepted on each UTC day of this month, those of `active` (organisation, run
        id, when it was accepted) among them; active runs get a fresh lease.
        """
        self._used.clear()
        self._held.clear()
        self._by_org.clear()
        self._next_sweep = None
        for org, day, count in used:
            self._used[org][day] = self._used[org].get(day, 0) + count
        for org, run_id, start in active:
            self._hold(run_id, _Reservation(org, _day(start), now + self._lease))

    def reserve(self, org: str, run_id: str, limits: Limits, now: datetime) -> None:
        """Take a place of the day, the month and those at once; for a known run id nothing changes.

        Raises LimitError: monthly_quota (until the first of next month), daily_quota (until midnight UTC) or
        concurrent_runs; the limit that holds longest comes first.
        """
        if run_id in self._held:
            return
        self._sweep(now)
        self._refuse(org, limits, now)
        day = _day(now)
        self._used[org][day] = self._used[org].get(day, 0) + 1
        self._hold(run_id, _Reservation(org, day, now + self._lease))

    def withdraw(self, run_id: str) -> None:
        """Give everything back: the run never got on record. An unknown or released id changes nothing."""
        if (found := self._drop(run_id)) is None:
            return
        days = self._used[found.org]
        if found.day in days:
            days[found.day] -= 1
            if days[found.day] <= 0:
                del days[found.day]

    def release(self, run_id: str) -> None:
        """The run has ended: its place among those at once is free, day and month stay used."""
        self._drop(run_id)

    def renew(self, run_id: str, now: datetime) -> None:
        """Prolong a run's lease; one that had run out counts again, even beyond the limit."""
        if (found := self._held.get(run_id)) is not None:
            self._held[run_id] = replace(found, until=now + self._lease)

    def usage(self, org: str, now: datetime) -> Usage:
        """What the organisation has used, as `reserve` counts it."""
        today = _day(now)
        days = self._used.get(org, {})
        month = sum(count for day, count in days.items() if _same_month(day, today))
        held = self._by_org.get(org, ())
        return Usage(days.get(today, 0), month, sum(self._held[run_id].until > now for run_id in held))

    @property
    def reservations(self) -> int:
        """How many are kept, those whose lease ran out included."""
        return len(self._held)

    def _refuse(self, org: str, limits: Limits, now: datetime) -> None:
        used = self.usage(org, now)
        if limits.monthly is not None and used.month >= limits.monthly:
            raise LimitError(
                f"{org} has started its {limits.monthly} runs of this month.",
                kind="monthly_quota",
                retry_after=_next_month(now) - now,
                fix="Wait for the first of next month (UTC), or ask for a larger plan.",
            )
        if limits.daily is not None and used.today >= limits.daily:
            raise LimitError(
                f"{org} has started its {limits.daily} runs of today.",
                kind="daily_quota",
                retry_after=_midnight(_day(now) + timedelta(days=1)) - now,
                fix="Wait for midnight UTC, or ask for a larger plan.",
            )
        if limits.concurrent is not None and used.concurrent >= limits.concurrent:
            raise LimitError(
                f"{org} has {used.concurrent} unfinished runs, of at most {limits.concurrent} at once.",
                kind="concurrent_runs",
                retry_after=CONCURRENT_RETRY,
                fix="Wait for one to end, cancel one, or ask for a larger plan.",
            )

    def _hold(self, run_id: str, reservation: _Reservation) -> None:
        self._held[run_id] = reservation
        self._by_org[reservation.org].add(run_id)

    def _drop(self, run_id: str) -> _Reservation | None:
        found = self._held.pop(run_id, None)
        if found is not None:
            runs = self._by_org[found.org]
            runs.discard(run_id)
            if not runs:
                del self._by_org[found.org]
        return found

    def _sweep(self, now: datetime) -> None:
        if self._next_sweep is not None and now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_EVERY
        for run_id in [key for key, held in self._held.items() if held.until + FORGET_AFTER <= now]:
            self._drop(run_id)
        today = _day(now)
        for org, days in list(self._used.items()):
            # A day that lies ahead stays: the clock of whoever restored may run before this one.
            kept = {day: count for day, count in days.items() if day > today or _same_month(day, today)}
            if kept:
                self._used[org] = kept
            else:
                del self._used[org]


def _day(at: datetime) -> date:
    return at.astimezone(UTC).date()


def _same_month(one: date, other: date) -> bool:
    return (one.year, one.month) == (other.year, other.month)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _next_month(now: datetime) -> datetime:
    # From any day of a month, 32 days after its first lies in the next.
    return _midnight((_day(now).replace(day=1) + timedelta(days=32)).replace(day=1))

"""Which term of a plan a day belongs to: whole terms, anchored once, never drifting."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta

from engine.saas.plans import MONTHS, WEEK, SaasPlan


@dataclass(frozen=True, slots=True)
class Term:
    """The days from `start` up to `end`, which is not in it; `trial` terms cost nothing."""

    start: date
    end: date
    trial: bool = False

    @property
    def days(self) -> int:
        """How many days the full term has."""
        return (self.end - self.start).days


def term_of(plan: SaasPlan, day: date) -> Term:
    """The full term around a day of the plan; it may begin before the plan does, and end after it.

    Terms of months begin on the anchor day, or on the month's last day where that is shorter, computed each
    time from the anchor: 31 January, 28 February, 31 March. Without an anchor day it is the first paid day's.
    Without an anchor month terms are counted from the first anchor day on or after the first paid day.
    """
    if day < plan.paid_from:
        return Term(plan.start_date, plan.paid_from, trial=True)
    months = MONTHS.get(plan.billing_cycle)
    if months is None:
        length = plan.custom_days or WEEK
        start = day - timedelta(days=(day - plan.paid_from).days % length)
        return Term(start, start + timedelta(days=length))
    anchor = plan.billing_anchor_day or plan.paid_from.day
    month = _month(day) - (_anchored(_month(day), anchor) > day)
    first = month - (month - _phase(plan, anchor)) % months
    return Term(_anchored(first, anchor), _anchored(first + months, anchor))


def _phase(plan: SaasPlan, anchor: int) -> int:
    """Any month in which a term begins."""
    if plan.billing_anchor_month is not None:
        return plan.billing_anchor_month - 1
    month = _month(plan.paid_from)
    return month + (_anchored(month, anchor) < plan.paid_from)


def _month(day: date) -> int:
    """Months since January of the year 0."""
    return day.year * 12 + day.month - 1


def _anchored(month: int, anchor: int) -> date:
    year, number = divmod(month, 12)
    return date(year, number + 1, min(anchor, monthrange(year, number + 1)[1]))

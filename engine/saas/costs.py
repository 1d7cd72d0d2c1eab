"""What each day of a plan costs: the rule that the stored procedure carries out, in exact fractions.

The day number k of a term of n days costs R(C*k/n) - R(C*(k-1)/n), where C is the term's cost and R rounds
half up to 9 places: the days of a term always sum to C, whatever C and n are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from engine.saas.plans import EXACT, ZERO, SaasPlan
from engine.saas.terms import Term, term_of

ONE_DAY = timedelta(days=1)
NANOS = 10**9


@dataclass(frozen=True, slots=True)
class Segment:
    """A plan row and the days it is in force: from `first` up to `until`, which is None while it is open."""

    plan: SaasPlan
    first: date
    until: date | None


@dataclass(frozen=True, slots=True)
class DayCost:
    """One row of saas_subscription_plan_costs_daily, as far as it is computed."""

    subscription_id: str
    usage_date: date
    status: Literal["ACTIVE", "TRIAL", "FREE"]
    term_start: date
    term_end: date
    term_days: int
    list_cycle_cost: Decimal
    cycle_cost: Decimal
    daily_cost: Decimal
    charge_day: bool
    charge_amount: Decimal
    fiscal_year: int
    fiscal_half: int
    fiscal_quarter: int


def segments(plans: Iterable[SaasPlan]) -> Iterator[Segment]:
    """The rows of one subscription in force, each until its own end or the day the next one begins.

    `plans` are the standing rows, one per `effective_from`; VOID ones are left out.
    """
    rows = sorted((plan for plan in plans if plan.status != "VOID"), key=lambda plan: plan.effective_from)
    for plan, following in pairwise([*rows, None]):
        if plan is not None:
            ends = [plan.end_date + ONE_DAY] if plan.end_date else []
            ends += [following.effective_from] if following else []
            yield Segment(plan, plan.effective_from, min(ends, default=None))


def daily_costs(plans: Iterable[SaasPlan], start: date, end: date) -> Iterator[DayCost]:
    """A row per plan and day in force, from `start` to `end`, both included; free days cost zero."""
    for segment in segments(plans):
        until = min(end + ONE_DAY, segment.until or date.max)
        day = max(start, segment.first)
        while day < until:
            yield day_cost(segment, day)
            day += ONE_DAY


def day_cost(segment: Segment, day: date) -> DayCost:
    """What the day costs under the segment's plan."""
    plan, term = segment.plan, term_of(segment.plan, day)
    list_cost, cost = (ZERO, ZERO) if term.trial else (plan.list_cycle_cost, plan.cycle_cost)
    stretch = _stretch(segment, term)
    year, quarter = fiscal(day, plan.fiscal_year_start_month)
    charged = day == stretch.start
    return DayCost(
        subscription_id=plan.subscription_id,
        usage_date=day,
        status="TRIAL" if term.trial else "ACTIVE" if cost else "FREE",
        term_start=term.start,
        term_end=term.end,
        term_days=term.days,
        list_cycle_cost=list_cost,
        cycle_cost=cost,
        daily_cost=between(cost, term, day, day + ONE_DAY),
        charge_day=charged,
        charge_amount=between(cost, term, stretch.start, stretch.end) if charged else ZERO,
        fiscal_year=year,
        fiscal_half=(quarter + 1) // 2,
        fiscal_quarter=quarter,
    )


def between(cost: Decimal, term: Term, start: date, end: date) -> Decimal:
    """What the days from `start` up to `end` of a term cost together."""
    return EXACT.subtract(_until(cost, term, end), _until(cost, term, start))


def _until(cost: Decimal, term: Term, day: date) -> Decimal:
    """What the days of the term before `day` cost together: R(C*k/n)."""
    share = Fraction(cost) * Fraction((day - term.start).days, term.days)
    # Half up: amounts are never negative.
    nanos = (share * NANOS * 2 + 1) // 2
    return Decimal(nanos).scaleb(-9, context=EXACT)


def _stretch(segment: Segment, term: Term) -> Term:
    """The part of a term that this segment pays for."""
    first = term.start if term.trial else max(term.start, segment.plan.paid_from)
    end = min(term.end, segment.until or date.max)
    return Term(max(first, segment.first), end, trial=term.trial)


def fiscal(day: date, start_month: int) -> tuple[int, int]:
    """Fiscal year and quarter (1 to 4) of a day; the year is named after the one it ends in."""
    months = day.year * 12 + day.month - start_month
    return months // 12 + (start_month > 1), months % 12 // 3 + 1

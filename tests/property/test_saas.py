"""Costs of SaaS plans for any plan: terms tile time, their days sum to their cost, changes lose nothing."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from decimal import Decimal
from itertools import chain, groupby

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.saas.costs import DayCost, Segment, between, daily_costs, fiscal, segments
from engine.saas.plans import SaasPlan
from engine.saas.terms import term_of
from tests.property.saas_plans import plans, subscriptions

ONE_DAY = timedelta(days=1)
LENGTHS = {"monthly": (28, 31), "quarterly": (89, 92), "semi_annual": (181, 184), "annual": (365, 366)}
offsets = st.integers(0, 1500)


@given(plans(endless=True), offsets)
@settings(deadline=None)
def test_terms_tile_the_days(plan: SaasPlan, offset: int) -> None:
    day = plan.start_date + timedelta(days=offset)
    term = term_of(plan, day)
    assert term.start <= day < term.end
    if not term.trial:
        assert term_of(plan, term.end).start == term.end
        assert {term_of(plan, max(plan.paid_from, term.start)), term_of(plan, term.end - ONE_DAY)} == {term}
        low, high = LENGTHS.get(plan.billing_cycle, (plan.custom_days or 7, plan.custom_days or 7))
        assert low <= term.days <= high


@given(plans(endless=True), offsets)
@settings(deadline=None)
def test_the_days_of_a_term_sum_to_its_cost(plan: SaasPlan, offset: int) -> None:
    term = term_of(plan, plan.paid_from + timedelta(days=offset))
    whole = [
        between(plan.cycle_cost, term, day, day + ONE_DAY)
        for day in (term.start + timedelta(days=n) for n in range(term.days))
    ]
    assert sum(whole) == plan.cycle_cost
    # No day bears what another saves: they differ by one billionth at most.
    assert max(whole) - min(whole) <= Decimal("1e-9")


@given(subscriptions())
@settings(max_examples=40, deadline=None)
def test_a_row_for_each_day_in_force_and_charges_are_the_days(rows: list[SaasPlan]) -> None:
    start, end = rows[0].start_date, rows[0].start_date + timedelta(days=500)
    found = list(daily_costs(rows, start, end))
    assert {row.usage_date for row in found} == {day for day, _ in in_force(rows, start, end)}
    assert max(Counter(row.usage_date for row in found).values(), default=0) <= 1
    assert all(row.daily_cost >= 0 and row.charge_amount >= 0 for row in found)
    for stretch in stretches(found):
        if (stretch[-1].usage_date + ONE_DAY) <= end:
            assert sum(row.daily_cost for row in stretch) == stretch[0].charge_amount
            assert stretch[0].charge_day or stretch[0].usage_date == start


@given(subscriptions(), st.integers(0, 400), st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_a_range_is_a_part_of_every_wider_one(rows: list[SaasPlan], offset: int, length: int) -> None:
    start = rows[0].start_date + timedelta(days=offset)
    end = start + timedelta(days=length)
    wide = daily_costs(rows, start - timedelta(days=40), end + timedelta(days=40))
    assert [row for row in wide if start <= row.usage_date <= end] == list(daily_costs(rows, start, end))


@given(plans(endless=True), st.integers(1, 800))
@settings(max_examples=25, deadline=None)
def test_a_change_to_the_same_terms_costs_the_same(plan: SaasPlan, after: int) -> None:
    again = plan.model_copy(update={"effective_from": plan.start_date + timedelta(days=after)})
    until = plan.start_date + timedelta(days=900)
    costs = [
        sum(row.daily_cost for row in daily_costs(rows, plan.start_date, until))
        for rows in ([plan], [plan, again])
    ]
    assert costs[0] == costs[1]


@given(st.integers(1, 12), st.integers(2018, 2032))
@settings(deadline=None)
def test_fiscal_quarters_have_their_own_months(start_month: int, year: int) -> None:
    """The replaced service had windows of the wrong year, off by a day around leap years."""
    first = date(year - (start_month > 1), start_month, 1)
    last = date(first.year + 1, first.month, 1) - ONE_DAY
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    assert {fiscal(day, start_month)[0] for day in days} == {year}
    assert fiscal(first - ONE_DAY, start_month) == (year - 1, 4)
    assert fiscal(last + ONE_DAY, start_month) == (year + 1, 1)
    months = [
        sorted({day.month for day in days if fiscal(day, start_month)[1] == quarter})
        for quarter in (1, 2, 3, 4)
    ]
    assert [len(found) for found in months] == [3, 3, 3, 3]
    assert sorted(chain.from_iterable(months)) == list(range(1, 13))


def in_force(rows: list[SaasPlan], start: date, end: date) -> list[tuple[date, Segment]]:
    """Each day with the row that holds, found the slow way: the latest that has begun, unless it ended."""
    found = []
    for n in range((end - start).days + 1):
        day = start + timedelta(days=n)
        begun = [row for row in segments(rows) if row.first <= day]
        if begun and (begun[-1].plan.end_date is None or day <= begun[-1].plan.end_date):
            found.append((day, begun[-1]))
    return found


def stretches(found: list[DayCost]) -> list[list[DayCost]]:
    """Days from one charge up to the next."""
    number = 0
    keys = {}
    for row in found:
        number += row.charge_day
        keys[row.usage_date] = number
    return [list(group) for _, group in groupby(found, key=lambda row: keys[row.usage_date])]

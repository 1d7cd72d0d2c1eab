"""Which plan rows stand, and what an import, new terms or an end add to them."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from engine.errors import NotFoundError, UsageError
from engine.saas.plans import SaasPlan
from engine.saas.versions import PlanBook, Version
from tests.unit.engine.test_saas_plans import a_plan

JUNE = date(2024, 6, 1)


def a_book(*changes: SaasPlan | list[SaasPlan]) -> PlanBook:
    book = PlanBook.of(())
    rows: list[Version] = []
    for change in changes:
        rows += book.numbered([change] if isinstance(change, SaasPlan) else change)
        book = PlanBook.of(reversed(rows))
    return book


def in_force(book: PlanBook) -> list[tuple[date, date | None, Decimal]]:
    return [(row.first, row.until, row.plan.unit_price) for row in book.subscriptions().get("slack", ())]


def test_the_last_change_of_a_day_stands_and_a_later_day_ends_it() -> None:
    first, dearer = a_plan(), a_plan(effective_from=JUNE, unit_price=Decimal(15))
    corrected = a_plan(unit_price=Decimal(11))
    book = a_book(first, dearer, corrected)
    assert in_force(book) == [(date(2024, 1, 31), JUNE, Decimal(11)), (JUNE, None, Decimal(15))]
    assert (book.last_change, book.last_versions) == (3, {"slack": 3})
    assert book.news([first, dearer, corrected]) == (first,)


def test_void_takes_a_row_back() -> None:
    dearer = a_plan(effective_from=JUNE, unit_price=Decimal(15))
    back = dearer.model_copy(update={"status": "VOID"})
    book = a_book([a_plan(), dearer], back)
    assert in_force(book) == [(date(2024, 1, 31), None, Decimal("12.50"))]
    assert book.news([back, a_plan(subscription_id="zoom", status="VOID")]) == ()


def test_new_terms_keep_what_they_do_not_name() -> None:
    book = a_book(a_plan(billing_anchor_day=5, team="x"))
    dearer = book.agreed("slack", {"effective_from": JUNE, "unit_price": "15"})
    assert dearer == a_plan(billing_anchor_day=5, team="x", effective_from=JUNE, unit_price=Decimal(15))
    yearly = book.agreed("slack", {"effective_from": JUNE, "billing_cycle": "annual"})
    assert yearly.billing_anchor_day is None


@pytest.mark.parametrize(
    ("given", "field"),
    [({"start_date": JUNE}, "vendor"), ({"start_date": JUNE, "seats": "many"}, "vendor")],
)
def test_a_new_plan_has_to_name_everything(given: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError) as caught:
        a_book().agreed("zoom", given)
    assert caught.value.field == field


def test_an_end_keeps_the_day_and_takes_back_what_comes_later() -> None:
    book = a_book([a_plan(), a_plan(effective_from=JUNE, unit_price=Decimal(15))])
    ended, later = book.ending("slack", date(2024, 5, 10))
    assert (ended.effective_from, ended.end_date, ended.status) == (
        date(2024, 1, 31),
        date(2024, 5, 10),
        "CANCELLED",
    )
    assert (later.effective_from, later.status) == (JUNE, "VOID")
    after = a_book([a_plan(), a_plan(effective_from=JUNE, unit_price=Decimal(15))], [ended, later])
    assert in_force(after) == [(date(2024, 1, 31), date(2024, 5, 11), Decimal("12.50"))]
    assert after.ending("slack", date(2024, 5, 10)) == ()
    (whole,) = after.ending("slack", date(2024, 5, 10), at_term_end=True)
    assert whole.end_date == date(2024, 5, 30)


def test_an_end_that_cannot_be() -> None:
    book = a_book(a_plan())
    with pytest.raises(NotFoundError, match="no subscription 'zoom'"):
        book.ending("zoom", JUNE)
    with pytest.raises(UsageError, match="begins only on 2024-01-31"):
        book.ending("slack", date(2024, 1, 30))


def test_a_plan_that_has_ended_is_not_prolonged_by_an_end_but_by_new_terms() -> None:
    over = date(2024, 5, 10)
    book = a_book(a_plan(end_date=over))
    with pytest.raises(UsageError, match="ends on 2024-05-10 already"):
        book.ending("slack", JUNE)
    again = book.agreed("slack", {"effective_from": JUNE})
    assert in_force(a_book(a_plan(end_date=over), again)) == [
        (date(2024, 1, 31), date(2024, 5, 11), Decimal("12.50")),
        (JUNE, None, Decimal("12.50")),
    ]
    # What was ended by hand may be ended on another day.
    ended = a_book(a_plan(), list(a_book(a_plan()).ending("slack", over)))
    assert [plan.end_date for plan in ended.ending("slack", JUNE)] == [JUNE]


def test_a_change_touches_costs_from_the_charge_it_changes() -> None:
    book = a_book(a_plan())
    assert book.since([a_plan(effective_from=date(2024, 6, 10), seats=9)]) == date(2024, 5, 31)
    assert book.since(book.ending("slack", date(2024, 5, 10))) == date(2024, 4, 30)
    assert book.since([a_plan(seats=9)]) == date(2024, 1, 31)
    assert book.since([a_plan(subscription_id="zoom")]) == date(2024, 1, 31)

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import CredentialError, DataError, TransientError
from engine.paging import Page, gathered, read_days

DAYS = tuple(date(2026, 11, 1) + timedelta(n) for n in range(6))


class Report:
    """A report of DAYS in pages of `size` buckets; `change(page, call)` may spoil an answer."""

    def __init__(
        self,
        size: int = 2,
        change: Callable[[Page[str], int], Page[str]] = lambda page, call: page,
        buckets: Sequence[date] = DAYS,
    ) -> None:
        self.size, self.change, self.buckets = size, change, buckets
        self.asked: list[tuple[int, str | None]] = []

    async def __call__(self, days: Sequence[date], cursor: str | None) -> Page[str]:
        self.asked.append((len(days), cursor))
        held = [day for day in self.buckets if day in days]
        start = int(cursor or 0)
        end = start + self.size
        more = end < len(held)
        page = Page(
            tuple(held[start:end]), more, str(end) if more else None, ",".join(map(str, held[start:end]))
        )
        return self.change(page, len(self.asked))


def edited(page: Page[str], **changes: object) -> Page[str]:
    values = {"days": page.days, "has_more": page.has_more, "next_page": page.next_page}
    return Page(**(values | {"content": page.content} | changes))  # type: ignore[arg-type]


async def read(report: Report, days: Sequence[date] = DAYS, **kwargs: int) -> list[str]:
    return await read_days(report, days, name="vendor /report", **kwargs)


@given(size=st.integers(1, 8))
def test_every_day_once_whatever_the_page_size(size: int) -> None:
    report = Report(size)
    found = asyncio.run(read(report))
    assert ",".join(found) == ",".join(map(str, DAYS))
    assert len(report.asked) == -(-len(DAYS) // size)


async def test_has_more_false_ends_although_a_cursor_is_there() -> None:
    report = Report(6, lambda page, call: edited(page, next_page="6"))
    assert len(await read(report)) == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda page, call: edited(page, next_page="2") if page.has_more else page, "came twice"),
        (
            lambda page, call: edited(page, next_page=None) if page.has_more else page,
            "has_more is true and next_page is missing",
        ),
        (lambda page, call: edited(page, days=(DAYS[0], *page.days[1:])), "bucket of 2026-11-01 came twice"),
        (
            lambda page, call: edited(page, days=(), has_more=True, next_page=str(call)),
            "more than 5 pages",
        ),
    ],
)
async def test_pages_that_never_fit_together_are_transient_after_two_rereads(
    change: Callable[[Page[str], int], Page[str]], problem: str
) -> None:
    report = Report(2, change)
    with pytest.raises(TransientError, match=problem) as caught:
        await read(report, max_pages=5)
    assert "vendor /report" in str(caught.value)
    assert [cursor for _, cursor in report.asked].count(None) == 3


async def test_a_report_that_shifts_once_is_read_again_from_the_first_page() -> None:
    report = Report(2, lambda page, call: edited(page, days=(DAYS[1], DAYS[2])) if call == 2 else page)
    assert ",".join(await read(report)) == ",".join(map(str, DAYS))
    assert [cursor for _, cursor in report.asked] == [None, "2", None, "2", "4"]


async def test_a_bucket_outside_the_range_is_a_broken_contract() -> None:
    report = Report(2, lambda page, call: edited(page, days=(date(2026, 10, 31),)))
    with pytest.raises(DataError, match="bucket of 2026-10-31, asked for 2026-11-01 to 2026-11-06"):
        await read(report)
    assert len(report.asked) == 1


async def test_a_missing_day_is_asked_again_alone() -> None:
    def lost(page: Page[str], call: int) -> Page[str]:
        return edited(page, days=page.days[1:], content="rest") if call == 2 else page

    report = Report(2, lost)
    assert "2026-11-03" in await read(report)
    assert report.asked[-1] == (1, None)


async def test_a_day_that_stays_away_is_known_to_be_empty() -> None:
    report = Report(3, buckets=DAYS[:4])
    assert ",".join(filter(None, await read(report))) == ",".join(map(str, DAYS[:4]))
    assert report.asked == [(6, None), (6, "3"), (1, None), (1, None)]
    alone = Report(3, buckets=())
    assert await read(alone, DAYS[:1]) == [""]
    assert len(alone.asked) == 1


async def test_gathered_keeps_order_and_bounds() -> None:
    running = most = 0

    async def job(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return number

    jobs = [lambda n=n: job(n) for n in range(10)]  # type: ignore[misc]
    assert await gathered(jobs, at_once=3) == list(range(10))
    assert most == 3


async def test_gathered_ends_the_others_and_raises_the_error_that_lasts() -> None:
    ended = asyncio.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fails(error: Exception) -> None:
        raise error

    jobs = [waits, lambda: fails(TransientError("later")), lambda: fails(CredentialError("revoked"))]
    with pytest.raises(CredentialError, match="revoked"):
        await gathered(jobs, at_once=4)
    assert ended.is_set()

"""Reading a bucketed report whole: every day once, or an error. Knows nothing of rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from engine.errors import DataError, MantaError, TransientError

#: A report of 31 days in pages of one day has 31 pages; a server that goes on is going round.
MAX_PAGES = 400
REREADS = 2


@dataclass(frozen=True, slots=True)
class Page[T]:
    """One page: the UTC days of its buckets, how it goes on, and whatever its rows became."""

    days: tuple[date, ...]
    has_more: bool
    next_page: str | None
    content: T


class MovedError(TransientError):
    """The pages do not fit together: the report changed under the reader, or the server lost its place."""


type Ask[T] = Callable[[Sequence[date], str | None], Awaitable[Page[T]]]


async def pages[T](
    ask: Ask[T],
    days: Sequence[date],
    *,
    name: str,
    max_pages: int = MAX_PAGES,
) -> AsyncIterator[Page[T]]:
    """Yield the pages of `days` (consecutive, ascending) in order, asking `ask(days, cursor)` for each.

    `has_more` alone decides whether there is another page; a `next_page` beside `has_more: false` is the end.
    Raises MovedError (repeated or missing cursor, a bucket twice, too many pages) and DataError (a bucket of
    a day that was not asked for). `name` is the report's, for messages.
    """
    wanted, seen = frozenset(days), set[date]()
    cursor: str | None = None
    cursors = set[str]()
    for _ in range(max_pages):
        page = await ask(days, cursor)
        for day in page.days:
            if day not in wanted:
                raise DataError(
                    f"{name}: answered with a bucket of {day}, asked for {days[0]} to {days[-1]}.",
                    fix="Nothing was published; report it to the provider.",
                )
            if day in seen:
                raise _moved(name, f"the bucket of {day} came twice")
            seen.add(day)
        yield page
        if not page.has_more:
            return
        if not page.next_page:
            raise _moved(name, "has_more is true and next_page is missing")
        if page.next_page in cursors:
            raise _moved(name, "the same next_page came twice")
        cursors.add(page.next_page)
        cursor = page.next_page
    raise _moved(name, f"more than {max_pages} pages")


def _moved(name: str, problem: str) -> MovedError:
    return MovedError(f"{name}: {problem}.", fix="Wait: the unit is read again from the first page.")


async def read_days[T](
    ask: Ask[T],
    days: Sequence[date],
    *,
    name: str,
    max_pages: int = MAX_PAGES,
    rereads: int = REREADS,
) -> list[T]:
    """Return the contents of all pages of `days`; pages that do not fit together are read again from the
    first.

    A day without a bucket is asked for once more, alone; when that answer has none either, it is known to be
    empty.
    """
    found = await _whole(ask, days, name=name, max_pages=max_pages, rereads=rereads)
    missing = set(days).difference(*(page.days for page in found))
    if len(days) > 1:
        for day in sorted(missing):
            found += await _whole(ask, (day,), name=name, max_pages=max_pages, rereads=rereads)
    return [page.content for page in found]


async def _whole[T](
    ask: Ask[T],
    days: Sequence[date],
    *,
    name: str,
    max_pages: int,
    rereads: int,
) -> list[Page[T]]:
    for reread in range(rereads + 1):
        try:
            return [page async for page in pages(ask, days, name=name, max_pages=max_pages)]
        except MovedError:
            if reread == rereads:
                raise
    raise AssertionError("the last read returns or raises")


def _worst(errors: Sequence[BaseException]) -> BaseException:
    """Pick the error to tell: one that no retry cures, else any of ours, else a fault of the code."""
    known = [error for error in errors if isinstance(error, MantaError)]
    lasting = [error for error in known if not isinstance(error, TransientError)]
    if lasting or known:
        return (lasting or known)[0]
    return errors[0]


async def gathered[T](jobs: Iterable[Callable[[], Coroutine[Any, Any, T]]], *, at_once: int) -> list[T]:
    """Run `jobs`, at most `at_once` at a time, and return their answers in order.

    The first failure ends the others; of several at the same moment the one that no retry cures is raised.
    """
    slots = asyncio.Semaphore(at_once)

    async def run(job: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async with slots:
            return await job()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(job)) for job in jobs]
    except BaseExceptionGroup as failures:
        # A group would hide the one error that says what to do.
        raise _worst(failures.exceptions) from None
    return [task.result() for task in tasks]

"""Going through the pages of an API: each row once, or an error. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from engine.api.mapping import ApiPage
from engine.api.pagination import Cursor, LinkHeader, NextUrl, Offset, PageNumber, Paging
from engine.api.paths import MISSING, found, segments
from engine.errors import ConfigurationError, DataError
from engine.paging import REREADS, MovedError

_LINK = re.compile(r"<([^>]*)>([^<]*)")
_REL = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Step:
    """Where a page is: its number from 1, what is added to the request, or the whole address instead."""

    number: int
    added: tuple[tuple[str, Any], ...] = ()
    url: str | None = None


type Ask = Callable[[Step], Awaitable[ApiPage]]


async def read_chain(
    ask: Ask, paging: Paging, *, row_id: Sequence[str], name: str, ahead: int, rereads: int = REREADS
) -> list[ApiPage]:
    """Return every page in order; pages that do not fit together are read again from the first.

    `ahead` pages are asked for at once where pages have numbers. Raises MovedError when they never fit,
    DataError for pages without rows and without end, ConfigurationError for more than `max_pages`.
    """
    for reread in range(rereads + 1):
        try:
            return await _once(ask, paging, row_id=row_id, name=name, ahead=ahead)
        except MovedError:
            if reread == rereads:
                raise
    raise AssertionError("the last read returns or raises")


async def _once(ask: Ask, paging: Paging, *, row_id: Sequence[str], name: str, ahead: int) -> list[ApiPage]:
    numbered = isinstance(paging, PageNumber | Offset)
    steps = _numbered(ask, paging, name=name, ahead=ahead) if numbered else _linked(ask, paging, name=name)  # type: ignore[arg-type]
    read: list[ApiPage] = []
    seen: dict[tuple[Any, ...], int] = {}
    empty = 0
    async with aclosing(steps):
        async for page in steps:
            if row_id:
                _note(seen, page.table, row_id, number=len(read) + 1, name=name)
            read.append(page)
            empty = 0 if page.rows else empty + 1
            if empty > paging.max_empty_pages:
                raise DataError(
                    f"{name}: {empty} pages in a row held no rows, and there was always another.",
                    fix="Report it to the provider, or raise max_empty_pages.",
                    field="config.paging.max_empty_pages",
                )
    return read


def _note(
    seen: dict[tuple[Any, ...], int], table: pa.Table, row_id: Sequence[str], *, number: int, name: str
) -> None:
    """Remember a page's rows. Raises MovedError for one that an earlier page had: the pages have shifted."""
    for row in zip(*(table[column].to_pylist() for column in row_id), strict=True):
        before = seen.setdefault(row, number)
        if before != number:
            shown = ", ".join(f"{column}={value}" for column, value in zip(row_id, row, strict=True))
            raise _moved(name, f"the row {shown[:200]} came on page {before} and again on page {number}")


async def _linked(ask: Ask, paging: Paging, *, name: str) -> AsyncGenerator[ApiPage]:
    """Pages of which each says where the next one is."""
    step, seen = Step(1), set[Any]()
    for number in range(1, paging.max_pages + 1):
        page = await ask(step)
        following = _following(page, paging, number=number + 1, name=name)
        yield page
        if following is None:
            return
        place = following.url or following.added
        if place in seen:
            raise _moved(name, f"page {number} leads to the same next page as one before it")
        seen.add(place)
        step = following
    raise _too_many(name, paging)


def _following(page: ApiPage, paging: Paging, *, number: int, name: str) -> Step | None:
    match paging:
        case Cursor():
            cursor = found(page.body, segments(paging.cursor_path))
            more = True
            if paging.has_more_path is not None:
                more = found(page.body, segments(paging.has_more_path))
                if type(more) is not bool:
                    raise DataError(
                        f"{name}: page {number - 1} says neither true nor false at {paging.has_more_path}.",
                        fix="Nothing was published; correct has_more_path.",
                        field="config.paging.has_more_path",
                    )
            if not more or (cursor in (MISSING, None, "") and paging.has_more_path is None):
                return None
            if type(cursor) not in (str, int) or cursor == "":
                raise _moved(name, f"page {number - 1} has more after it and no cursor")
            return Step(number, ((paging.cursor_param, cursor),))
        case NextUrl():
            url = found(page.body, segments(paging.next_path))
            if url in (MISSING, None, ""):
                return None
            if type(url) is not str:
                raise DataError(
                    f"{name}: page {number - 1} has no address at {paging.next_path}.",
                    fix="Nothing was published; correct next_path.",
                    field="config.paging.next_path",
                )
            return Step(number, url=url)
        case LinkHeader():
            url = next_link(page.answer.headers.get("link", ""))
            return Step(number, url=url) if url else None
    return None


def next_link(header: str) -> str | None:
    """The target of rel="next" in a Link header (RFC 8288), if it has one."""
    for target, parameters in _LINK.findall(header):
        for quoted, plain in _REL.findall(parameters):
            if "next" in (quoted or plain).lower().split():
                return str(target)
    return None


async def _numbered(
    ask: Ask, paging: PageNumber | Offset, *, name: str, ahead: int
) -> AsyncGenerator[ApiPage]:
    """Pages that can be asked for before the one before them is there.

    The number asked for at once doubles with each page from one on, unless the first page says how many there
    are: a short list costs no crowd of requests.
    """
    pending: dict[int, asyncio.Task[ApiPage]] = {}
    number, asked, width, rows, short = 1, 0, 1, 0, 0
    last = total = None
    try:
        while True:
            while asked < min(number - 1 + width, last or paging.max_pages, paging.max_pages):
                asked += 1
                pending[asked] = asyncio.ensure_future(ask(_place(paging, asked)))
            if number not in pending:
                raise _too_many(name, paging)
            page = await pending.pop(number)
            rows += page.rows
            if isinstance(paging, Offset):
                if short and page.rows:
                    raise _short(name, short, paging)
                short = short or (number if page.rows < paging.limit else 0)
            said = _count(page.body, paging.total_path, name)
            if total is not None and said is not None and said != total:
                raise _moved(name, f"there were {total} rows in all, and on page {number} there are {said}")
            total = total if said is None else said
            last = _last(page, paging, total, name) or last
            if page.rows or last is not None:
                yield page
            if (number >= last) if last is not None else not page.rows:
                if total is not None and rows != total:
                    raise _moved(name, f"{rows} rows came of {total}")
                return
            number, width = number + 1, min(width * 2, ahead) if last is None else ahead
    finally:
        # What was asked for beyond the end is nobody's concern.
        for task in pending.values():
            task.cancel()
        await asyncio.gather(*pending.values(), return_exceptions=True)


def _place(paging: PageNumber | Offset, number: int) -> Step:
    if isinstance(paging, Offset):
        return Step(number, ((paging.offset_param, (number - 1) * paging.limit),))
    return Step(number, ((paging.page_param, paging.first_page + number - 1),))


def _last(page: ApiPage, paging: PageNumber | Offset, total: int | None, name: str) -> int | None:
    if isinstance(paging, Offset):
        return None if total is None else max(-(-total // paging.limit), 1)
    pages = _count(page.body, paging.total_pages_path, name)
    return None if pages is None else max(pages, 1)


def _count(body: Any, path: str | None, name: str) -> int | None:
    if path is None:
        return None
    value = found(body, segments(path))
    if type(value) is not int or value < 0:
        raise DataError(
            f"{name}: there is no count at {path}.",
            fix="Nothing was published; correct the path.",
            field=path,
        )
    return value


def _short(name: str, number: int, paging: Offset) -> DataError:
    return DataError(
        f"{name}: page {number} held fewer than {paging.limit} rows and was not the last: rows were skipped.",
        fix="Set limit to what the API gives at most, and limit_param so that it knows.",
        field="config.paging.limit",
    )


def _moved(name: str, problem: str) -> MovedError:
    return MovedError(f"{name}: {problem}.", fix="Wait: the unit is read again from the first page.")


def _too_many(name: str, paging: Paging) -> ConfigurationError:
    return ConfigurationError(
        f"{name}: there are more than {paging.max_pages} pages.",
        fix="Raise max_pages of the step's paging, or ask for fewer days at once (max_days_per_unit).",
        field="config.paging.max_pages",
    )

"""One unit of a described API: every credential, window and page, as one table."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.api.asking import Asked, call_of, next_address, windows
from engine.api.config import ApiConfig, Day
from engine.api.mapping import IGNORED, ApiPage, Mapping, decode
from engine.api.rules import Ignored, Rules
from engine.api.walk import Step, read_chain
from engine.errors import ConfigurationError, DataError
from engine.http import Again, Answer, Http, Judge, Take
from engine.pages.asking import on_behalf_of
from engine.paging import gathered

#: Pages at work for each request under way: one on its way, one becoming rows.
WAITING = 2


@dataclass(frozen=True, slots=True)
class Extract:
    """What was read: the rows, how many pages they came on, what no column takes, rows left out."""

    table: pa.Table
    pages: int
    unknown: frozenset[str]
    dropped: int


async def extract(
    config: ApiConfig,
    https: dict[str, Http],
    days: Sequence[date],
    *,
    now: Callable[[], datetime],
    judge: Judge | None = None,
    address: str = "",
) -> Extract:
    """Read a unit's days with every credential, `config.concurrency` requests at a time.

    `judge` looks at answers that no rule of the config fits; `address` is that of a further service of the
    provider, where it is not the provider's own. Raises the errors of `engine.http` and of
    `engine.api.walk`, each naming its credential.
    """
    check_days(config, days, today=now().date())
    slots = asyncio.Semaphore(config.concurrency)
    jobs = [
        partial(_chain, config, http, asked, address, credential_id, slots=slots, now=now, judge=judge)
        for credential_id, http in https.items()
        for asked in windows(config.request.window, days)
    ]
    pages = [page for chain in await gathered(jobs, at_once=config.concurrency * WAITING) for page in chain]
    schema = Mapping(config.response, config.day, credential_id="", name="").schema
    table = pa.concat_tables([schema.empty_table(), *(page.table for page in pages)])
    unknown = frozenset[str]().union(*(page.unknown for page in pages))
    return Extract(table, len(pages), unknown, sum(page.rows for page in pages) - table.num_rows)


def check_days(config: ApiConfig, days: Sequence[date], *, today: date) -> None:
    """Refuse days that the API cannot answer for. Raises ConfigurationError."""
    day = config.day
    if day.source != "row" and len(days) > 1 and config.request.window.per == "unit":
        raise ConfigurationError(
            f"{config.request.path}: rows do not say their day, and {len(days)} days are asked for at once.",
            fix="Set request.window.per: day, or max_days_per_unit: 1 of the pipeline.",
            field="config.day",
        )
    if day.source == "snapshot" and (past := [one for one in days if one < today - timedelta(days=1)]):
        raise ConfigurationError(
            f"{config.request.path} shows the present only: what it said on {past[0]} is gone.",
            fix=f"Run it for {today - timedelta(days=1)} or {today}, and from now on every day.",
            field="start_date",
        )


async def _chain(
    config: ApiConfig,
    http: Http,
    asked: Asked,
    address: str,
    credential_id: str,
    *,
    slots: asyncio.Semaphore,
    now: Callable[[], datetime],
    judge: Judge | None,
) -> list[ApiPage]:
    name = f"{http.provider} {config.request.path}"
    mapping = Mapping(config.response, config.day, credential_id=credential_id, name=name)
    rules = Rules(config.errors, name=name, now=now)
    before = ""

    def judged(answer: Answer) -> Again | Take | None:
        return rules(answer) or (judge(answer) if judge else None)

    async def ask(step: Step) -> ApiPage:
        nonlocal before
        url = None if step.url is None else next_address(before, step.url)
        call = call_of(config.request, config.paging, asked, step, url=url)
        if url is None:
            call = replace(call, path=address + call.path)

        def read(answer: Answer) -> tuple[Answer, Any]:
            ignored = config.errors and isinstance(rules(answer), Ignored)
            return answer, IGNORED if ignored else decode(answer.body)

        async with slots:
            answer, body = await http.send(call, read, judge=judged)
        # Outside of the slot: while rows are made of this page, another one is on its way.
        before = answer.url
        page = mapping.page(answer, body, number=step.number, day=asked.days[0])
        return replace(page, table=_inside(page.table, config.day, asked.days, name=name))

    with on_behalf_of(credential_id):
        ahead = config.concurrency * WAITING
        return await read_chain(ask, config.paging, row_id=config.row_id, name=name, ahead=ahead)


def _inside(table: pa.Table, day: Day, days: Sequence[date], *, name: str) -> pa.Table:
    """The rows of the unit's days. Raises DataError for others, unless they are to be dropped."""
    if day.source != "row" or not table.num_rows:
        return table
    inside = pc.is_in(table[day.column], value_set=pa.array(days, pa.date32()))
    kept = table.filter(inside)
    if kept.num_rows < table.num_rows and day.outside == "fail":
        strange = table.filter(pc.invert(inside))
        raise DataError(
            f"{name}: {strange.num_rows} rows are not of {days[0]} to {days[-1]}, the first of them of "
            f"{strange[day.column][0].as_py()}.",
            fix="Nothing was published; correct request.window, or set day.outside: drop.",
            field="config.day",
        )
    return kept

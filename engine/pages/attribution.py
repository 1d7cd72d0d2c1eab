"""Usage that is priced exactly and attributed, out of queries that allow five groupings each.

A price depends on five dimensions besides the day, and workspace and API key are two more. So the report is
read once by the five (the priced truth), and once by workspace, key, model, tier and window. Where a (day,
model, tier, window) has a single geography and speed, the second read's rows have them too. Where it has
several, the second read is repeated with a filter for each geography and speed, which labels its rows. In the
end both reads must add up to the same tokens in every priced group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial

import polars as pl
import pyarrow as pa

from engine.errors import ConfigurationError, TransientError
from engine.http import Http, RefusedError
from engine.pages.anthropic import ARROW, KEY, METRICS, PATH, PRICED_BY, page_decoder
from engine.pages.asking import require_unique, span
from engine.paging import REREADS, Page, gathered, read_days

FAST_BETA = "fast-mode-2026-02-01"
NAME = f"anthropic {PATH}"
#: Speeds the filter knows; asked one by one when a server groups by speed and does not show it.
SPEEDS = ("fast", "standard")
FILTERS = {"inference_geo": "inference_geos[]", "speed": "speeds[]"}
SHARED = ("model", "service_tier", "context_window")
ATTRIBUTED_BY = ("workspace_id", "api_key_id", *SHARED)
_CELL = ["usage_date", *SHARED]
_PAIR = ["inference_geo", "speed"]
_GROUP = _CELL + _PAIR


class Reader:
    """Reads one credential's days; without `speed_beta` speed is neither asked for nor known."""

    def __init__(
        self,
        http: Http,
        days: Sequence[date],
        *,
        credential_id: str,
        page_days: int,
        at_once: int,
        speed_beta: str | None,
    ) -> None:
        self._http = http
        self._days = days
        self._credential_id = credential_id
        self._page_days = page_days
        self._at_once = at_once
        self._speed_beta = speed_beta

    async def read(self) -> tuple[pa.Table, int]:
        """Return rows of schema `ARROW` and how many of them could be priced but not attributed.

        Both reads are repeated while they disagree (a day still being counted moves between them); raises
        TransientError when they keep doing so.
        """
        gap = ""
        for _ in range(REREADS + 1):
            priced = await self._priced()
            attributed = await self._attributed(priced) if priced.height else priced
            if not (gap := disagreement(priced, attributed)):
                table = attributed.select(ARROW.names).to_arrow().cast(ARROW)
                require_unique(table, KEY, name=NAME)
                return table, attributed.filter(pl.col("unattributed")).height
        raise TransientError(
            f"{NAME}: the report by price and the report by API key disagree: {gap}.",
            fix="Wait: the unit is read again; a day that is not yet closed may still move.",
        )

    async def _priced(self) -> pl.DataFrame:
        groups = [group for group in PRICED_BY if group != "speed" or self._speed_beta]
        try:
            found = await self._ask(groups)
        except RefusedError as refusal:
            if self._speed_beta is None or refusal.status != 400:
                raise
            raise ConfigurationError(
                refusal.message,
                fix="If the server has no speed grouping, set group_speed: false in the step's config.",
                field="config.group_speed",
            ) from None
        hidden = found.filter(found.select(_GROUP).is_duplicated() & pl.col("speed").is_null())
        if self._speed_beta and hidden.height:
            # The row's reference does not list `speed`; a server that leaves it out still filters by it.
            parts = await gathered(
                [partial(self._ask, groups, labels={"speed": speed}) for speed in SPEEDS],
                at_once=self._at_once,
            )
            found = self._checked(found, pl.concat(parts))
        require_unique(found.to_arrow(), [*_GROUP, "x_credential_id"], name=NAME)
        return found

    @staticmethod
    def _checked(whole: pl.DataFrame, parts: pl.DataFrame) -> pl.DataFrame:
        """Return `parts` when they are all of `whole`: a speed that no filter names must not get lost."""
        unknown = pl.lit(None, pl.String).alias("speed")
        if gap := disagreement(whole.with_columns(unknown), parts.with_columns(unknown)):
            raise TransientError(
                f"{NAME}: usage filtered by speed is not all usage: {gap}.",
                fix="If this stays, set group_speed: false in the step's config.",
            )
        return parts

    async def _attributed(self, priced: pl.DataFrame) -> pl.DataFrame:
        single, split, unfilterable = cells(priced, with_speed=self._speed_beta is not None)
        pairs = priced.join(split, on=_CELL, how="semi", nulls_equal=True).select(_PAIR).unique().rows()
        wanted = [dict(zip(_PAIR, pair, strict=True)) for pair in sorted(pairs, key=str)]
        # Without filters first: it serves the cells of one geography and speed, usually all.
        queries: list[Mapping[str, str | None]] = [{}] if single.height else []
        found = await gathered(
            [partial(self._ask, ATTRIBUTED_BY, labels=labels) for labels in queries + wanted],
            at_once=self._at_once,
        )
        parts = [part.join(unfilterable, on=_CELL, how="anti", nulls_equal=True) for part in found]
        if single.height:
            whole = parts[0].join(split, on=_CELL, how="anti", nulls_equal=True).drop(_PAIR)
            parts[0] = whole.join(single, on=_CELL, how="left", nulls_equal=True)
        parts[len(queries) :] = [
            part.join(single, on=_CELL, how="anti", nulls_equal=True) for part in parts[len(queries) :]
        ]
        rest = priced.join(unfilterable, on=_CELL, how="semi", nulls_equal=True)
        rest = rest.with_columns(unattributed=pl.lit(True))
        columns = rest.columns
        return pl.concat([*(part.select(columns) for part in parts), rest])

    async def _ask(
        self, groups: Sequence[str], *, labels: Mapping[str, str | None] | None = None
    ) -> pl.DataFrame:
        """Read the days grouped by `groups`, filtered to `labels`, which the rows then carry."""
        fixed = {name: value for name, value in (labels or {}).items() if value is not None}
        beta = self._speed_beta if "speed" in groups or "speed" in fixed else None
        headers = {"anthropic-beta": beta} if beta else {}
        decode = page_decoder(credential_id=self._credential_id, labels=fixed)

        async def ask(days: Sequence[date], cursor: str | None) -> Page[pa.Table]:
            params = self._params(days, groups, fixed, cursor=cursor)
            return await self._http.get_json(PATH, params, decode, headers=headers)

        found = await read_days(ask, self._days, name=NAME)
        frame = pl.DataFrame(pa.concat_tables([ARROW.empty_table(), *found]))
        return frame.with_columns(unattributed=pl.lit(False))

    def _params(
        self, days: Sequence[date], groups: Sequence[str], fixed: Mapping[str, str], *, cursor: str | None
    ) -> list[tuple[str, str]]:
        start, end = (moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in span(days))
        return [
            ("starting_at", start),
            ("ending_at", end),
            ("bucket_width", "1d"),
            ("limit", str(min(len(days), self._page_days))),
            *(("group_by[]", group) for group in groups),
            *((FILTERS[name], value) for name, value in fixed.items()),
            *([("page", cursor)] if cursor else []),
        ]


def cells(priced: pl.DataFrame, *, with_speed: bool) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Sort each (day, model, tier, window) by how its attribution can be priced.

    Returns the cells of one geography and speed (with both), those to split by filters, and those where a
    NULL stands among several: no filter finds a NULL, so their rows stay priced and unattributed.
    """
    filtered = _PAIR if with_speed else ["inference_geo"]
    by_cell = priced.group_by(_CELL).agg(
        pl.len().alias("variants"),
        pl.any_horizontal(pl.col(filtered).is_null()).any().alias("has_null"),
        pl.col(_PAIR).first(),
    )
    one, null = pl.col("variants") == 1, pl.col("has_null")
    return (
        by_cell.filter(one).select(_GROUP),
        by_cell.filter(~one & ~null).select(_CELL),
        by_cell.filter(~one & null).select(_CELL),
    )


def disagreement(priced: pl.DataFrame, attributed: pl.DataFrame) -> str:
    """Name the first priced group whose counters differ between the two reads; empty when none does."""
    signed = [
        priced.select(_GROUP + list(METRICS)),
        attributed.select(*_GROUP, *(-pl.col(m) for m in METRICS)),
    ]
    gaps = (
        pl.concat(signed)
        .group_by(_GROUP)
        .agg(pl.col(METRICS).sum())
        .filter(pl.any_horizontal(pl.col(METRICS) != 0))
        .sort(_GROUP)
    )
    if not gaps.height:
        return ""
    first = gaps.row(0, named=True)
    where = ", ".join(str(first[name]) for name in _GROUP)
    return f"{where}: " + ", ".join(f"{m} by {first[m]}" for m in METRICS if first[m])

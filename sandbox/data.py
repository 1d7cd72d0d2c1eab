"""All usage the sandbox knows, and the totals a correct client must arrive at."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal

from sandbox.prices import charges
from sandbox.rows import DAY_S, Late, Row
from sandbox.usage_anthropic import anthropic_rows
from sandbox.usage_openai import openai_rows

type Provider = Literal["openai", "anthropic"]


@lru_cache(maxsize=512)
def day_rows(provider: Provider, seed: int, org: str, day: date, scale: float) -> tuple[Row, ...]:
    """Give one day's rows, oldest first; the cache spares a paging client the redrawing."""
    make = openai_rows if provider == "openai" else anthropic_rows
    return tuple(sorted(make(seed, org, day, scale=scale), key=lambda row: row.start_s))


def rows_between(
    provider: Provider, seed: int, org: str, start_s: int, end_s: int, *, scale: float = 1.0
) -> Iterator[Row]:
    """Give the rows that start in [start_s, end_s), Unix seconds."""
    day = datetime.fromtimestamp(start_s - start_s % DAY_S, UTC).date()
    while _midnight_s(day) < end_s:
        for row in day_rows(provider, seed, org, day, scale):
            if start_s <= row.start_s < end_s:
                yield row
        day += timedelta(days=1)


def known_totals(
    org: str,
    start: date,
    end: date,
    provider: Provider,
    *,
    seed: int = 1,
    scale: float = 1.0,
    now: datetime | None = None,
    late: Late | None = None,
) -> dict[str, Any]:
    """Add up the days [start, end) of one organisation.

    Without `now` everything counts, late rows and corrections too; with it only what the vendor shows then.
    `counts` is per endpoint, `models` per model (`billed_usd` in dollars,
    Decimal), `days` what each day with usage is billed, `labels` per line item
    or description; sums are exact.
    """
    rows: Iterable[Row] = rows_between(provider, seed, org, _midnight_s(start), _midnight_s(end), scale=scale)
    if now is not None:
        rule, now_s = late or Late(), now.timestamp()
        rows = (row for row in rows if rule.visible(row, now_s))
    return totals_of(rows)


def totals_of(rows: Iterable[Row]) -> dict[str, Any]:
    """Add up finest-grain rows into the shape `known_totals` describes."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    models: dict[str, Counter[str]] = defaultdict(Counter)
    billed: dict[str, Decimal] = defaultdict(Decimal)
    labels: dict[str, Decimal] = defaultdict(Decimal)
    days: dict[str, Decimal] = defaultdict(Decimal)
    number = 0
    for row in rows:
        number += 1
        model = str(row.dims.get("model") or row.kind)
        counts[row.kind].update(row.counts)
        days[row.day.isoformat()] += 0
        models[model].update(row.counts)
        for charge in charges(row):
            billed[model] += charge.usd
            labels[charge.label] += charge.usd
            days[row.day.isoformat()] += charge.usd
    return {
        "rows": number,
        "counts": {kind: dict(sums) for kind, sums in sorted(counts.items())},
        "models": {
            model: {**sums, "billed_usd": billed.get(model, Decimal(0))}
            for model, sums in sorted(models.items())
        },
        "days": dict(sorted(days.items())),
        "labels": dict(sorted(labels.items())),
        "billed_usd": sum(billed.values(), Decimal(0)),
    }


def _midnight_s(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())

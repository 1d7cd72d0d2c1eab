"""What was spent, as rows for programs: the same for `manta cost --json` and GET /costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from engine.costs import Grouping
    from engine.workplace import Workplace

# Imports stand in functions: the command line must not wait for Arrow and Google's clients.
DAYS = 30


def period(since: date | None, until: date | None, *, today: date) -> tuple[date, date]:
    """The days asked for; without any the last 30 closed ones (UTC). Raises UsageError."""
    from engine.costs import check_period

    last = until or today - timedelta(days=1)
    first = since or date.fromordinal(max(1, last.toordinal() - DAYS + 1))
    check_period(first, last, today=today)
    return first, last


def spent(
    work: Workplace, orgs: Sequence[str], *, since: date, until: date, by: Grouping
) -> dict[str, pa.Table]:
    """The spend of each organisation; blocks."""
    from engine.costs import cost_tables, spend

    tables = cost_tables(work.catalog.schemas, work.catalog.providers)
    return {
        org: spend(work.warehouse(org), since=since, until=until, by=by, providers=tables) for org in orgs
    }


def rows_of(found: Mapping[str, pa.Table], *, by: Grouping) -> Iterable[dict[str, Any]]:
    """One exact row per organisation and group."""
    from engine.costs import change_percent

    for org, table in found.items():
        for row in table.to_pylist():
            named: dict[str, Any] = {} if by == "provider" else {by: row["key"]}
            yield {
                "org_slug": org,
                "provider": row["provider"],
                **named,
                "currency": row["currency"],
                "cost": row["cost"],
                "cost_before": row["cost_before"],
                "change": row["cost"] - row["cost_before"],
                "change_percent": change_percent(row["cost"], row["cost_before"]),
                "tokens": row["tokens"],
                "unpriced_tokens": row["unpriced_tokens"],
                "unpriced_rows": row["unpriced_rows"],
            }

"""What an organisation has used of its quotas, as the warehouse has it on record."""

from __future__ import annotations

from datetime import UTC, datetime

from engine.central import Central
from engine.quota import Usage


def recorded_usage(central: Central, org: str, *, now: datetime) -> Usage:
    """Runs accepted today and this month (UTC) and those that have not ended, read from the runs' table.

    The coordinator counts in memory and admits by that count; this is for people, a moment behind it.
    """
    sql = (
        "SELECT usage_date, pipelines_run_today, pipelines_run_month, concurrent_pipelines_running "
        "FROM org_usage_quotas WHERE org_slug = @org_slug ORDER BY usage_date DESC LIMIT 1"
    )
    rows = central.query(sql, {}, org=org, purpose="usage").to_pylist()
    if not rows:
        return Usage(0, 0, 0)
    (latest,) = rows
    today = now.astimezone(UTC).date()
    this_month = latest["usage_date"].replace(day=1) == today.replace(day=1)
    return Usage(
        today=latest["pipelines_run_today"] if latest["usage_date"] == today else 0,
        month=latest["pipelines_run_month"] if this_month else 0,
        concurrent=latest["concurrent_pipelines_running"],
    )

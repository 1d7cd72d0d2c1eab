"""Reading arguments: days, ranges and variables, with messages that name the option and the mistake."""

from __future__ import annotations

import calendar
import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from engine.errors import UsageError

DAY = re.compile(r"(\d{4})-(\d{2})-(\d{2})")


def day(text: str, *, option: str) -> date:
    """A day written YYYY-MM-DD. Raises UsageError naming option and day."""
    field = option.lstrip("-").replace("-", "_")
    found = DAY.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{option} {text}: is no day.", fix="Write it as YYYY-MM-DD, such as 2026-01-31.", field=field
        )
    year, month, number = map(int, found.groups())
    if not 1 <= month <= 12 or year < 1:
        raise UsageError(
            f"{option} {text}: there is no month {month:02}.", fix="Months go from 01 to 12.", field=field
        )
    longest = calendar.monthrange(year, month)[1]
    if not 1 <= number <= longest:
        name = f"{calendar.month_name[month]} {year}"
        raise UsageError(
            f"{option} {text}: {name} has {longest} days.",
            fix=f"Use a day from {year:04}-{month:02}-01 to {year:04}-{month:02}-{longest}.",
            field=field,
        )
    return date(year, month, number)


def last_closed_day(now: datetime, timezone: str) -> date:
    """The last day that is over where `timezone` is."""
    return now.astimezone(ZoneInfo(timezone)).date() - timedelta(days=1)


def day_range(one: str | None, start: str | None, end: str | None, *, closed: date) -> tuple[date, date]:
    """The range that --date, --start and --end mean; without any the last closed day.

    Raises UsageError for a combination that says two things.
    """
    if one is not None and (start is not None or end is not None):
        raise UsageError(
            "--date does not go with --start or --end.", fix="Give one day or a range.", field="date"
        )
    if one is not None:
        chosen = day(one, option="--date")
        return chosen, chosen
    if start is None and end is not None:
        raise UsageError("--end without --start.", fix="Give --start too, or --date alone.", field="start")
    if start is None:
        return closed, closed
    first = day(start, option="--start")
    return first, day(end, option="--end") if end is not None else max(closed, first)


def variables(pairs: Sequence[str], *, known: Mapping[str, Any], pipeline: str) -> dict[str, Any]:
    """`name=value` pairs; a value that reads as a JSON number, true, false or null is one.

    Raises UsageError for a pair without `=` and for a variable the pipeline does not have.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--var {pair}: is no name=value.", fix="Write --var name=value.", field="var")
        if name not in known:
            has = f"has {', '.join(sorted(known))}" if known else "has no variables"
            raise UsageError(
                f"--var {name}: {pipeline} {has}.", fix="Declare it under `variables` first.", field="var"
            )
        found[name] = _value(text)
    return found


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if value is None or isinstance(value, (bool, int, float)) else text

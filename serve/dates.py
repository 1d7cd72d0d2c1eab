"""Days, parsed once, where requests come in: behind here there are only dates."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from fastapi import Query
from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema

from engine.errors import UsageError
from serve.cli import arguments

SHOWN = 40


def _day(value: Any, info: ValidationInfo) -> date:
    if not isinstance(value, str):
        raise ValueError("is no text: write a day as YYYY-MM-DD, such as 2026-01-31")
    if len(value) > SHOWN or not value.isascii():
        raise ValueError("is no day: write it as YYYY-MM-DD, such as 2026-01-31")
    try:
        return arguments.day(value, option=info.field_name or "day")
    except UsageError as error:
        raise ValueError(f"{error.message} {error.fix}") from error


#: A day written YYYY-MM-DD, and nothing else.
Day = Annotated[
    date,
    BeforeValidator(_day),
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2026-01-31"]}),
]
DayQuery = Annotated[Day | None, Query(description="A day, YYYY-MM-DD (UTC).")]


def day_range(one: date | None, start: date | None, end: date | None, *, closed: date) -> tuple[date, date]:
    """The range that `date`, `start_date` and `end_date` mean; without any the last closed day.

    Raises UsageError for a combination that says two things.
    """
    if one is not None and (start is not None or end is not None):
        raise UsageError(
            "date does not go with start_date or end_date.", fix="Give one day or a range.", field="date"
        )
    if one is not None:
        return one, one
    if start is None and end is not None:
        raise UsageError(
            "end_date without start_date.", fix="Give start_date too, or date alone.", field="start_date"
        )
    if start is None:
        return closed, closed
    return start, end if end is not None else max(closed, start)

"""Requests of a described API: its windows of days, and each page of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import msgspec

from engine.api.config import Request, Window
from engine.api.pagination import Paging
from engine.api.walk import Step
from engine.http import Call

JSON = {"content-type": "application/json"}
_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True, slots=True)
class Asked:
    """The days that one chain of pages is asked for."""

    days: tuple[date, ...]


def windows(window: Window, days: Sequence[date]) -> list[Asked]:
    """The unit's days as the API is asked for them."""
    return [Asked((day,)) for day in days] if window.per == "day" else [Asked(tuple(days))]


def call_of(request: Request, paging: Paging, asked: Asked, step: Step, *, url: str | None = None) -> Call:
    """The request for one page. `url` is the address that the page before it gave, if it did."""
    if url is not None:
        # The address holds every parameter already; only how it is asked is the same.
        body = _encode(request.body) if request.body is not None else None
        return Call(url, method=request.method, headers=_headers(request, body), content=body)
    query: list[tuple[str, str]] = []
    for name, value in request.params.items():
        each = value if isinstance(value, list) else [value]
        query += [(name, text(one)) for one in each if one is not None]
    fields = dict(request.body or {})
    days = _window_fields(request.window, asked.days)
    paged = list(step.added)
    if paging.limit_param is not None:
        paged.append((paging.limit_param, paging.limit))
    for into, added in ((request.window.send_in, days), (paging.send_in, paged)):
        if into == "body":
            fields.update(added)
        else:
            query += [(name, text(value)) for name, value in added]
    posts = request.method == "POST" and (request.body is not None or fields)
    content = _encode(fields) if posts else None
    return Call(
        request.path, query, method=request.method, headers=_headers(request, content), content=content
    )


def next_address(before: str, link: str) -> str:
    """The address a link means, seen from the page that held it (RFC 3986)."""
    return str(httpx.URL(before).join(link))


def text(value: Any) -> str:
    """A value as a parameter says it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _headers(request: Request, content: bytes | None) -> dict[str, str]:
    return {**(JSON if content is not None else {}), **request.headers}


def _window_fields(window: Window, days: Sequence[date]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    if window.start:
        found.append((window.start, _written(days[0], window.format)))
    if window.end:
        last = days[-1] + timedelta(days=1) if window.end_exclusive else days[-1]
        found.append((window.end, _written(last, window.format)))
    return found


def _written(day: date, form: str) -> str | int:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if form == "date":
        return day.isoformat()
    if form == "datetime":
        return midnight.strftime("%Y-%m-%dT%H:%M:%SZ")
    if form in ("unix", "unix_ms"):
        return int(midnight.timestamp()) * (1000 if form == "unix_ms" else 1)
    return midnight.strftime(form)

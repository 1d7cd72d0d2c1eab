"""Reading a report's query and cutting its answer into pages of buckets: the part both vendors share."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from sandbox.rows import Dimension, Row

WIDTH_S = {"1m": 60, "1h": 3600, "1d": 86_400}
INTEGER = re.compile(r"-?[0-9]{1,15}")
# Buckets a page: (default, maximum), the same numbers at both vendors (facts 1.2, 2.2).
BUCKETS = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}


class Refusal(Exception):  # noqa: N818 (an answer, not a fault of the sandbox)
    """A request that is answered with an error body; each vendor writes its own."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page starts (Unix seconds, or a record number), which page it is, and for which query."""

    digest: str
    position: int
    end: int
    number: int

    def encode(self) -> str:
        text = json.dumps([self.digest, self.position, self.end, self.number], separators=(",", ":"))
        return "page_" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, page: str) -> Cursor | None:
        """Read a cursor; None when nobody here has written it."""
        text = page.removeprefix("page_")
        try:
            digest, position, end, number = json.loads(
                base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            )
            return cls(str(digest), int(position), int(end), int(number))
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Query:
    """A checked query; times are Unix seconds, `limit` counts buckets."""

    start_s: int
    end_s: int
    width_s: int
    limit: int
    group_by: tuple[str, ...]
    filters: Mapping[str, frozenset[str]]
    digest: str
    page: int = 1


class Params:
    """A query string with arrays in both spellings (`a=1&a=2` and `a[]=1&a[]=2`)."""

    def __init__(self, pairs: Iterable[tuple[str, str]], *, scope: str):
        self.values: dict[str, list[str]] = {}
        for name, value in pairs:
            self.values.setdefault(name.removesuffix("[]"), []).append(value)
        # `limit` and `page` are left out: the cursor belongs to what is asked, not to how much at once.
        asked = sorted((k, sorted(v)) for k, v in self.values.items() if k not in ("page", "limit"))
        self.digest = blake2b(json.dumps([scope, asked]).encode(), digest_size=8).hexdigest()

    def one(self, name: str) -> str | None:
        """Give the only value of a plain parameter, None when absent."""
        found = self.values.get(name)
        if not found:
            return None
        if len(found) > 1:
            raise Refusal(400, f"'{name}' was given more than once.", param=name)
        return found[0]

    def many(self, name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.values.get(name, ())))

    def allow(self, names: Iterable[str]) -> None:
        """Refuse a parameter this endpoint does not have: a silent typo would hide a client's fault."""
        for name in sorted(set(self.values) - set(names)):
            raise Refusal(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")

    def cursor(self) -> Cursor | None:
        """Give the cursor asked for; refuses one that belongs to another query."""
        page = self.one("page")
        if page is None:
            return None
        found = Cursor.decode(page)
        if found is None or found.digest != self.digest:
            raise Refusal(400, "Invalid page: the cursor does not belong to this query.", param="page")
        return found


@dataclass(frozen=True, slots=True)
class Bucket:
    """The rows that start in [start_s, end_s)."""

    start_s: int
    end_s: int
    rows: tuple[Row, ...]


def page_number(pairs: Iterable[tuple[str, str]]) -> int:
    """Say which page of its walk a request asks for, counted from 1; unreadable cursors count as first."""
    page = dict(pairs).get("page")
    cursor = Cursor.decode(page) if page else None
    return cursor.number if cursor else 1


def cut(query: Query, rows: Iterable[Row], *, most: int) -> tuple[list[Bucket], int | None]:
    """Cut one page of buckets, oldest first and empty ones too; gives also where the next page starts."""
    starts = range(query.start_s, query.end_s, query.width_s)[: min(most, query.limit)]
    found: dict[int, list[Row]] = {start: [] for start in starts}
    for row in rows:
        found[row.start_s - row.start_s % query.width_s].append(row)
    buckets = [Bucket(start, start + query.width_s, tuple(held)) for start, held in found.items()]
    following = query.start_s + len(starts) * query.width_s
    return buckets, following if following < query.end_s else None


def page_end_s(query: Query, *, most: int) -> int:
    """Say where the page ends that `cut` would give."""
    return min(query.start_s + min(most, query.limit) * query.width_s, query.end_s)


type Group = tuple[Dimension, ...]


def grouped(rows: Iterable[Row], group_by: tuple[str, ...]) -> dict[Group, dict[str, int]]:
    """Add up rows that agree in every grouped dimension, in order of first appearance."""
    sums: dict[Group, dict[str, int]] = {}
    for row in rows:
        held = sums.setdefault(tuple(row.dims.get(name) for name in group_by), {})
        for name, value in row.counts.items():
            held[name] = held.get(name, 0) + value
    return sums


def matches(row: Row, filters: Mapping[str, frozenset[str]]) -> bool:
    """Say whether a row passes every filter; filters name dimensions, values are wire strings."""
    for name, wanted in filters.items():
        value = row.dims.get(name)
        text = str(value).lower() if isinstance(value, bool) else value
        if text not in wanted:
            return False
    return True

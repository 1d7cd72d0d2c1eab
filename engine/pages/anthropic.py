"""Anthropic's usage_report/messages pages.

Source: the reference of the usage report (facts/providers-ai.md 2.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pyarrow as pa

from engine.pages.rows import Count, RowDecoder, RowPage, RowShape, columns, table_of
from engine.paging import Page

PATH = "/v1/organizations/usage_report/messages"
WHO = ("workspace_id", "api_key_id", "account_id", "service_account_id")
#: What a price depends on besides the day: exactly as many groupings as the API allows.
PRICED_BY = ("model", "service_tier", "context_window", "inference_geo", "speed")
METRICS = (
    "uncached_input_tokens",
    "cache_read_input_tokens",
    "cache_creation_5m_input_tokens",
    "cache_creation_1h_input_tokens",
    "output_tokens",
    "web_search_requests",
)
#: The table that pages become; the two nested objects are flattened.
ARROW = pa.schema(
    [
        pa.field("usage_date", pa.date32(), nullable=False),
        *(pa.field(name, pa.string()) for name in WHO + PRICED_BY),
        *(pa.field(name, pa.int64()) for name in METRICS),
        pa.field("extra", pa.string()),
        pa.field("x_credential_id", pa.string(), nullable=False),
        pa.field("x_source_sha256", pa.string()),
        pa.field("x_source_index", pa.int64()),
    ]
)
KEY = ("usage_date", *WHO, *PRICED_BY, "x_credential_id")


class CacheCreation(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Tokens written to the cache, by how long they stay."""

    ephemeral_5m_input_tokens: Count | None = None
    ephemeral_1h_input_tokens: Count | None = None


class ServerToolUse(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Requests of tools that run at the provider."""

    web_search_requests: Count | None = None


class Row(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One group's usage in a bucket; token classes are disjoint. `speed` is there only when grouped by."""

    uncached_input_tokens: Count
    cache_read_input_tokens: Count
    output_tokens: Count
    cache_creation: CacheCreation | None = None
    server_tool_use: ServerToolUse | None = None
    workspace_id: str | None = None
    api_key_id: str | None = None
    account_id: str | None = None
    service_account_id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    context_window: str | None = None
    inference_geo: str | None = None
    speed: str | None = None


class Bucket(msgspec.Struct):
    """One UTC day."""

    starting_at: str
    results: list[Row]


_ABSENT = (None, None)
_SHAPE = RowShape(
    Row,
    frozenset({"uncached_input_tokens", "cache_read_input_tokens", "output_tokens"}),
    {
        "cache_creation": RowShape(CacheCreation, frozenset(CacheCreation.__struct_fields__)),
        "server_tool_use": RowShape(ServerToolUse, frozenset(ServerToolUse.__struct_fields__)),
    },
)
_DECODER = RowDecoder(Bucket, _SHAPE)


def page_decoder(
    *, credential_id: str, labels: Mapping[str, str | None] | None = None
) -> Callable[[bytes], Page[pa.Table]]:
    """Return a function that turns a body into a page whose content is a table of schema `ARROW`.

    `labels` are dimensions that the query's filters fix: they are known although the rows do not show them.
    """

    def decode(body: bytes) -> Page[pa.Table]:
        page = _DECODER.decode(body)
        size = len(page.rows)
        days = tuple(_day(bucket.starting_at, place) for place, bucket in enumerate(page.buckets))
        fixed = {name: pa.array([value] * size, pa.string()) for name, value in (labels or {}).items()}
        found = _columns(page) | page.lineage(days, body, credential_id=credential_id) | fixed
        return Page(days, page.has_more, page.next_page, table_of(found, ARROW, size=size))

    return decode


def _columns(page: RowPage) -> dict[str, pa.Array]:
    names = Row.__struct_fields__
    found: dict[str, Any] = dict(zip(names, columns(page.rows, len(names)), strict=True))
    created, used = found.pop("cache_creation"), found.pop("server_tool_use")
    pairs = [
        (c.ephemeral_5m_input_tokens, c.ephemeral_1h_input_tokens) if c is not None else _ABSENT
        for c in created
    ]
    found["cache_creation_5m_input_tokens"] = [short for short, _ in pairs]
    found["cache_creation_1h_input_tokens"] = [long for _, long in pairs]
    found["web_search_requests"] = [None if u is None else u.web_search_requests for u in used]
    return {name: pa.array(values, ARROW.field(name).type) for name, values in found.items()}


def _day(moment: str, place: int) -> date:
    try:
        at = datetime.fromisoformat(moment)
        start = at.astimezone(UTC) if at.tzinfo else None
    except (ValueError, OverflowError):
        start = None
    if start is None or (start.hour, start.minute, start.second, start.microsecond) != (0, 0, 0, 0):
        raise msgspec.ValidationError(
            f"Expected a bucket that starts at 00:00 UTC, got {moment[:40]!r}"
            f" - at `$.data[{place}].starting_at`"
        )
    return start.date()

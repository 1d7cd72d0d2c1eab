"""Anthropic's organisation usage and cost reports, written from their documentation (facts section 2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sandbox.answer import Page, Report, answer, organisation
from sandbox.claude_code import claude_code
from sandbox.data import Provider
from sandbox.prices import Charge, charges
from sandbox.query import (
    BUCKETS,
    INTEGER,
    WIDTH_S,
    Bucket,
    Cursor,
    Params,
    Query,
    Refusal,
    cut,
    grouped,
    matches,
    page_end_s,
)
from sandbox.rows import Dimension, Row
from sandbox.state import State
from sandbox.styles import dump, iso, ordered, ordered_rows, page_size, plain

VERSION = "2023-06-01"
FAST_BETA = "fast-mode-2026-02-01"
MOST_GROUPS = 5
# RFC 3339: a date alone is no moment.
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
USAGE_GROUPS = (
    "account_id",
    "api_key_id",
    "context_window",
    "inference_geo",
    "model",
    "service_account_id",
    "service_tier",
    "speed",
    "workspace_id",
)
USAGE_FILTERS = {
    "account_ids": "account_id",
    "api_key_ids": "api_key_id",
    "workspace_ids": "workspace_id",
    "service_account_ids": "service_account_id",
    "models": "model",
    "service_tiers": "service_tier",
    "context_window": "context_window",
    "inference_geos": "inference_geo",
    "speeds": "speed",
}
FILTER_VALUES = {
    "service_tiers": ("batch", "flex", "flex_discount", "priority", "priority_on_demand", "standard"),
    "context_window": ("0-200k", "200k-1M"),
    "inference_geos": ("global", "us", "not_available"),
    "speeds": ("fast", "standard"),
}
COST_GROUPS = ("workspace_id", "description")
COST_BUCKETS = {"1d": (7, 31)}
# What a cost row says beyond its amount, null unless grouped by description.
DESCRIBED = (
    "description",
    "cost_type",
    "token_type",
    "model",
    "service_tier",
    "context_window",
    "inference_geo",
)
PLAIN = ("starting_at", "ending_at", "bucket_width", "limit", "page", "group_by")


class Anthropic:
    """How Anthropic reads a key and writes an error and a page."""

    provider: Provider = "anthropic"
    id_header = "request-id"

    def key(self, request: Request) -> str | None:
        return request.headers.get("x-api-key") or None

    def admit(self, request: Request, key: str | None) -> None:
        if self.key(request) is None:
            raise Refusal(401, "x-api-key header is required")
        if organisation(self, key) is None:
            if key and key.startswith("sk-ant-") and not key.startswith("sk-ant-admin"):
                raise Refusal(403, "This API requires an Admin API key.")
            raise Refusal(401, "invalid x-api-key")
        version = request.headers.get("anthropic-version")
        if version is None:
            raise Refusal(400, "anthropic-version: header is required")
        if version != VERSION:
            raise Refusal(400, f"anthropic-version: {version} is not a valid version")
        params = Params(request.query_params.multi_items(), scope="")
        betas = request.headers.get("anthropic-beta", "").replace(" ", "").split(",")
        if FAST_BETA not in betas and ("speed" in params.many("group_by") or params.many("speeds")):
            raise Refusal(400, f"speed requires the anthropic-beta header {FAST_BETA}.")

    def refuse(self, refusal: Refusal, *, request_id: str) -> Response:
        kind = ERRORS.get(refusal.status, "invalid_request_error")
        body = dump({"type": "error", "error": {"type": kind, "message": refusal.message}})
        return Response(body, refusal.status, {self.id_header: request_id}, media_type="application/json")

    def write(self, page: dict[str, Any], *, style: str) -> dict[str, Any]:
        return ordered(style, {**page, "first_id": None} if style == "extra" else page)


def parse(
    params: Params,
    now_s: int,
    *,
    groups: tuple[str, ...],
    filters: Mapping[str, str],
    limits: Mapping[str, tuple[int, int]],
) -> Query:
    """Check a query as documented in facts 2.2 and 2.3; refuses with 400."""
    params.allow((*PLAIN, *filters))
    width = params.one("bucket_width") or "1d"
    if width not in limits:
        raise _invalid("bucket_width", tuple(limits))
    start_s, end_s = _moment(params, "starting_at"), _moment(params, "ending_at")
    if start_s is None:
        raise Refusal(400, "starting_at: Field required")
    if end_s is not None and end_s <= start_s:
        raise Refusal(400, "ending_at: must be after starting_at")
    group_by = params.many("group_by")
    if len(group_by) > MOST_GROUPS:
        raise Refusal(400, f"Cannot specify more than {MOST_GROUPS} group_by[] dimensions.")
    if any(value not in groups for value in group_by):
        raise _invalid("group_by[]", groups)
    for name, allowed in FILTER_VALUES.items():
        if any(value not in allowed for value in params.many(name)):
            raise _invalid(name, allowed)
    default, most = limits[width]
    width_s, cursor = WIDTH_S[width], params.cursor()
    # The start snaps to its bucket; with an end, only buckets that end by then are given.
    last_s = -(-now_s // width_s) * width_s if end_s is None else end_s - end_s % width_s
    return Query(
        start_s=cursor.position if cursor else start_s - start_s % width_s,
        end_s=cursor.end if cursor else last_s,
        width_s=width_s,
        limit=limit_of(params, default, most),
        group_by=group_by,
        filters={dim: frozenset(params.many(name)) for name, dim in filters.items() if params.many(name)},
        digest=params.digest,
        page=cursor.number if cursor else 1,
    )


def _invalid(name: str, allowed: tuple[str, ...]) -> Refusal:
    return Refusal(400, f"{name}: Input should be {', '.join(repr(value) for value in allowed)}")


def _moment(params: Params, name: str) -> int | None:
    text = params.one(name)
    if text is None:
        return None
    try:
        # An unescaped "+02:00" arrives with a space for its plus and is rightly refused.
        found = datetime.fromisoformat(text.upper()) if MOMENT.fullmatch(text) else None
        second = int(found.astimezone(UTC).timestamp()) if found else None
    except (ValueError, OverflowError):
        second = None
    if second is None or second < 0:
        raise Refusal(400, f"{name}: Input should be a valid RFC 3339 datetime")
    return second


def limit_of(params: Params, default: int, most: int) -> int:
    """Check `limit`: out of range is refused, never clamped."""
    text = params.one("limit")
    if text is None:
        return default
    if not INTEGER.fullmatch(text):
        raise Refusal(400, "limit: Input should be a valid integer")
    if int(text) > most:
        raise Refusal(400, f"limit: Input should be less than or equal to {most}")
    if int(text) < 1:
        raise Refusal(400, "limit: Input should be greater than or equal to 1")
    return int(text)


def messages(state: State, org: str, params: Params) -> Page:
    """Report token usage of the Messages API per bucket (facts 2.2)."""
    query = parse(
        params,
        int(state.now().timestamp()),
        groups=USAGE_GROUPS,
        filters=USAGE_FILTERS,
        limits=BUCKETS,
    )
    style = state.style_of(org)

    def write(bucket: Bucket) -> list[dict[str, Any]]:
        rows = [row for row in bucket.rows if row.kind == "messages" and matches(row, query.filters)]
        sums = grouped(rows, query.group_by)
        return [
            _usage_row(style, dict(zip(query.group_by, group, strict=True)), counts)
            for group, counts in sums.items()
        ]

    return _page(state, org, query, write)


def _usage_row(style: str, group: dict[str, Dimension], counts: Mapping[str, int]) -> dict[str, Any]:
    created = {name: counts[name] for name in ("ephemeral_1h_input_tokens", "ephemeral_5m_input_tokens")}
    searches = {"web_search_requests": counts["web_search_requests"]}
    row: dict[str, Any] = {
        "uncached_input_tokens": counts["uncached_input_tokens"],
        "cache_creation": ordered(style, created),
        "cache_read_input_tokens": counts["cache_read_input_tokens"],
        "output_tokens": counts["output_tokens"],
        "server_tool_use": searches,
    }
    if style == "nulls":
        row["cache_creation"] = row["cache_creation"] if any(created.values()) else None
        row["server_tool_use"] = searches if any(searches.values()) else None
    if style == "minimal":
        return ordered(style, row | group)
    # `speed` is a grouping, but no field of the documented row: it is there only when asked for.
    row |= dict.fromkeys(name for name in USAGE_GROUPS if name != "speed") | group
    if style == "extra":
        row["organization_uuid"] = "org-sandbox"
        row["cache_creation"]["ephemeral_24h_input_tokens"] = 0
    return ordered(style, row)


def costs(state: State, org: str, params: Params) -> Page:
    """Report what the organisation is charged: cents per day, as decimal strings (facts 2.3)."""
    query = parse(params, int(state.now().timestamp()), groups=COST_GROUPS, filters={}, limits=COST_BUCKETS)
    style = state.style_of(org)
    return _page(state, org, query, lambda bucket: _cost_rows(bucket, query, style))


def _cost_rows(bucket: Bucket, query: Query, style: str) -> list[dict[str, Any]]:
    sums: dict[tuple[Dimension, ...], Decimal] = {}
    described, by_workspace = "description" in query.group_by, "workspace_id" in query.group_by
    for used in bucket.rows:
        for charge in charges(used):
            workspace = used.dims.get("workspace_id") if by_workspace else None
            facts = _described(used, charge) if described else (None,) * len(DESCRIBED)
            group = (workspace, *facts)
            sums[group] = sums.get(group, Decimal(0)) + charge.usd
    rows = []
    for (workspace, *named), usd in sums.items():
        # Lowest units: "123.45" are 1.2345 dollars.
        row: dict[str, Any] = {"amount": plain(usd * 100), "currency": "USD", "workspace_id": workspace}
        row |= dict(zip(DESCRIBED, named, strict=True))
        if style == "minimal":
            asked = {"amount", "currency"} | ({"workspace_id"} if by_workspace else set())
            asked |= set(DESCRIBED) if described else set()
            row = {name: value for name, value in row.items() if name in asked}
        if style == "extra":
            row["list_amount"] = plain(usd * 100)
        rows.append(ordered(style, row))
    return rows


def _described(row: Row, charge: Charge) -> tuple[Dimension, ...]:
    """Say what the cost is for; only token costs have a model, tier, window and geography."""
    tokens = charge.cost_type == "tokens"
    dims = row.dims if tokens else {}
    return (
        charge.label,
        charge.cost_type,
        charge.token_type,
        *(dims.get(name) for name in ("model", "service_tier", "context_window", "inference_geo")),
    )


type Write = Callable[[Bucket], list[dict[str, Any]]]


def _page(state: State, org: str, query: Query, write: Write) -> Page:
    style = state.style_of(org)
    most = page_size(style, query.limit)
    rows = state.rows("anthropic", org, query.start_s, page_end_s(query, most=most))
    buckets, following = cut(query, rows, most=most)
    data = [
        ordered(
            style,
            {
                "starting_at": iso(bucket.start_s),
                "ending_at": iso(bucket.end_s),
                "results": ordered_rows(style, write(bucket)),
            },
        )
        for bucket in buckets
    ]
    cursor = Cursor(query.digest, following, query.end_s, query.page + 1) if following is not None else None
    return Page(data, cursor, query.width_s)


def app(state: State, control: list[BaseRoute]) -> Starlette:
    """Build the HTTP application: the documented paths, and a vendor's 404 for every other."""
    vendor = Anthropic()

    def route(path: str, report: Report | None) -> Route:
        async def endpoint(request: Request) -> Response:
            return await answer(state, vendor, request, report)

        return Route(path, endpoint, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])

    reports: dict[str, Report] = {
        "/v1/organizations/usage_report/messages": messages,
        "/v1/organizations/usage_report/claude_code": claude_code,
        "/v1/organizations/cost_report": costs,
    }
    known = [route(path, report) for path, report in reports.items()]
    return Starlette(routes=[*control, *known, route("/{rest:path}", None)])

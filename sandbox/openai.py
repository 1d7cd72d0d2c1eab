"""OpenAI's organisation usage and costs API, written from its documentation (facts section 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sandbox.answer import Page, Report, answer, organisation
from sandbox.data import Provider
from sandbox.prices import charges
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
from sandbox.rows import Dimension
from sandbox.state import State
from sandbox.styles import dump, iso, ordered, ordered_rows, page_size, plain
from sandbox.usage_openai import COUNTERS

LATEST_S = 253_402_300_799  # 9999-12-31; a value above it is milliseconds
COSTS_BUCKETS = (7, 180)
# Costs by API key are refused for older windows, naming this second: 2025-12-06Z (facts 1.6).
KEY_COSTS_FROM_S = 1_764_979_200
WHO = {"project_ids": "project_id", "user_ids": "user_id", "api_key_ids": "api_key_id"}
WHO_MODEL = {**WHO, "models": "model"}
DIMS = ("project_id", "user_id", "api_key_id", "model")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One usage endpoint: its row's object name, counters, groupings and filters (facts 1.2, 1.4)."""

    name: str
    required: tuple[str, ...]
    group_by: tuple[str, ...]
    filters: Mapping[str, str]
    optional: tuple[str, ...] = ()
    # Groupings only newer SDKs know: their field is absent from a row unless grouped.
    newer: tuple[str, ...] = ()

    @property
    def object(self) -> str:
        return f"organization.usage.{self.name}.result"


_TOKENS = ("input_tokens", "output_tokens", "num_model_requests")
_COMPLETION_DIMS = (*DIMS, "batch", "service_tier")
_COMPLETION_FILTERS = {**WHO_MODEL, "batch": "batch"}
ENDPOINTS = {
    "completions": Endpoint(
        "completions", _TOKENS, _COMPLETION_DIMS, _COMPLETION_FILTERS, COUNTERS, ("api_source",)
    ),
    "decisions": Endpoint(
        "decisions", _TOKENS, _COMPLETION_DIMS, _COMPLETION_FILTERS, COUNTERS, ("api_source",)
    ),
    "embeddings": Endpoint("embeddings", ("input_tokens", "num_model_requests"), DIMS, WHO_MODEL),
    "moderations": Endpoint("moderations", ("input_tokens", "num_model_requests"), DIMS, WHO_MODEL),
    "images": Endpoint(
        "images",
        ("images", "num_model_requests"),
        ("source", "size", *DIMS),
        {**WHO_MODEL, "sources": "source", "sizes": "size"},
    ),
    "audio_speeches": Endpoint("audio_speeches", ("characters", "num_model_requests"), DIMS, WHO_MODEL),
    "audio_transcriptions": Endpoint(
        "audio_transcriptions", ("seconds", "num_model_requests"), DIMS, WHO_MODEL
    ),
    "vector_stores": Endpoint(
        "vector_stores", ("usage_bytes",), ("project_id",), {"project_ids": "project_id"}
    ),
    "code_interpreter_sessions": Endpoint(
        "code_interpreter_sessions", ("num_sessions",), ("project_id",), {"project_ids": "project_id"}
    ),
    # The two row objects are named differently from their paths.
    "file_search_calls": Endpoint(
        "file_searches",
        ("num_requests",),
        ("project_id", "user_id", "api_key_id", "vector_store_id"),
        {**WHO, "vector_store_ids": "vector_store_id"},
    ),
    "web_search_calls": Endpoint(
        "web_searches",
        ("num_model_requests", "num_requests"),
        (*DIMS, "context_level"),
        {**WHO_MODEL, "context_levels": "context_level"},
        newer=("api_source",),
    ),
}
FILTER_VALUES = {
    "batch": ("true", "false"),
    "sources": ("image.generation", "image.edit", "image.variation"),
    # The spec lists 1792x1792 where line items show 1792x1024 (facts 1.2): both are taken.
    "sizes": ("256x256", "512x512", "1024x1024", "1792x1792", "1024x1792", "1792x1024"),
    "context_levels": ("low", "medium", "high"),
}
COST_GROUPS = ("project_id", "line_item", "api_key_id")
COST_NEWER = ("user_id", "api_source")
COST_FILTERS = {"project_ids": "project_id", "api_key_ids": "api_key_id", "line_items": "line_item"}
PLAIN = ("start_time", "end_time", "bucket_width", "limit", "page", "group_by")


class OpenAI:
    """How OpenAI reads a key and writes an error and a page."""

    provider: Provider = "openai"
    id_header = "x-request-id"

    def key(self, request: Request) -> str | None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return key.strip() or None if scheme.lower() == "bearer" else None

    def admit(self, request: Request, key: str | None) -> None:
        if organisation(self, key) is not None:
            return
        if self.key(request) is None:
            raise Refusal(401, "Missing bearer authentication in header", code="missing_api_key")
        if key and key.startswith("sk-") and not key.startswith(("sk-admin-", "sk-ant-")):
            text = "You have insufficient permissions for this operation. Missing scopes: api.usage.read."
            raise Refusal(403, text)
        shown = f"****{str(self.key(request))[-4:]}"
        raise Refusal(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")

    def refuse(self, refusal: Refusal, *, request_id: str) -> Response:
        kinds = {429: "rate_limit_error", 500: "server_error", 529: "server_error"}
        error = {
            "message": refusal.message,
            "type": kinds.get(refusal.status, "invalid_request_error"),
            "param": refusal.param,
            "code": refusal.code,
        }
        body, headers = dump({"error": error}), {self.id_header: request_id}
        return Response(body, refusal.status, headers, media_type="application/json")

    def write(self, page: dict[str, Any], *, style: str) -> dict[str, Any]:
        extra = {"organization": "org-sandbox"} if style == "extra" else {}
        return ordered(style, {"object": "page", **page, **extra})


def parse(
    params: Params,
    now_s: int,
    *,
    widths: tuple[str, ...],
    groups: tuple[str, ...],
    filters: Mapping[str, str],
    limits: Mapping[str, tuple[int, int]],
) -> Query:
    """Check a query as documented in facts 1.2; refuses with 400."""
    params.allow((*PLAIN, *filters))
    start_s, end_s = _second(params, "start_time"), _second(params, "end_time")
    if start_s is None:
        raise Refusal(400, "Missing required parameter: 'start_time'.", param="start_time")
    if end_s is not None and end_s <= start_s:
        raise Refusal(400, "Invalid 'end_time': it must be after 'start_time'.", param="end_time")
    width = params.one("bucket_width") or "1d"
    if width not in widths:
        raise _invalid("bucket_width", width, widths)
    group_by = params.many("group_by")
    for value in group_by:
        if value not in groups:
            raise _invalid("group_by", value, groups)
    for name, allowed in FILTER_VALUES.items():
        for value in params.many(name):
            if value not in allowed:
                raise _invalid(name, value, allowed)
    width_s, cursor = WIDTH_S[width], params.cursor()
    end_s = now_s if end_s is None else end_s
    # A day is whole or absent: the window grows to bucket edges, 7 days from noon are 8 buckets (facts 1.6).
    first_s, last_s = start_s - start_s % width_s, -(-end_s // width_s) * width_s
    return Query(
        start_s=cursor.position if cursor else first_s,
        end_s=cursor.end if cursor else last_s,
        width_s=width_s,
        limit=_limit(params, *limits[width]),
        group_by=group_by,
        filters={dim: frozenset(params.many(name)) for name, dim in filters.items() if params.many(name)},
        digest=params.digest,
        page=cursor.number if cursor else 1,
    )


def _invalid(name: str, value: str, allowed: tuple[str, ...]) -> Refusal:
    listed = ", ".join(f"'{item}'" for item in allowed)
    text = f"Invalid value: '{value}'. Supported values are: {listed}."
    return Refusal(400, text, param=name, code="invalid_value")


def _second(params: Params, name: str) -> int | None:
    text = params.one(name)
    if text is None:
        return None
    if not INTEGER.fullmatch(text) or not 0 <= int(text) <= LATEST_S:
        raise Refusal(400, f"Invalid '{name}': expected Unix seconds, got '{text}'.", param=name)
    return int(text)


def _limit(params: Params, default: int, most: int) -> int:
    text = params.one("limit")
    if text is None:
        return default
    if not INTEGER.fullmatch(text):
        raise Refusal(400, f"Invalid limit provided: {text}. Limit must be an integer.", param="limit")
    if int(text) > most:
        message = f"Invalid limit provided: {text}. Limit must be less than or equal to {most}."
        raise Refusal(400, message, param="limit")
    if int(text) < 1:
        message = f"Invalid limit provided: {text}. Limit must be greater than or equal to 1."
        raise Refusal(400, message, param="limit")
    return int(text)


def usage(path: str) -> Report:
    """Build the report of one usage endpoint."""
    endpoint = ENDPOINTS[path]

    def report(state: State, org: str, params: Params) -> Page:
        query = parse(
            params,
            int(state.now().timestamp()),
            widths=tuple(WIDTH_S),
            groups=(*endpoint.group_by, *endpoint.newer),
            filters=endpoint.filters,
            limits=BUCKETS,
        )
        style = state.style_of(org)

        def write(bucket: Bucket) -> list[dict[str, Any]]:
            rows = [row for row in bucket.rows if row.kind == path and matches(row, query.filters)]
            sums = grouped(rows, query.group_by)
            return [
                _usage_row(endpoint, style, dict(zip(query.group_by, group, strict=True)), counts)
                for group, counts in sums.items()
            ]

        return _page(state, org, query, write)

    return report


def _usage_row(
    endpoint: Endpoint, style: str, group: dict[str, Dimension], counts: Mapping[str, int]
) -> dict[str, Any]:
    row: dict[str, Any] = {"object": endpoint.object}
    row |= {name: counts[name] for name in endpoint.required}
    if style == "minimal":
        return ordered(style, row | group)
    for name in endpoint.optional:
        row[name] = None if style == "nulls" else counts[name]
    row |= dict.fromkeys(endpoint.group_by) | group
    if style == "extra":
        row["organization_id"] = "org-sandbox"
        row["x_new_counter"] = {"nested": [1, 2]}
        if endpoint.optional:
            row["input_cache_write_30m_tokens"] = counts["input_cache_write_tokens"]
            row["input_cache_write_12h_tokens"] = 0
    return ordered(style, row)


def costs(state: State, org: str, params: Params) -> Page:
    """Report what the organisation is charged: dollars per day (facts 1.4, 1.6)."""
    query = parse(
        params,
        int(state.now().timestamp()),
        widths=("1d",),
        groups=(*COST_GROUPS, *COST_NEWER),
        filters=COST_FILTERS,
        limits={"1d": COSTS_BUCKETS},
    )
    if "api_key_id" in query.group_by and query.start_s < KEY_COSTS_FROM_S:
        text = f"Grouping by api_key_id is available from start_time {KEY_COSTS_FROM_S} on."
        raise Refusal(400, text, param="group_by")
    if {"user_id", "project_id"} <= set(query.group_by):
        raise Refusal(400, "user_id cannot be combined with project_id.", param="group_by")
    style = state.style_of(org)
    return _page(state, org, query, lambda bucket: _cost_rows(bucket, query, style))


def _cost_rows(bucket: Bucket, query: Query, style: str) -> list[dict[str, Any]]:
    sums: dict[tuple[Dimension, ...], tuple[Decimal, Decimal, str]] = {}
    lines = query.filters.get("line_item")
    filters = {name: wanted for name, wanted in query.filters.items() if name != "line_item"}
    for used in bucket.rows:
        if not matches(used, filters):
            continue
        for charge in charges(used):
            if lines is not None and charge.label not in lines:
                continue
            dims = {**used.dims, "line_item": charge.label}
            group = tuple(dims.get(name) for name in query.group_by)
            usd, quantity, _ = sums.get(group, (Decimal(0), Decimal(0), ""))
            sums[group] = (usd + charge.usd, quantity + charge.quantity, charge.unit)
    return [
        _cost_row(query, style, dict(zip(query.group_by, group, strict=True)), *found)
        for group, found in sums.items()
    ]


def _cost_row(
    query: Query, style: str, group: dict[str, Dimension], usd: Decimal, quantity: Decimal, unit: str
) -> dict[str, Any]:
    # In style "strings" tiny values come in exponent form as well: 1.5E-7.
    value = str(usd.normalize()) if style == "strings" and usd < Decimal("0.001") else plain(usd)
    amount = {"value": value if style == "strings" else usd, "currency": "usd"}
    row: dict[str, Any] = {"object": "organization.costs.result", "amount": ordered(style, amount)}
    if style == "minimal":
        return ordered(style, row | group)
    row |= dict.fromkeys(COST_GROUPS) | group
    # Quantities of different units cannot be added, so only a line item has one.
    known = "line_item" in query.group_by and style != "nulls" and unit != "1"
    row |= {"quantity": quantity if known else None, "quantity_unit": unit if known else None}
    if style == "extra":
        row |= {"organization_id": "org-sandbox", "organization_name": "Sandbox"}
    return ordered(style, row)


type Write = Callable[[Bucket], list[dict[str, Any]]]


def _page(state: State, org: str, query: Query, write: Write) -> Page:
    style = state.style_of(org)
    most = page_size(style, query.limit)
    rows = state.rows("openai", org, query.start_s, page_end_s(query, most=most))
    buckets, following = cut(query, rows, most=most)
    data = []
    for bucket in buckets:
        entry: dict[str, Any] = {
            "object": "bucket",
            "start_time": bucket.start_s,
            "end_time": bucket.end_s,
            "results": ordered_rows(style, write(bucket)),
        }
        if style == "extra":
            entry |= {"start_time_iso": iso(bucket.start_s), "end_time_iso": iso(bucket.end_s)}
        data.append(ordered(style, entry))
    cursor = Cursor(query.digest, following, query.end_s, query.page + 1) if following is not None else None
    return Page(data, cursor, query.width_s)


def app(state: State, control: list[BaseRoute]) -> Starlette:
    """Build the HTTP application: the documented paths, and a vendor's 404 for every other."""
    vendor = OpenAI()

    def route(path: str, report: Report | None) -> Route:
        async def endpoint(request: Request) -> Response:
            return await answer(state, vendor, request, report)

        return Route(path, endpoint, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])

    reports: dict[str, Report] = {f"/v1/organization/usage/{name}": usage(name) for name in ENDPOINTS}
    reports["/v1/organization/costs"] = costs
    known = [route(path, report) for path, report in reports.items()]
    return Starlette(routes=[*control, *known, route("/{rest:path}", None)])

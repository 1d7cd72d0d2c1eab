"""OpenAI's organisation usage pages.

Source: OpenAI's OpenAPI 2.3.0 and openai-python 3.54.0 (facts/providers-ai.md 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property

import msgspec
import pyarrow as pa

from engine.pages.rows import Count, RowDecoder, RowPage, RowShape, columns, list_of, table_of
from engine.paging import Page

DIMENSIONS = (
    "project_id",
    "user_id",
    "api_key_id",
    "model",
    "batch",
    "service_tier",
    "api_source",
    "source",
    "size",
    "vector_store_id",
    "context_level",
)
METRICS = (
    "input_tokens",
    "output_tokens",
    "num_model_requests",
    "input_cached_tokens",
    "input_cache_write_tokens",
    "input_cache_write_30m_tokens",
    "input_cache_write_12h_tokens",
    "input_uncached_tokens",
    "input_text_tokens",
    "output_text_tokens",
    "input_cached_text_tokens",
    "input_audio_tokens",
    "input_cached_audio_tokens",
    "output_audio_tokens",
    "input_image_tokens",
    "input_cached_image_tokens",
    "output_image_tokens",
    "images",
    "characters",
    "seconds",
    "usage_bytes",
    "num_sessions",
    "num_requests",
)
#: The table that pages become; key, dimensions and metrics under the API's own names.
ARROW = pa.schema(
    [
        pa.field("usage_date", pa.date32(), nullable=False),
        pa.field("endpoint", pa.string(), nullable=False),
        *(pa.field(name, pa.bool_() if name == "batch" else pa.string()) for name in DIMENSIONS),
        *(pa.field(name, pa.int64()) for name in METRICS),
        pa.field("extra", pa.string()),
        pa.field("x_credential_id", pa.string(), nullable=False),
        pa.field("x_source_sha256", pa.string()),
        pa.field("x_source_index", pa.int64()),
    ]
)
KEY = ("usage_date", "endpoint", *DIMENSIONS, "x_credential_id")

_LAST_S = 253_402_214_400  # 9999-12-31T00:00Z, the last day a date can say
_WHO = ("project_id", "user_id", "api_key_id")


@dataclass(frozen=True)
class Endpoint:
    """One usage report: the finest documented grouping, the counters every row has and those it may have.

    `newer` are groupings that only newer servers know.
    """

    name: str
    groups: tuple[str, ...]
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The path under the base URL."""
        return f"/organization/usage/{self.name}"

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The row's fields that become columns, in the struct's order."""
        return (*self.required, *self.optional, *self.groups, *self.newer)

    @cached_property
    def decoder(self) -> RowDecoder:
        """Decoder of this endpoint's pages."""
        dims = [(name, (bool if name == "batch" else str) | None, None) for name in self.groups + self.newer]
        row = msgspec.defstruct(
            "Row",
            [
                *((name, Count) for name in self.required),
                *((name, Count | None, None) for name in self.optional),
                *dims,
                ("object", str | None, None),
            ],
            forbid_unknown_fields=True,
            gc=False,
        )
        bucket = msgspec.defstruct("Bucket", [("start_time", int), ("results", list_of(row))])
        return RowDecoder(bucket, RowShape(row, frozenset(self.required + self.optional)))


_COMPLETIONS = Endpoint(
    "completions",
    (*_WHO, "model", "batch", "service_tier"),
    METRICS[:3],
    METRICS[3:17],
    newer=("api_source",),
)
_BY_MODEL = (*_WHO, "model")
ENDPOINTS = {
    endpoint.name: endpoint
    for endpoint in (
        _COMPLETIONS,
        Endpoint("embeddings", _BY_MODEL, ("input_tokens", "num_model_requests")),
        Endpoint("moderations", _BY_MODEL, ("input_tokens", "num_model_requests")),
        Endpoint("images", (*_BY_MODEL, "source", "size"), ("images", "num_model_requests")),
        Endpoint("audio_speeches", _BY_MODEL, ("characters", "num_model_requests")),
        Endpoint("audio_transcriptions", _BY_MODEL, ("seconds", "num_model_requests")),
        Endpoint("vector_stores", ("project_id",), ("usage_bytes",)),
        Endpoint("code_interpreter_sessions", ("project_id",), ("num_sessions",)),
        Endpoint("file_search_calls", (*_WHO, "vector_store_id"), ("num_requests",)),
        Endpoint(
            "web_search_calls",
            (*_BY_MODEL, "context_level"),
            ("num_model_requests", "num_requests"),
            newer=("api_source",),
        ),
        Endpoint(
            "decisions", _COMPLETIONS.groups, _COMPLETIONS.required, _COMPLETIONS.optional, _COMPLETIONS.newer
        ),
    )
}
#: What the OpenAPI document lists; `decisions` is known to newer servers only.
DOCUMENTED = tuple(name for name in ENDPOINTS if name != "decisions")


def page_decoder(endpoint: Endpoint, *, credential_id: str) -> Callable[[bytes], Page[pa.Table]]:
    """Return a function that turns a body into a page whose content is a table of schema `ARROW`."""

    def decode(body: bytes) -> Page[pa.Table]:
        page = endpoint.decoder.decode(body)
        days = tuple(_day(bucket.start_time, place) for place, bucket in enumerate(page.buckets))
        columns = endpoint_columns(page, endpoint) | page.lineage(days, body, credential_id=credential_id)
        columns["endpoint"] = pa.repeat(endpoint.name, len(page.rows))
        return Page(days, page.has_more, page.next_page, table_of(columns, ARROW, size=len(page.rows)))

    return decode


def endpoint_columns(page: RowPage, endpoint: Endpoint) -> dict[str, pa.Array]:
    """Build the columns that this endpoint's rows carry."""
    found = zip(endpoint.fields, columns(page.rows, len(endpoint.fields) + 1), strict=False)
    return {name: pa.array(values, ARROW.field(name).type) for name, values in found}


def _day(second: int, place: int) -> date:
    if not second % 86400 and 0 <= second <= _LAST_S:
        return datetime.fromtimestamp(second, UTC).date()
    raise msgspec.ValidationError(
        f"Expected a bucket that starts at 00:00 UTC, got {second} - at `$.data[{place}].start_time`"
    )

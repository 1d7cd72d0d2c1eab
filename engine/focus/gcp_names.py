"""Google Cloud's units and labels in FOCUS's spelling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import polars as pl

_UNITS: Final = {
    "byte": "B",
    "bytes": "B",
    "byte-seconds": "B-Seconds",
    "count": "Count",
    "day": "Days",
    "gibibyte": "GiB",
    "gibibyte day": "GiB-Days",
    "gibibyte hour": "GiB-Hours",
    "gibibyte month": "GiB-Months",
    "gigabyte": "GB",
    "hour": "Hours",
    "minute": "Minutes",
    "month": "Months",
    "requests": "Requests",
    "second": "Seconds",
    "seconds": "Seconds",
    "tebibyte": "TiB",
    "tebibyte month": "TiB-Months",
}
_SOURCES: Final = ("labels", "project_labels", "tags", "system_labels")


def unit_name(unit: pl.Expr) -> pl.Expr:
    """FOCUS's word for one of Google's units; a unit that is not known stays as it is."""
    return unit.replace(_UNITS)


def tags_of(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with `Tags`: one JSON object of all labels and tags, or NULL.

    A resource's own labels keep their keys and system labels bring a prefix of their own; `project:` and
    `tag:` stand before the other two. Rows share few sets of labels: each set is put together once.
    """
    sets = rows.select(_SOURCES).unique()
    made = pl.Series("Tags", [_tags(row) for row in sets.iter_rows(named=True)], dtype=pl.String)
    return rows.join(
        sets.with_columns(made), on=list(_SOURCES), how="left", nulls_equal=True, maintain_order="left"
    )


def _tags(row: dict[str, str | None]) -> str | None:
    found: dict[str, Any] = {}
    for source in reversed(_SOURCES):
        for key, value in _pairs(row[source]):
            prefix = {"project_labels": "project:", "tags": "tag:"}.get(source, "")
            # A key without a value is true in FOCUS.
            found[f"{prefix}{key}"] = True if value in (None, "") else value
    return json.dumps(found, sort_keys=True, ensure_ascii=False) if found else None


def _pairs(text: str | None) -> Iterator[tuple[str, Any]]:
    """Keys and values of an object, or of a list of {key, value, namespace}."""
    held = json.loads(text) if text else {}
    if isinstance(held, dict):
        yield from held.items()
        return
    for entry in held:
        namespace = entry.get("namespace")
        key = entry.get("key") or ""
        yield f"{namespace}/{key}" if namespace else key, entry.get("value")

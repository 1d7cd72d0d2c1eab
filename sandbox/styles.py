"""The ways an answer may differ and still be right: absent fields, nulls, extras, order, page size."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

STYLES = ("full", "minimal", "nulls", "extra", "strings")
_NUMBER = re.compile(r'"\\u0000([^"]+)"')


def check_style(style: str) -> None:
    if style not in STYLES:
        raise ValueError(f"unknown style '{style}'; there are {', '.join(STYLES)}")


def page_size(style: str, limit: int) -> int:
    """Say how many buckets a page holds: never more than asked, in some styles fewer."""
    if style == "minimal":
        return (limit + 1) // 2
    if style == "extra":
        return max(limit - 1, 1)
    return limit


def iso(second: int) -> str:
    """Write Unix seconds as `2025-08-01T00:00:00Z`."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ordered(style: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Put an object's keys in the order of the style: JSON objects have none."""
    names = list(fields)
    if style in ("nulls", "strings"):
        names.reverse()
    elif style == "extra":
        names.sort(key=lambda name: name[::-1])
    return {name: fields[name] for name in names}


def ordered_rows(style: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put a bucket's rows in the order of the style: no vendor documents one."""
    return rows[::-1] if style in ("minimal", "strings") else rows


def dump(value: Any) -> bytes:
    """Write JSON; a Decimal becomes a number literal with all its digits."""
    text = json.dumps(value, separators=(",", ":"), default=_literal)
    return _NUMBER.sub(r"\1", text).encode()


def _literal(value: object) -> str:
    if isinstance(value, Decimal):
        # NUL cannot occur in the sandbox's strings, so it marks what must lose its quotes.
        return "\0" + plain(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def plain(value: Decimal) -> str:
    """Write a decimal without an exponent and without trailing zeros."""
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"

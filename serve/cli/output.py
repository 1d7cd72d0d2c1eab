"""How things look: tables, numbers, JSON lines, errors."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.errors import MantaError, NotFoundError, UsageError

SUCCEEDED, FAILED, BAD_USAGE = 0, 1, 2
CENT = Decimal("0.01")
STATE_STYLES = {
    "SUCCESS": "green",
    "PUBLISHED": "green",
    "UP": "green",
    "PARTIAL": "yellow",
    "WAITING": "yellow",
    "CANCELLED": "yellow",
    "FAILED": "red",
    "QUARANTINED": "red",
    "DOWN": "red",
}


def exit_code(error: MantaError) -> int:
    """2 for what the caller asked wrongly, 1 for everything else."""
    return BAD_USAGE if isinstance(error, (UsageError, NotFoundError)) else FAILED


def say_error(console: Console, error: MantaError, *, as_json: bool) -> None:
    """Two lines for people, or one JSON object."""
    if as_json:
        facts = {"code": error.code, "message": error.message, "fix": error.fix, "field": error.field}
        line(console, json.dumps(facts))
        return
    line(console, f"manta: {error.message}")
    if error.fix:
        line(console, f"  fix: {error.fix}")


def line(console: Console, text: str = "", *, style: str | None = None) -> None:
    """One line as it is: no markup in it, never cut (a command or a path must stay whole)."""
    console.print(Text(text, style=style or ""), soft_wrap=True)


def state(name: str) -> Text:
    """A state in its colour."""
    return Text(name, style=STATE_STYLES.get(name, ""))


def table(
    console: Console,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    title: str | None = None,
    footer: Sequence[object] | None = None,
) -> None:
    """A table without frames; the columns in `right` are numbers. `None` shows as a dash."""
    if title:
        line(console, title, style="bold")
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    drawn.show_footer = footer is not None
    for n, name in enumerate(columns):
        drawn.add_column(
            name,
            footer=_cell(footer[n]) if footer is not None else "",
            justify="right" if name in right else "left",
            overflow="fold",
            no_wrap=name in right,
        )
    for row in rows:
        drawn.add_row(*map(_cell, row))
    console.print(drawn)


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    return Text("-" if value is None else str(value))


def money(amount: Decimal | None, currency: str = "USD") -> str:
    """An amount for people, to the cent; the exact one is in CSV and JSON."""
    if amount is None:
        return "-"
    sign = "$" if currency == "USD" else ""
    unit = "" if currency == "USD" else f" {currency}"
    if 0 < abs(amount) < CENT:
        return f"<{sign}0.01{unit}"
    shown = f"{sign}{abs(amount):,.2f}{unit}"
    return f"-{shown}" if amount < 0 else shown


def change(share: Decimal | None) -> str:
    """A change in percent, with its sign; None when there is nothing to compare with."""
    return "new" if share is None else f"{share:+,.1f} %"


def short(number: int) -> str:
    """A large number for a narrow column: 13.5M."""
    value = float(number)
    for unit in ("", "k", "M", "G"):
        if abs(value) < 1000 or unit == "G":
            return f"{value:.0f}" if not unit else f"{value:.1f}{unit}"
        value /= 1000
    raise AssertionError("unreachable")


def count(number: int) -> str:
    """A whole number with separators."""
    return f"{number:,}"


def size(octets: int) -> str:
    """Bytes for people, in powers of 1000."""
    value = float(octets)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def duration(span: timedelta) -> str:
    """Seconds with one decimal below a minute, else m:ss or h:mm:ss."""
    seconds = span.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def days(first: date, last: date) -> str:
    """One day, or a range."""
    return first.isoformat() if first == last else f"{first}..{last}"


def number_text(value: Decimal) -> str:
    """A decimal in full, without an exponent and without zeros that say nothing."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def jsonable(value: Any) -> Any:
    """A value as JSON can hold it: decimals and dates as strings, so that nothing is lost."""
    match value:
        case Decimal():
            return number_text(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case float() if not math.isfinite(value):
            return str(value)
        case Mapping():
            return {str(key): jsonable(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [jsonable(item) for item in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
        case _:
            return value


def json_line(console: Console, value: Any) -> None:
    """One JSON document on one line."""
    line(console, json.dumps(jsonable(value), ensure_ascii=False))

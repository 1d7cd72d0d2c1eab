"""Words for people: a message as a mail's subject, text and HTML, and the pieces that channels share."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from engine.log import redact
from engine.notify.types import EventName, Link, Message, Severity, Table

MOST_SUBJECT_CHARS = 200
MOST_ORG_CHARS = 80
#: Rows of a table that a mail shows; the others are told by their number.
MOST_ROWS = 50
#: Characters of one line of a mail.
MOST_LINE_CHARS = 4000
RESOLVED = "Resolved"
RESOLVED_COLOUR = "#1a7f37"
COLOURS = {
    Severity.INFO: "#0b62c4",
    Severity.WARNING: "#9a6700",
    Severity.ERROR: "#c62828",
    Severity.CRITICAL: "#7b1fa2",
}
_NUMBER = re.compile(r"[+\-−]?[\d.,\s]*\d\s?%?(\s[A-Z]{3})?|[–-]")
_BREAKS = re.compile(r"(?<=\w[_/=&?-])(?=\w)")
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class MailText:
    """A rendered mail without its addresses."""

    subject: str
    text: str
    html: str


def mail(message: Message, *, subject_prefix: str = "") -> MailText:
    """Render a message as a mail; every word of it is treated as hostile."""
    shown = clean(message)
    values = {
        "message": shown,
        "colour": colour(shown),
        "label": label(shown),
        "when": moment(shown.at),
        "more": more(shown),
        "most_rows": MOST_ROWS,
    }
    environment = _environment()
    text = environment.get_template("email.txt.j2").render(values)
    return MailText(
        subject=subject(message, prefix=subject_prefix),
        text=re.sub(r"\n{3,}", "\n\n", text).strip() + "\n",
        html=environment.get_template("email.html.j2").render(values),
    )


def subject(message: Message, *, prefix: str = "") -> str:
    """The subject line: prefix, severity or "Resolved", title, organisation; never more than one line."""
    shown = clean(message)
    whose = f" ({shown.org})" if shown.org else ""
    parts = (one_line(prefix), f"{label(shown)}: {shown.title}")
    room = MOST_SUBJECT_CHARS - len(whose)
    return shorten(" ".join(part for part in parts if part), room) + whose


def label(message: Message) -> str:
    """One word for how bad it is, or that it is over."""
    if message.resolved:
        return RESOLVED
    return "Summary" if message.event is EventName.SUMMARY_SCHEDULED else message.severity.value.capitalize()


def colour(message: Message) -> str:
    """The colour of a message, dark enough for white letters on it."""
    return RESOLVED_COLOUR if message.resolved else COLOURS[message.severity]


def more(message: Message) -> str:
    """What was held back and comes only as a number: "12 more in the last 5 minutes"; else nothing."""
    if not message.suppressed_count:
        return ""
    said = f"{message.suppressed_count:,} more"
    return said if message.since is None else f"{said} in the last {duration(message.at - message.since)}"


def duration(span: timedelta) -> str:
    """A length of time in one unit, rounded up: "5 minutes", "1 hour"."""
    seconds = max(span.total_seconds(), 1)
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        # 90 minutes are said as such; "2 hours" would be too far off.
        if seconds > 1.5 * size or (unit == "minute" and seconds >= size):
            return _counted(-(-seconds // size), unit)
    return _counted(-(-seconds // 1), "second")


def _counted(count: float, unit: str) -> str:
    return f"{count:.0f} {unit}{'' if count == 1 else 's'}"


def moment(at: datetime) -> str:
    """A point in time as people read it, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def clean(message: Message) -> Message:
    """The message without control characters, credentials and links that are no web address."""
    return replace(
        message,
        # The label says it already.
        title=redact(one_line(message.title)).removeprefix(f"{RESOLVED}: ") or message.event.value,
        lines=tuple(
            shorten(redact(part), MOST_LINE_CHARS)
            for line in message.lines
            for part in printable(line).splitlines()
        ),
        fields=tuple((one_line(name), redact(one_line(value))) for name, value in message.fields),
        links=tuple(Link(one_line(link.label), link.url) for link in message.links if is_web(link.url)),
        tables=tuple(_clean_table(table) for table in message.tables),
        org=shorten(one_line(message.org), MOST_ORG_CHARS) if message.org else None,
    )


def _clean_table(table: Table) -> Table:
    return Table(
        one_line(table.title),
        tuple(one_line(name) for name in table.columns),
        tuple(tuple(one_line(cell) for cell in row) for row in table.rows),
    )


def one_line(text: str) -> str:
    """Text on one line without invisible characters: fit for a header, a subject, a cell."""
    return _SPACES.sub(" ", printable(text)).strip()


def printable(text: str) -> str:
    """Text without control and direction characters (which can make text read as another); lines are kept."""
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs") else " "
        for char in text.replace("\r\n", "\n")
    )


def is_web(url: str) -> bool:
    """True for an address that a reader may be sent to: http or https with a host, on one line."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https") and bool(parts.hostname) and one_line(url) == url and " " not in url
    )


def shorten(text: str, limit: int) -> str:
    """Text of at most `limit` characters; a cut is marked by an ellipsis."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)].rstrip() + "…"


def is_number(cell: str) -> bool:
    """True for a cell that is set flush right: an amount, a count, a percentage or a dash for none."""
    return _NUMBER.fullmatch(cell) is not None


def right(table: Table) -> tuple[bool, ...]:
    """For each column, whether all its cells are numbers."""
    columns = range(len(table.columns))
    return tuple(bool(table.rows) and all(is_number(row[n]) for row in table.rows) for n in columns)


def grid(table: Table, *, most_rows: int = MOST_ROWS, most_chars: int = 40) -> list[str]:
    """A table as lines of equally wide columns, for text with a fixed width."""
    rows = [
        tuple(shorten(cell, most_chars) for cell in row) for row in (table.columns, *table.rows[:most_rows])
    ]
    widths = [max(len(row[n]) for row in rows) for n in range(len(table.columns))]
    flush = right(table)

    def line(row: tuple[str, ...]) -> str:
        cells = zip(row, widths, flush, strict=True)
        return "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in cells).rstrip()

    lines = [line(rows[0]), "  ".join("-" * width for width in widths), *map(line, rows[1:])]
    if hidden := len(table.rows) - most_rows:
        lines += [f"and {hidden:,} more"] if hidden > 0 else []
    return lines


def breakable(text: str) -> Markup:
    """Text as HTML that breaks after a separator rather than within a word, and not before a percent sign."""
    glued = text.replace(" %", "\u00a0%")
    return Markup("<wbr>").join(part for part in _BREAKS.split(glued) if part)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        # The plain text must not be escaped.
        autoescape=select_autoescape(("html.j2",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(grid=grid, right=right)
    environment.filters["breakable"] = breakable
    return environment

"""A message as Slack's Block Kit: coloured, escaped, within Slack's limits and said so where it was cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from engine.notify.render import MOST_ROWS, clean, colour, grid, label, moment, more, one_line, shorten
from engine.notify.types import Link, Message, Severity, Table

#: Slack's limits: characters of a section, of a field; fields of a section; blocks of a message.
MOST_SECTION_CHARS = 3000
MOST_FIELD_CHARS = 2000
MOST_FIELDS = 10
MOST_BLOCKS = 50
#: Slack does not say where `msg_blocks_too_long` begins; messages above 13,000 characters have met it.
MOST_CHARS = 12_000
MOST_HEADLINE_CHARS = 300
EVENT_TYPE = "manta_notification"
CUT = "_Shortened: Slack takes no more. The history has all of it._"
_SIGNS = {
    Severity.INFO: ":large_blue_circle:",
    Severity.WARNING: ":large_yellow_circle:",
    Severity.ERROR: ":red_circle:",
    Severity.CRITICAL: ":rotating_light:",
}
_BROADCASTS = ("here", "channel", "everyone")
_USER, _GROUP = re.compile(r"[UW][A-Z0-9]{2,}"), re.compile(r"S[A-Z0-9]{2,}")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def payload(message: Message, *, mentions: Sequence[str] = ()) -> dict[str, Any]:
    """The body of a webhook call, and of `chat.postMessage` but for its channel.

    The headline is the top-level text: only there do mentions notify, and it is what a phone's notification
    shows. The rest hangs below in the colour of the severity. `metadata` and the last line carry the stable
    id. Raises ValueError for a mention that is none.
    """
    shown = clean(message)
    headline = f"{label(shown)}: {shown.title}" + (f" ({shown.org})" if shown.org else "")
    calls = " ".join(mention(text) for text in mentions)
    bold = escape(headline.replace("*", "∗"), MOST_HEADLINE_CHARS)
    return {
        "text": f"{_sign(shown)} *{bold}*" + (f" {calls}" if calls else ""),
        "mrkdwn": True,
        "unfurl_links": False,
        "unfurl_media": False,
        "metadata": {
            "event_type": EVENT_TYPE,
            "event_payload": {
                "id": message.id,
                "event": message.event.value,
                "severity": message.severity.value,
                "resolved": message.resolved,
                "organisation": shown.org or "",
            },
        },
        "attachments": [
            {
                "color": colour(shown),
                "fallback": shorten(headline, MOST_HEADLINE_CHARS),
                "blocks": _blocks(shown),
            }
        ],
    }


def mention(text: str) -> str:
    """A mention as Slack writes it: a user's id, a user group's id, or here, channel, everyone.

    Raises ValueError for anything else: Slack notifies nobody by a name.
    """
    name = text.strip().removeprefix("<").removesuffix(">").removeprefix("@").removeprefix("!")
    name = name.removeprefix("subteam^")
    if name in _BROADCASTS:
        return f"<!{name}>"
    if _USER.fullmatch(name):
        return f"<@{name}>"
    if _GROUP.fullmatch(name):
        return f"<!subteam^{name}>"
    raise ValueError(f"{text!r} is no Slack user id (U...), user group id (S...) or here, channel, everyone")


def escape(text: str, limit: int) -> str:
    """Text for mrkdwn of at most `limit` characters once escaped; a cut never splits an escape."""
    whole = "".join(_ESCAPES.get(char, char) for char in text)
    if len(whole) <= limit:
        return whole
    kept, room = [], limit - 1
    for char in text:
        escaped = _ESCAPES.get(char, char)
        if (room := room - len(escaped)) < 0:
            break
        kept.append(escaped)
    return "".join(kept).rstrip() + "…"


def _sign(message: Message) -> str:
    return ":white_check_mark:" if message.resolved else _SIGNS[message.severity]


def _blocks(message: Message) -> list[dict[str, Any]]:
    """The blocks below the headline; what does not fit any more is left out and said to be."""
    last = _context(
        f"{message.org or 'operator'} · {message.event.value} · {moment(message.at)} · id {message.id}"
    )
    links = _links(message.links)
    room = MOST_CHARS - sum(_size(block) for block in (*links, last))
    found: list[dict[str, Any]] = []
    for block in _body(message):
        room -= _size(block)
        # Three places stay free: the note, the links, the last line.
        if room < 0 or len(found) >= MOST_BLOCKS - 3:
            found.append(_context(CUT, escaped=True))
            break
        found.append(block)
    return [*found, *links, last]


def _body(message: Message) -> Iterable[dict[str, Any]]:
    if message.lines:
        # Room for the note that the text was cut.
        limit, whole = MOST_SECTION_CHARS - len(CUT) - 1, "\n".join(message.lines)
        text = escape(whole, limit)
        yield _section(f"{text}\n{CUT}" if len(escape(whole, len(whole) * 5)) > limit else text)
    if said := more(message):
        yield _context(f"{said}.")
    for start in range(0, len(message.fields), MOST_FIELDS):
        yield {
            "type": "section",
            "fields": [_field(name, value) for name, value in message.fields[start : start + MOST_FIELDS]],
        }
    for table in message.tables:
        yield _section(_table(table))


def _field(name: str, value: str) -> dict[str, Any]:
    named = f"*{escape(name.replace('*', '∗'), 100)}*\n"
    return _text(named + escape(value or "–", MOST_FIELD_CHARS - len(named)))


def _table(table: Table) -> str:
    """A table in a fixed width, with as many rows as a section takes."""
    title = f"*{escape(table.title.replace('*', '∗'), 200)}*\n"
    most = min(len(table.rows), MOST_ROWS)
    while True:
        lines = "\n".join(grid(table, most_rows=most, most_chars=28)).replace("`", "'")
        shown = escape(lines, 10 * MOST_SECTION_CHARS)
        if len(title) + len(shown) + 8 <= MOST_SECTION_CHARS or most == 0:
            return f"{title}```\n{shown}\n```"
        most -= max(1, most // 10)


def _links(links: Sequence[Link]) -> list[dict[str, Any]]:
    # Links and not buttons: a button calls the app back, and an incoming webhook has nobody there.
    texts = [f"<{_url(link.url)}|{escape(link.label.replace('|', '/'), 75)}>" for link in links]
    kept: list[str] = []
    for text in texts:
        if sum(len(one) + 3 for one in (*kept, text)) <= MOST_SECTION_CHARS:
            kept.append(text)
    return [_section(" · ".join(kept))] if kept else []


def _url(url: str) -> str:
    return quote(url, safe="%/:=&?~#+!$,;'@()[]*").replace("&", "&amp;")


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _text(text)}


def _context(text: str, *, escaped: bool = False) -> dict[str, Any]:
    return {
        "type": "context",
        "elements": [_text(text if escaped else escape(one_line(text), MOST_FIELD_CHARS))],
    }


def _text(text: str) -> dict[str, Any]:
    # Verbatim: addresses and channel names in a title or an error stay plain words.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _size(block: dict[str, Any]) -> int:
    parts = [block.get("text"), *block.get("fields", ()), *block.get("elements", ())]
    return sum(len(part["text"]) for part in parts if part)

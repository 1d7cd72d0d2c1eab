"""One JSON line an event, with secrets taken out on the way to the line.

Redaction is by construction: every field passes `redact`, whoever logs it, and a type that the line does not
know is written as its type's name, never by `repr`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Protocol

HIDDEN = "[redacted]"
_SECRET_NAMES = re.compile(
    r"(authorization|api[-_]?key|secret|password|token|cookie|webhook_url|private[-_]?key)$", re.IGNORECASE
)
# What keys (providers' and ours), bearer headers, JWTs, PEM blocks and Slack webhooks look like anywhere.
_SECRET_VALUES = re.compile(
    r"sk-[A-Za-z0-9_*-]{6,}"
    r"|_api_[0-9a-f]{12}[A-Za-z0-9_-]{8,}"
    r"|(?i:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"
    r"|hooks\.slack\.com/\S+"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",
    re.DOTALL,
)


class Log(Protocol):
    """A structured log: an event's name and its fields."""

    def info(self, event: str, **fields: object) -> None: ...

    def warning(self, event: str, **fields: object) -> None: ...

    def error(self, event: str, **fields: object) -> None: ...

    def bind(self, **fields: object) -> Log: ...


def redact(text: str) -> str:
    """Return `text` with everything that looks like a credential hidden."""
    return _SECRET_VALUES.sub(HIDDEN, text)


class JsonLog:
    """Writes one JSON object a line: at, level, event, then the bound fields, then the event's own.

    `write` takes a finished line with its newline (a stream's `write`); `now` answers in aware UTC.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        *,
        now: Callable[[], datetime],
        fields: Mapping[str, object] | None = None,
    ) -> None:
        self._write = write
        self._now = now
        self._fields = dict(fields or {})

    def bind(self, **fields: object) -> JsonLog:
        """Return a log that adds `fields` (run_id, org, unit, step, attempt) to every line."""
        return JsonLog(self._write, now=self._now, fields={**self._fields, **fields})

    def info(self, event: str, **fields: object) -> None:
        """Write what happened."""
        self._line("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Write what went wrong and was dealt with."""
        self._line("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Write what somebody has to look at."""
        self._line("error", event, fields)

    def _line(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        line: dict[str, object] = {"at": self._now().isoformat(), "level": level, "event": redact(event)}
        for name, value in (self._fields | dict(fields)).items():
            line[redact(name)] = _shown(name, value)
        self._write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


def _shown(name: str, value: object) -> object:
    # A number is never a key, and `input_tokens=5` ends like a secret's name.
    if value is None or isinstance(value, bool | int | float):
        return value
    if _SECRET_NAMES.search(name):
        return HIDDEN
    if isinstance(value, str | Decimal | BaseException):
        return redact(str(value))
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {redact(str(key)): _shown(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(name, item) for item in value]
    return f"<{type(value).__name__}>"

"""What the rules react to, besides events: time, people, and what became of a message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

from engine.errors import UsageError
from engine.notify.types import Event

MATCHED = ("org", "event", "severity", "pipeline_id", "provider", "cause", "fingerprint")


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: what waited may be due."""


@dataclass(frozen=True, slots=True)
class Ack:
    """Somebody knows of the problem: it is announced again when it gets worse, ends, or begins anew."""

    fingerprint: str
    by: str


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing that matches is announced before `until`.

    `matcher` are patterns (`*` and `?`) by name: org, event, severity, pipeline_id, provider, cause or
    fingerprint; all have to match. Raises UsageError for an empty matcher, an unknown name or a naive time.
    """

    id: str
    matcher: Mapping[str, str]
    until: datetime
    by: str
    comment: str = ""

    def __post_init__(self) -> None:
        if not self.matcher:
            raise UsageError(
                "A silence without a matcher would silence everything.",
                fix="Name what it is for, such as pipeline_id=openai/*, or event=* if everything is meant.",
                field="matcher",
            )
        if unknown := sorted(set(self.matcher) - set(MATCHED)):
            raise UsageError(
                f"A silence cannot match by {unknown[0]!r}.",
                fix=f"Use one of {', '.join(MATCHED)}.",
                field="matcher",
            )
        if self.until.tzinfo is None:
            raise UsageError(
                "The end of a silence has no time zone.",
                fix="Write it with an offset, such as 2026-11-24T07:00:00Z.",
                field="until",
            )

    def matches(self, event: Event, fingerprint: str) -> bool:
        """Whether it is about this event's problem; a missing value matches `*` only."""
        has = {name: getattr(event, name) for name in MATCHED[:-1]} | {"fingerprint": fingerprint}
        return all(fnmatchcase(str(has[name] or ""), pattern) for name, pattern in self.matcher.items())


@dataclass(frozen=True, slots=True)
class Unsilence:
    """A silence ends early."""

    id: str
    by: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """A channel took the message."""

    message_id: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A channel did not take the message, and its retries are used up.

    What it told is untold again and waits until `retry_at`, or for the cooldown.
    """

    message_id: str
    retry_at: datetime | None = None


type Input = Event | Tick | Ack | Silence | Unsilence | Delivered | Failed

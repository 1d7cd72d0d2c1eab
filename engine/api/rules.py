"""A config's error rules as a judge of answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

import msgspec

from engine.api.config import ErrorRule, Wait, When
from engine.api.paths import MISSING, found, segments
from engine.errors import ConfigurationError, CredentialError, DataError, MantaError, TransientError
from engine.http import Again, Answer, Take
from engine.log import redact

CLASSES: dict[str, type[MantaError]] = {
    "credential": CredentialError,
    "configuration": ConfigurationError,
    "data": DataError,
    "transient": TransientError,
}
SAID_CHARS = 300


class Ignored(Take):
    """An answer that stands for no rows."""


class Rules:
    """Judges answers by rules, the first that fits. `name` is the request's, for messages."""

    def __init__(self, rules: Sequence[ErrorRule], *, name: str, now: Callable[[], datetime]) -> None:
        self._rules, self._name, self._now = rules, name, now

    def __call__(self, answer: Answer) -> Again | Take | None:
        """The judgement of `engine.http`. Raises the error of a rule that says fail."""
        body: Any = MISSING
        for rule in self._rules:
            if rule.when.status and answer.status not in rule.when.status:
                continue
            if rule.when.path is not None and body is MISSING:
                body = _decoded(answer.body)
            if _holds(rule.when, answer, body):
                return self._judged(rule, answer, body if body is not MISSING else _decoded(answer.body))
        return None

    def _judged(self, rule: ErrorRule, answer: Answer, body: Any) -> Again | Take:
        if rule.action == "ignore":
            return Ignored()
        said = _said(rule, answer, body)
        if rule.action == "fail":
            self._fail(rule, answer, said)
        return Again(
            said,
            asked_s=self._asked_s(rule.wait, answer, body) if rule.wait else None,
            limited=rule.action == "rate_limit",
        )

    def _fail(self, rule: ErrorRule, answer: Answer, said: str) -> NoReturn:
        raise CLASSES[str(rule.error)](
            f"{self._name}: HTTP {answer.status}: {said}",
            fix=rule.fix or "Correct what the provider's message names.",
        )

    def _asked_s(self, wait: Wait, answer: Answer, body: Any) -> float | None:
        given = answer.headers.get(wait.header) if wait.header else found(body, segments(str(wait.path)))
        try:
            if wait.format == "datetime":
                moment = datetime.fromisoformat(str(given))
                moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
                return max((moment - self._now()).total_seconds(), 0.0)
            number = float(Decimal(str(given)))
        except (ValueError, InvalidOperation, OverflowError):
            return None
        if wait.format == "unix":
            number -= self._now().timestamp()
        return max(number / 1000 if wait.format == "milliseconds" else number, 0.0)


def _holds(when: When, answer: Answer, body: Any) -> bool:
    if when.text and not re.search(when.text.encode(), answer.body):
        return False
    if when.path is None:
        return True
    value = found(body, segments(when.path))
    if value is MISSING or value is None:
        return False
    if when.equals and not any(type(value) is type(one) and value == one for one in when.equals):
        return False
    return not when.matches or re.search(when.matches, str(value)) is not None


def _said(rule: ErrorRule, answer: Answer, body: Any) -> str:
    path = rule.message if rule.message is not None else rule.when.path
    value = found(body, segments(path)) if path is not None else MISSING
    text = answer.body[:SAID_CHARS].decode(errors="replace") if value in (MISSING, None) else str(value)
    return " ".join(redact(text).split())[:SAID_CHARS] or "no message"


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None

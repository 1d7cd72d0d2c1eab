"""Google's errors: google.rpc.Status, which of them pass, and how long to wait."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from engine.errors import ConfigurationError
from engine.http import Again, Answer, Take

#: Refused with 403 and yet only too fast.
TOO_FAST = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"})
#: A day's or month's quota: waiting a minute does not help.
SPENT = frozenset({"quotaExceeded", "dailyLimitExceeded"})
DISABLED = frozenset({"accessNotConfigured", "SERVICE_DISABLED"})
_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")


def judge(answer: Answer) -> Again | Take | None:
    """Tell what passes from what does not, before the usual rules.

    Raises ConfigurationError for an API that is not enabled and for a quota that is used up.
    """
    if answer.status not in (403, 429, 500, 503, 504):
        return None
    error = _error(answer.body)
    reasons = _reasons(error)
    said = str(error.get("message") or error.get("status") or "no message")
    if reasons & DISABLED:
        raise ConfigurationError(
            f"Google Cloud: {said[:300]}", fix="Enable the API in the project that the message names."
        )
    if reasons & SPENT:
        raise ConfigurationError(
            f"Google Cloud: a quota is used up: {said[:300]}",
            fix="Ask for less, or have the quota raised in the project that pays for it (quota_project).",
        )
    if reasons & TOO_FAST and answer.status == 403:
        return Again(said, asked_s=retry_delay_s(error), limited=True)
    if answer.status != 403 and (asked_s := retry_delay_s(error)) is not None:
        return Again(said, asked_s=asked_s)
    return None


def retry_delay_s(error: dict[str, Any]) -> float | None:
    """The seconds of a google.rpc.RetryInfo, None where there is none."""
    for detail in _details(error):
        if match := _DURATION.fullmatch(str(detail.get("retryDelay", ""))):
            return float(match[1])
    return None


def _error(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    error = found.get("error") if isinstance(found, dict) else None
    return error if isinstance(error, dict) else {}


def _reasons(error: dict[str, Any]) -> set[str]:
    """Why, in today's form (`details[].reason`) and in the older one (`errors[].reason`)."""
    return {str(entry.get("reason")) for entry in _details(error)}


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    entries = [*_list(error.get("details")), *_list(error.get("errors"))]
    return [entry for entry in entries if isinstance(entry, dict)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []

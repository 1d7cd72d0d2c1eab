"""Rate permits of one (provider, credential), and what a provider's headers say about them."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

#: After this long without a refusal what was learned no longer counts: limits change and day-old caution is
#: slow.
LEARNED_FOR_S = 600.0
_SLOWEST = 1 / 16
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Permits(Protocol):
    """Leave to make one call."""

    async def take(self) -> None:
        """Wait until one more call may start."""

    def learn(self, status: int, headers: Mapping[str, str]) -> None:
        """Take in what an answer says about the limit; header names in lower case."""


def asked_wait_s(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Return the seconds a refusal asks the caller to wait, or None when it does not say.

    Read in this order: `retry-after-ms`, `retry-after` (seconds or HTTP-date), then the reset of the request
    limit (RFC 3339 at Anthropic, a duration such as `6m0s` at OpenAI). What cannot be read counts as unsaid.
    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    if after := headers.get("retry-after"):
        seconds = _number(after)
        return seconds if seconds is not None else _until(after, now=now, parse=parsedate_to_datetime)
    return _reset_s(headers, now=now)


def _reset_s(headers: Mapping[str, str], *, now: datetime) -> float | None:
    if reset := headers.get("anthropic-ratelimit-requests-reset"):
        return _until(reset, now=now, parse=datetime.fromisoformat)
    if (reset := headers.get("x-ratelimit-reset-requests")) and (parts := _DURATION.findall(reset)):
        return sum(float(count) * _UNIT_S[unit] for count, unit in parts)
    return None


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return max(value, 0.0) if math.isfinite(value) else None


def _until(text: str, *, now: datetime, parse: Callable[[str], datetime]) -> float | None:
    try:
        moment = parse(text)
        # A date without a zone is UTC in both formats; Python reads `-0000` as naive.
        moment = moment.replace(tzinfo=now.tzinfo) if moment.tzinfo is None else moment
        return max((moment - now).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _first_number(headers: Mapping[str, str], *names: str) -> float | None:
    return next((value for name in names if (value := _number(headers.get(name))) is not None), None)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one answer says about the limit: refused or not, seconds to stay away, calls a minute allowed."""

    refused: bool
    wait_s: float | None
    per_minute: float | None

    @property
    def silent(self) -> bool:
        """True when there is nothing to learn."""
        return not self.refused and self.wait_s is None and self.per_minute is None


def reading(status: int, headers: Mapping[str, str], *, now: datetime) -> Reading:
    """Read an answer's status and headers (names in lower case)."""
    if status in (429, 529):
        return Reading(True, asked_wait_s(headers, now=now), None)
    per_minute = _first_number(headers, "anthropic-ratelimit-requests-limit", "x-ratelimit-limit-requests")
    remaining = _first_number(
        headers, "anthropic-ratelimit-requests-remaining", "x-ratelimit-remaining-requests"
    )
    return Reading(False, _reset_s(headers, now=now) if remaining == 0 else None, per_minute)


@dataclass(frozen=True, slots=True)
class Pace:
    """The limit to start from: calls a minute, and how many may start at once."""

    per_minute: float
    burst: int


class Bucket:
    """A token bucket that slows down when refused, and forgets that after a while.

    Pure: `at` is seconds of any monotonic clock.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._share = 1.0  # of the pace, after refusals
        self._ceiling = math.inf  # tokens a second, as the provider's limit header says
        self._learned_at = -math.inf
        self._paused_until = -math.inf
        self._tokens = float(pace.burst)
        self._at: float | None = None

    @property
    def rate(self) -> float:
        """Tokens a second at present."""
        return min(self._pace.per_minute / 60 * self._share, self._ceiling)

    def wait_s(self, at: float) -> float:
        """Take a token and return 0, or take none and return the seconds until one may be there."""
        self._fill(at)
        if at < self._paused_until:
            return self._paused_until - at
        # Waiting for the exact missing share would leave float dust short of a whole token.
        if self._tokens >= 1 - 1e-9:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.rate

    def refuse(self, at: float, *, wait_s: float | None) -> None:
        """Halve the pace, and pause for `wait_s` if the provider named it."""
        self._fill(at)
        self._share = max(self._share / 2, _SLOWEST)
        self._learned_at = at
        # One may go when the pause ends, and the rest one after the other: not a burst into a fresh limit.
        self._tokens = min(self._tokens, 0.0 if wait_s is None else 1.0)
        if wait_s is not None:
            self.pause(at + wait_s)

    def pause(self, until: float) -> None:
        """Give nothing out before `until`."""
        self._paused_until = max(self._paused_until, until)

    def limit(self, at: float, per_minute: float) -> None:
        """Keep under the limit the provider states."""
        self._fill(at)
        self._ceiling = max(per_minute / 60, 1 / 600)
        self._learned_at = at

    def learn(self, at: float, said: Reading) -> None:
        """Take in what one answer says."""
        if said.refused:
            self.refuse(at, wait_s=said.wait_s)
            return
        if said.per_minute is not None:
            self.limit(at, said.per_minute)
        if said.wait_s is not None:
            self.pause(at + said.wait_s)

    def _fill(self, at: float) -> None:
        # Time in a pause earns nothing.
        since = at if self._at is None else max(self._at, self._paused_until)
        passed_s = max(at - since, 0.0)
        self._at = at if self._at is None else max(at, self._at)
        self._tokens = min(self._tokens + passed_s * self.rate, float(self._pace.burst))
        if at - self._learned_at > LEARNED_FOR_S:
            self._share, self._ceiling = 1.0, math.inf


class LocalPermits:
    """Permits of this process only; `clock` is monotonic seconds, `now` aware UTC for dates in headers."""

    def __init__(
        self,
        pace: Pace,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._bucket = Bucket(pace)
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._turn = asyncio.Lock()

    async def take(self) -> None:
        """Wait for a token; callers are served in the order they came."""
        async with self._turn:
            # Asked again after each sleep: a refusal may have come in meanwhile.
            while (wait_s := self._bucket.wait_s(self._clock())) > 0:
                await self._sleep(wait_s)

    def learn(self, status: int, headers: Mapping[str, str]) -> None:
        """Slow down after a 429 or 529, stop until the reset when nothing remains."""
        self._bucket.learn(self._clock(), reading(status, headers, now=self._now()))

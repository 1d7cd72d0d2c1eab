"""How often one may ask: token buckets in memory, and the headers that say so; no clock of its own."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from engine.errors import ConfigurationError, InternalError

WINDOW_S = 60
#: Keys kept per policy; beyond it the one that asked longest ago starts afresh.
MAX_KEYS = 100_000
# A bucket filled in many small parts may fall this short of a whole token.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether one may go on. Times are seconds.

    `reset_s` passes until all of `limit` is there again, `retry_after_s` until one is.
    """

    allowed: bool
    policy: str
    limit: int
    remaining: int
    reset_s: float
    retry_after_s: float

    def headers(self) -> dict[str, str]:
        """Response headers: `RateLimit` fields of the IETF draft (10), those of the former service beside.

        All times are whole seconds, rounded up.
        """
        reset = math.ceil(self.reset_s)
        headers = {
            "RateLimit-Policy": f'"{self.policy}";q={self.limit};w={WINDOW_S}',
            "RateLimit": f'"{self.policy}";r={self.remaining};t={reset}',
            "X-RateLimit-Org-Limit": str(self.limit),
            "X-RateLimit-Org-Remaining": str(self.remaining),
            "X-RateLimit-Org-Reset": str(reset),
        }
        if not self.allowed:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        return headers


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RequestLimits:
    """A bucket for each (policy, key), holding a minute's count and filled evenly over a minute.

    `rates` are counts per minute by policy name; `at` is monotonic seconds of one clock for all calls.
    Not thread-safe. Raises ConfigurationError for a count below 1.
    """

    def __init__(self, rates: Mapping[str, int], *, max_keys: int = MAX_KEYS) -> None:
        if low := [name for name, rate in rates.items() if rate < 1]:
            raise ConfigurationError(
                f"The rate of {low[0]} is {rates[low[0]]} a minute.", fix="Set it to 1 or more.", field=low[0]
            )
        self._rates = dict(rates)
        self._max_keys = max_keys
        self._buckets: dict[str, OrderedDict[str, _Bucket]] = {name: OrderedDict() for name in rates}

    def take(self, policy: str, key: str, at: float) -> Admission:
        """Take one if there is one; a refused attempt costs nothing."""
        limit, buckets = self._policy(policy)
        bucket = self._filled(policy, key, at)
        allowed = bucket.tokens >= 1 - ROUNDING
        if allowed:
            bucket.tokens -= 1
        buckets[key] = bucket
        buckets.move_to_end(key)
        self._forget(buckets, at)
        return _admission(policy, limit, bucket.tokens, allowed=allowed)

    def peek(self, policy: str, key: str, at: float) -> Admission:
        """What `take` would answer, but nothing is taken: `remaining` counts the one asked about."""
        limit, _ = self._policy(policy)
        tokens = self._filled(policy, key, at).tokens
        return _admission(policy, limit, tokens, allowed=tokens >= 1 - ROUNDING)

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def _policy(self, policy: str) -> tuple[int, OrderedDict[str, _Bucket]]:
        if policy not in self._rates:
            raise InternalError(f"There is no request limit {policy!r}.", fix="Report it with this message.")
        return self._rates[policy], self._buckets[policy]

    def _filled(self, policy: str, key: str, at: float) -> _Bucket:
        limit, buckets = self._policy(policy)
        if (found := buckets.get(key)) is None:
            return _Bucket(float(limit), at)
        # Calls may arrive slightly out of order: time never takes tokens away.
        passed = max(0.0, at - found.at)
        return _Bucket(min(float(limit), found.tokens + passed * limit / WINDOW_S), max(at, found.at))

    def _forget(self, buckets: OrderedDict[str, _Bucket], at: float) -> None:
        # Least recently asked first, and whatever rests for a window is full: as if never seen.
        while buckets:
            oldest = next(iter(buckets))
            if buckets[oldest].at + WINDOW_S > at and len(buckets) <= self._max_keys:
                return
            del buckets[oldest]


def _admission(policy: str, limit: int, tokens: float, *, allowed: bool) -> Admission:
    per_second = limit / WINDOW_S
    return Admission(
        allowed=allowed,
        policy=policy,
        limit=limit,
        remaining=int(tokens + ROUNDING),
        reset_s=(limit - tokens) / per_second,
        retry_after_s=0.0 if allowed else (1 - tokens) / per_second,
    )

"""How long to wait before the next attempt, and when to stop trying."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def next_delay(attempt: int, *, base: float, cap: float, rand: Callable[[], float]) -> float:
    """Return seconds to wait after failed attempt number `attempt` (from 0): full jitter under a ceiling.

    `rand` answers in [0, 1). Without jitter over the whole span a fleet that failed together returns
    together.
    """
    # 2.0**1024 overflows; long before that the ceiling decides.
    return rand() * min(cap, base * 2.0 ** min(attempt, 64))


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounds of one call's retries; all times in seconds.

    `max_wait_s` bounds the sum of all waits of the call, `cap_s` each wait that nobody dictated.
    """

    max_attempts: int = 5
    base_s: float = 0.5
    cap_s: float = 30.0
    max_wait_s: float = 120.0

    def delay(
        self, attempt: int, *, asked_s: float | None, waited_s: float, rand: Callable[[], float]
    ) -> float | None:
        """Return the wait after failed attempt `attempt` (from 0), or None when the call is given up.

        `asked_s` is what the server asked for: it is honoured in full (with a little jitter on top) or the
        call is given up at once, never cut short.
        """
        if attempt + 1 >= self.max_attempts:
            return None
        left_s = self.max_wait_s - waited_s
        if asked_s is None:
            wait_s = next_delay(attempt, base=self.base_s, cap=self.cap_s, rand=rand)
            return wait_s if wait_s <= left_s else None
        if asked_s > left_s:
            return None
        return min(asked_s + rand() * self.base_s, left_s)

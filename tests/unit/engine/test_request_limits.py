"""Request limits: who may go on, what the headers say, and that nothing is kept for ever."""

from __future__ import annotations

import pytest

from engine.errors import ConfigurationError, InternalError
from engine.request_limits import Admission, RequestLimits


def taken(limits: RequestLimits, count: int, at: float = 0.0, key: str = "acme") -> list[Admission]:
    return [limits.take("runs", key, at) for _ in range(count)]


def test_a_minutes_count_at_once_and_then_evenly() -> None:
    limits = RequestLimits({"runs": 120})
    assert [a.remaining for a in taken(limits, 120)] == list(range(119, -1, -1))
    last = limits.take("runs", "acme", 0.0)
    assert (last.allowed, last.remaining) == (False, 0)
    assert last.retry_after_s == pytest.approx(0.5)
    assert last.reset_s == pytest.approx(60)
    assert limits.take("runs", "acme", 0.5).allowed
    assert not limits.take("runs", "acme", 0.5).allowed
    assert limits.take("runs", "acme", 61).remaining == 119


def test_keys_and_policies_have_their_own_buckets() -> None:
    limits = RequestLimits({"runs": 1, "failures": 1})
    assert limits.take("runs", "acme", 0).allowed
    assert not limits.take("runs", "acme", 0).allowed
    assert limits.take("runs", "globex", 0).allowed
    assert limits.take("failures", "acme", 0).allowed


def test_peeking_takes_nothing() -> None:
    limits = RequestLimits({"runs": 2})
    assert [limits.peek("runs", "acme", 0).remaining for _ in range(3)] == [2, 2, 2]
    assert len(limits) == 0
    taken(limits, 2)
    assert not limits.peek("runs", "acme", 0).allowed
    assert limits.peek("runs", "acme", 30).remaining == 1


def test_refused_attempts_do_not_prolong_the_wait() -> None:
    limits = RequestLimits({"runs": 1})
    assert [a.allowed for a in (limits.take("runs", "acme", at) for at in (0, 15, 30, 45, 60))] == [
        True,
        *[False] * 3,
        True,
    ]


def test_a_clock_that_lags_takes_nothing_away() -> None:
    limits = RequestLimits({"runs": 60})
    taken(limits, 60, at=100)
    assert not limits.take("runs", "acme", 90).allowed
    assert limits.take("runs", "acme", 101).allowed
    assert not limits.take("runs", "acme", 101).allowed


def test_headers() -> None:
    limits = RequestLimits({"runs": 120})
    assert limits.take("runs", "acme", 0).headers() == {
        "RateLimit-Policy": '"runs";q=120;w=60',
        "RateLimit": '"runs";r=119;t=1',
        "X-RateLimit-Org-Limit": "120",
        "X-RateLimit-Org-Remaining": "119",
        "X-RateLimit-Org-Reset": "1",
    }
    headers = taken(limits, 120)[-1].headers()
    assert headers["Retry-After"] == "1"
    assert headers["RateLimit"] == '"runs";r=0;t=60'


def test_keys_that_rest_are_forgotten() -> None:
    limits = RequestLimits({"runs": 5})
    for n in range(100):
        limits.take("runs", f"key-{n}", float(n))
    assert len(limits) == 60
    limits.take("runs", "late", 1000)
    assert len(limits) == 1


def test_many_keys_at_once_are_bounded() -> None:
    limits = RequestLimits({"runs": 1}, max_keys=10)
    for n in range(1000):
        limits.take("runs", f"key-{n}", 0)
    assert len(limits) == 10
    assert not limits.take("runs", "key-999", 0).allowed


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="rate of runs is 0"):
        RequestLimits({"runs": 0})
    with pytest.raises(InternalError, match="no request limit 'other'"):
        RequestLimits({"runs": 1}).take("other", "acme", 0)

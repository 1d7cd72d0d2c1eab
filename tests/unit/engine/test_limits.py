from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from engine.limits import LEARNED_FOR_S, Bucket, LocalPermits, Pace, asked_wait_s

NOW = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.at)

    async def sleep(self, seconds: float) -> None:
        self.at += seconds
        await asyncio.sleep(0)


def permits(clock: Clock, *, per_minute: float = 60, burst: int = 2) -> LocalPermits:
    return LocalPermits(Pace(per_minute, burst), clock=clock, now=clock.now, sleep=clock.sleep)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "Fri, 20 Nov 2026 08:00:12 GMT"}, 12),
        ({"retry-after": "Fri, 20 Nov 2026 07:59:00 GMT"}, 0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"anthropic-ratelimit-requests-reset": "2026-11-20T08:00:30Z"}, 30),
        ({"anthropic-ratelimit-requests-reset": "2026-11-20T10:00:30+02:00"}, 30),
        ({"anthropic-ratelimit-requests-reset": "tomorrow"}, None),
        ({"retry-after": "2", "anthropic-ratelimit-requests-reset": "2026-11-20T08:00:30Z"}, 2),
        ({"x-ratelimit-reset-requests": "1m30s"}, 90),
        ({"x-ratelimit-reset-requests": "120ms"}, 0.12),
    ],
)
def test_what_a_refusal_asks_for(headers: dict[str, str], wait_s: float | None) -> None:
    assert asked_wait_s(headers, now=NOW) == wait_s


async def test_a_burst_is_free_and_then_the_pace_holds() -> None:
    clock = Clock()
    allowed = permits(clock, per_minute=60, burst=2)
    starts = []
    for _ in range(5):
        await allowed.take()
        starts.append(round(clock.at, 6))
    assert starts == [0, 0, 1, 2, 3]


async def test_a_refusal_stops_everyone_for_as_long_as_asked_and_halves_the_pace() -> None:
    clock = Clock()
    allowed = permits(clock, per_minute=60, burst=5)
    await allowed.take()
    allowed.learn(429, {"retry-after": "20"})
    await asyncio.gather(*(allowed.take() for _ in range(3)))
    assert clock.at == pytest.approx(24)  # the first at 20 s, then one every 2 s
    allowed.learn(200, {})
    before = clock.at
    for _ in range(4):
        await allowed.take()
    assert clock.at - before >= 4


async def test_a_pause_learned_while_waiting_holds_for_those_already_waiting() -> None:
    clock = Clock()
    allowed = permits(clock, per_minute=60, burst=1)
    await allowed.take()
    waiting = asyncio.create_task(allowed.take())
    await asyncio.sleep(0)
    allowed.learn(529, {"retry-after": "40"})
    await waiting
    assert clock.at >= 40


async def test_nothing_remaining_waits_for_the_reset() -> None:
    clock = Clock()
    allowed = permits(clock, per_minute=600, burst=10)
    headers = {
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-11-20T08:00:15Z",
    }
    allowed.learn(200, headers)
    await allowed.take()
    assert clock.at == pytest.approx(15)


def test_the_stated_limit_caps_the_pace() -> None:
    bucket = Bucket(Pace(600, 5))
    bucket.limit(0, 30)
    assert bucket.rate == pytest.approx(0.5)
    bucket.limit(0, 6000)
    assert bucket.rate == pytest.approx(10)


def test_what_was_learned_expires() -> None:
    bucket = Bucket(Pace(60, 1))
    for _ in range(10):
        bucket.refuse(0, wait_s=None)
    assert bucket.rate == pytest.approx(1 / 16)
    bucket.wait_s(LEARNED_FOR_S + 1)
    assert bucket.rate == pytest.approx(1)

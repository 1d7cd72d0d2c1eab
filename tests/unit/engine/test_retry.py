from __future__ import annotations

import random

import pytest

from engine.retry import RetryPolicy, next_delay


@pytest.mark.parametrize(
    ("attempt", "rand", "delay"),
    [(0, 1.0, 0.5), (1, 1.0, 1.0), (3, 0.5, 2.0), (6, 1.0, 30.0), (5000, 1.0, 30.0), (9, 0.0, 0.0)],
)
def test_full_jitter_under_a_ceiling(attempt: int, rand: float, delay: float) -> None:
    assert next_delay(attempt, base=0.5, cap=30, rand=lambda: rand) == delay


def test_jitter_spreads_over_the_whole_span_even_at_the_ceiling() -> None:
    draw = random.Random(1).random
    waits = [next_delay(20, base=0.5, cap=30, rand=draw) for _ in range(1000)]
    assert min(waits) < 1
    assert max(waits) > 29


@pytest.mark.parametrize(
    ("attempt", "asked_s", "waited_s", "wait_s"),
    [
        (0, None, 0, 0.25),
        (3, None, 0, 2.0),
        (4, None, 0, None),  # the fifth attempt was the last
        (0, 7, 0, 7.25),  # honoured in full, with jitter on top
        (0, 120, 0, 120),
        (0, 121, 0, None),  # beyond what is left: handed back at once, never cut short
        (1, 60, 61, None),
        (3, None, 119, None),
        (0, 0, 0, 0.25),
    ],
)
def test_policy_bounds_attempts_and_waits(
    attempt: int, asked_s: float | None, waited_s: float, wait_s: float | None
) -> None:
    policy = RetryPolicy()
    assert policy.delay(attempt, asked_s=asked_s, waited_s=waited_s, rand=lambda: 0.5) == wait_s

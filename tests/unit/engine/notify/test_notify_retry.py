"""How patiently a message is sent, without waiting for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from engine.errors import ConfigurationError, TransientError
from engine.notify.channels import asked_wait, said
from engine.notify.config import NotificationConfig
from engine.notify.retry import Patience, Retried, UndeliveredError, persist


async def run(
    patience: Patience, *answers: object, rand: Callable[[], float] = lambda: 0.5
) -> tuple[object, list[float], list[Retried]]:
    """What comes of these answers in turn (errors are raised), the waits and the retries announced."""
    waits: list[float] = []
    retries: list[Retried] = []

    async def attempt(number: int) -> object:
        answer = answers[number - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    result = await persist(attempt, patience, rand=rand, sleep=sleep, on_retry=retries.append)
    return result, waits, retries


LATER = TransientError("later")


async def test_the_first_success_ends_it() -> None:
    result, waits, retries = await run(Patience(), LATER, LATER, "done")
    assert (result, waits) == ("done", [0.5, 1.0])
    assert [(r.attempt, r.wait_s, r.error) for r in retries] == [(1, 0.5, LATER), (2, 1.0, LATER)]


async def test_without_growth_every_wait_has_the_same_ceiling() -> None:
    patience = Patience(max_attempts=4, initial_delay_s=2, exponential=False)
    assert (await run(patience, LATER, LATER, LATER, "done"))[1] == [1, 1, 1]


async def test_waits_grow_to_the_ceiling() -> None:
    patience = Patience(max_attempts=6, initial_delay_s=1, max_delay_s=5)
    waits = (await run(patience, *[LATER] * 5, "done", rand=lambda: 1.0))[1]
    assert waits == [1, 2, 4, 5, 5]


async def test_giving_up_says_after_how_many() -> None:
    with pytest.raises(UndeliveredError, match=r"later \(3 attempts\)") as caught:
        await run(Patience(), LATER, LATER, LATER, "too late")
    assert (caught.value.attempts, caught.value.retry_after) == (3, None)
    assert caught.value.__cause__ is LATER


async def test_a_wait_that_is_asked_for_is_kept_in_full() -> None:
    asked = TransientError("later", retry_after=timedelta(seconds=20))
    assert (await run(Patience(), asked, "done"))[1] == [20.5]


async def test_a_wait_beyond_patience_is_handed_back_at_once() -> None:
    asked = TransientError("later", retry_after=timedelta(days=30))
    with pytest.raises(UndeliveredError, match="1 attempt") as caught:
        await run(Patience(), asked, "done")
    assert caught.value.retry_after == timedelta(days=7)


async def test_what_no_waiting_cures_comes_out_unchanged() -> None:
    wrong = ConfigurationError("wrong")
    with pytest.raises(ConfigurationError) as caught:
        await run(Patience(), wrong, "done")
    assert caught.value is wrong


def test_the_keys_of_the_configuration() -> None:
    retry = {
        "max_attempts": 5,
        "initial_delay_seconds": 2,
        "max_delay_seconds": 9,
        "exponential_backoff": False,
    }
    config = NotificationConfig.model_validate({"retry_config": retry, "timeout_seconds": 4})
    assert Patience.of(config) == Patience(5, 2, 9, exponential=False, timeout_s=4)
    assert Patience.of(NotificationConfig()) == Patience()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("451 4.7.1 Greylisted, try again in 300 seconds", 300),
        ("please retry in 5 minutes", 300),
        ("wait 1 hour", 3600),
        ("450 4.2.0 Greylisted", None),
        ("421 4.7.0 Try again later", None),
    ],
)
def test_waits_in_words(text: str, seconds: int | None) -> None:
    assert asked_wait(text) == (None if seconds is None else timedelta(seconds=seconds))


def test_what_a_server_said_is_short_and_clean() -> None:
    assert said("a\r\n b\tc") == "a b c"
    assert len(said("x" * 1000)) == 300
    assert "geheim" not in said("no: Bearer geheimgeheim")

"""Sending again: how often, after how long, and when to hand a message back to whoever keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from engine.errors import TransientError
from engine.notify.config import NotificationConfig
from engine.retry import next_delay

#: The longest Retry-After that is believed.
MOST_ASKED_S = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How patiently a channel sends one message: the keys of `retry_config`, and `timeout_seconds`.

    `max_delay_s` is also the longest Retry-After that is waited for here: with a longer one the message is
    handed back.
    """

    max_attempts: int = 3
    initial_delay_s: float = 1.0
    max_delay_s: float = 30.0
    exponential: bool = True
    timeout_s: float = 30.0

    @classmethod
    def of(cls, config: NotificationConfig) -> Patience:
        """The patience that a configuration asks for."""
        return cls(
            max_attempts=config.retry_config.max_attempts,
            initial_delay_s=config.retry_config.initial_delay_seconds,
            max_delay_s=config.retry_config.max_delay_seconds,
            exponential=config.retry_config.exponential_backoff,
            timeout_s=config.timeout_seconds,
        )

    def delay(self, attempt: int, *, asked_s: float | None, rand: Callable[[], float]) -> float | None:
        """Return the seconds to wait after failed attempt number `attempt` (from 1), or None to give up.

        Full jitter under the ceiling; a wait that the server asked for is kept in full, with jitter on top.
        """
        if attempt >= self.max_attempts:
            return None
        if asked_s is None:
            return next_delay(
                attempt - 1 if self.exponential else 0,
                base=self.initial_delay_s,
                cap=self.max_delay_s,
                rand=rand,
            )
        if asked_s > self.max_delay_s:
            return None
        return asked_s + rand() * self.initial_delay_s


@dataclass(frozen=True, slots=True)
class Retried:
    """A failed attempt that is followed by another one after `wait_s` seconds."""

    attempt: int
    wait_s: float
    error: TransientError


class UndeliveredError(TransientError):
    """A message that no attempt could deliver; worth another try later. `attempts` is how many were made."""

    attempts: int = 1


async def persist[T](
    attempt: Callable[[int], Awaitable[T]],
    patience: Patience,
    *,
    rand: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
    on_retry: Callable[[Retried], None] = lambda retried: None,
) -> T:
    """Return what the first successful attempt returns; `attempt` is given its number, from 1.

    Raises UndeliveredError when the attempts are used up or the server asks for a longer wait than
    `max_delay_s`; what is not a TransientError comes out at once and unchanged. An attempt without an answer
    within `timeout_s` counts as failed although the server may have taken the message: the stable id of the
    message is what shows the double.
    """
    number = 0
    while True:
        number += 1
        try:
            async with asyncio.timeout(patience.timeout_s):
                return await attempt(number)
        except TransientError as error:
            failed = error
        except TimeoutError:
            failed = TransientError(f"No answer within {patience.timeout_s:g} s.")
        asked_s = None if failed.retry_after is None else failed.retry_after.total_seconds()
        wait_s = patience.delay(number, asked_s=asked_s, rand=rand)
        if wait_s is None:
            raise undelivered(failed, attempts=number, asked_s=asked_s) from failed
        on_retry(Retried(number, wait_s, failed))
        await sleep(wait_s)


def undelivered(error: TransientError, *, attempts: int, asked_s: float | None) -> UndeliveredError:
    """The error of a message handed back after so many attempts."""
    tried = "attempt" if attempts == 1 else "attempts"
    given_up = UndeliveredError(
        f"{error.message} ({attempts} {tried})",
        fix=error.fix or "Wait: the message is tried again by itself.",
        field=error.field,
        retry_after=None if asked_s is None else timedelta(seconds=min(asked_s, MOST_ASKED_S)),
    )
    given_up.attempts = attempts
    return given_up

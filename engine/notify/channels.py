"""What every channel is: one method that delivers a message, or says whether trying again can help."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from engine.log import redact
from engine.notify.render import one_line, shorten
from engine.notify.types import Message

MOST_SAID_CHARS = 300
_ASKED = re.compile(r"(\d{1,6})\s*(second|sec|s|minute|min|m|hour|hr|h)(?:s|\b)", re.IGNORECASE)
_UNIT_S = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that the channel's provider has taken.

    `provider_message_id` finds it there again; `detail` is what the provider said; `refused` are recipients
    that did not get it, each with the reason, while others did; `attempts` counts from 1.
    """

    provider_message_id: str
    detail: str
    refused: tuple[tuple[str, str], ...] = ()
    attempts: int = 1


#: Looks a secret up by its variable's name, in the environment or the vault; None where there is none.
type Secrets = Callable[[str], str | None]


class Channel(Protocol):
    """A way out: mail, Slack."""

    kind: str

    async def send(self, message: Message) -> Delivery:
        """Deliver a message, trying again as configured.

        Raises ConfigurationError (also its kind CredentialError) for what somebody has to mend, and
        UndeliveredError, a TransientError, for what may pass; its `retry_after` is what the provider asked
        for. A message that was taken without a sign of it is delivered again under the same id.
        """
        ...


def said(text: str) -> str:
    """A provider's words, fit for an error and the history: one line, no credentials, not endless."""
    return shorten(redact(one_line(text)), MOST_SAID_CHARS)


def asked_wait(text: str) -> timedelta | None:
    """How long a sentence asks to wait: "greylisted, try again in 5 minutes"; None when it does not say."""
    if (found := _ASKED.search(text)) is None:
        return None
    return timedelta(seconds=int(found[1]) * _UNIT_S[found[2][0].lower()])

"""How a request carries a provider's secret."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Protocol

from engine.providers import Provider


class TokenSource(Protocol):
    """Access tokens of one credential, for providers that do not take the secret itself."""

    async def token(self) -> str:
        """A token that is good for the next minutes. Raises CredentialError and TransientError."""

    def refused(self, token: str) -> None:
        """Forget a token that the provider answered 401 to; another one that is held by now stays."""


@dataclass(frozen=True, slots=True)
class RequestAuth:
    """Headers and query parameters that every request to a provider carries, and where its bearer token
    comes from if it is no fixed one; never shown."""

    headers: dict[str, str] = field(repr=False)
    params: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    tokens: TokenSource | None = field(default=None, repr=False)


def request_auth(provider: Provider, secret: str = "") -> RequestAuth:
    """What the provider's `auth` makes of a secret that is sent as it is stored.

    For the kinds that exchange it for a token first, the provider's headers alone: `engine.oauth.open_auth`.
    """
    auth = provider.auth
    match auth.kind:
        case "bearer":
            return RequestAuth({**provider.headers, "Authorization": f"Bearer {secret}"})
        case "header":
            return RequestAuth({**provider.headers, str(auth.header): secret})
        case "query":
            return RequestAuth({**provider.headers}, ((str(auth.parameter), secret),))
        case "basic":
            encoded = base64.b64encode(secret.encode()).decode()
            return RequestAuth({**provider.headers, "Authorization": f"Basic {encoded}"})
    return RequestAuth({**provider.headers})

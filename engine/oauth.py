"""Access tokens: fetched with a stored secret, kept until shortly before they end, renewed when refused."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Protocol
from urllib.parse import quote, urlencode, urlsplit

import httpx
import msgspec

from engine.errors import ConfigurationError, CredentialError, TransientError
from engine.google_keys import JWT_BEARER, TOKEN_HOSTS, ServiceAccount, service_account
from engine.http import Answer, Call, Http, RefusedError
from engine.json_secrets import client_pair
from engine.log import Log
from engine.providers import Auth, Provider
from engine.request_auth import RequestAuth, request_auth
from engine.retry import RetryPolicy
from engine.settings import Settings

#: A token is renewed this long before it ends, as Google advises.
EARLY = timedelta(minutes=5)
#: For endpoints that do not say how long a token lasts (RFC 6749 lets them).
UNSAID_S = 300
FORM = {"content-type": "application/x-www-form-urlencoded"}


class _Token(msgspec.Struct):
    access_token: Annotated[str, msgspec.Meta(min_length=1)]
    token_type: str = "Bearer"  # noqa: S105 - the kind of token, not one
    expires_in: int | str | None = None


_decode_token = msgspec.json.Decoder(_Token).decode


class Grant(Protocol):
    """What is sent to a token endpoint; `url` is the endpoint, `who` names the account without a secret."""

    @property
    def url(self) -> str: ...
    @property
    def who(self) -> str: ...
    def call(self, *, now: datetime) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Headers and form fields of the request."""


@dataclass(frozen=True, slots=True)
class ServiceAccountGrant:
    """A Google service account that signs for itself (RFC 7523)."""

    account: ServiceAccount
    scopes: tuple[str, ...]

    @property
    def url(self) -> str:
        return self.account.token_url

    @property
    def who(self) -> str:
        return self.account.email

    def call(self, *, now: datetime) -> tuple[Mapping[str, str], Mapping[str, str]]:
        return {}, {"grant_type": JWT_BEARER, "assertion": self.account.assertion(self.scopes, now=now)}


@dataclass(frozen=True, slots=True)
class ClientGrant:
    """OAuth 2 client credentials (RFC 6749, 4.4)."""

    url: str
    auth: Auth
    who: str
    secret: str = field(repr=False)

    def call(self, *, now: datetime) -> tuple[Mapping[str, str], Mapping[str, str]]:
        form = {"grant_type": "client_credentials", **self.auth.token_params}
        if self.auth.scopes:
            form["scope"] = " ".join(self.auth.scopes)
        if self.auth.client_auth == "body":
            return {}, {**form, "client_id": self.who, "client_secret": self.secret}
        # Both halves are form-encoded first (RFC 6749, 2.3.1).
        pair = f"{quote(self.who, safe='')}:{quote(self.secret, safe='')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}, form


class Tokens:
    """The tokens of one credential: one request however many callers wait for it.

    A refused grant is remembered: nothing is asked again with it. `http` is bound to the token endpoint.
    """

    def __init__(self, http: Http, grant: Grant, *, now: Callable[[], datetime]) -> None:
        self._http, self._grant, self._now = http, grant, now
        self._held: str | None = None
        self._until = now()
        self._refusal: CredentialError | None = None
        self._turn = asyncio.Lock()

    async def token(self) -> str:
        """A token that is good for the next minutes.

        Raises CredentialError when the account is refused, TransientError while the endpoint is away,
        ConfigurationError when there is no token endpoint at the address.
        """
        async with self._turn:
            if self._refusal is not None:
                raise CredentialError(self._refusal.message, fix=self._refusal.fix)
            if self._held is None or self._now() >= self._until:
                self._held = await self._fetch()
            return self._held

    def refused(self, token: str) -> None:
        """Forget this token, so that the next caller fetches another."""
        if self._held == token:
            self._held = None

    async def _fetch(self) -> str:
        headers, form = await asyncio.to_thread(lambda: self._grant.call(now=self._now()))
        call = Call("", method="POST", headers={**FORM, **headers}, content=urlencode(form).encode())
        try:
            found = await self._http.send(call, lambda answer: _decode_token(answer.body), judge=_judge)
        except CredentialError as error:
            self._refusal = CredentialError(f"{self._grant.who}: {error.message}", fix=error.fix)
            raise self._refusal from None
        except RefusedError as error:
            raise ConfigurationError(
                error.message, fix=f"Check the token endpoint's address, {self._grant.url}."
            ) from None
        except TransientError as error:
            error.message = f"{self._grant.who}: {error.message}"
            raise
        lasts = timedelta(seconds=_seconds(found.expires_in))
        self._until = self._now() + max(lasts - EARLY, lasts / 2)
        return found.access_token


def _judge(answer: Answer) -> None:
    """RFC 6749, 5.2: a refused grant is 400 with a code of its own. Raises CredentialError for it."""
    if answer.status not in (400, 401, 403):
        return
    try:
        said = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    if isinstance(said, dict) and isinstance(code := said.get("error"), str):
        more = str(said.get("error_description") or "no description")[:200]
        raise CredentialError(
            f"the token endpoint answered {code[:60]}: {more}",
            fix="Check that the account and its key exist and are enabled and that this machine's clock is "
            "right; else store another key.",
        )


def _seconds(said: int | str | None) -> float:
    try:
        return max(float(said), 0.0) if said is not None else UNSAID_S
    except ValueError:
        return UNSAID_S


class _Unpaced:
    """Permits of a token endpoint: it is asked once an hour."""

    async def take(self) -> None:
        return None

    def learn(self, status: int, headers: Mapping[str, str]) -> None:
        return None


def open_auth(
    provider: Provider,
    secret: str,
    *,
    settings: Settings,
    client: httpx.AsyncClient,
    policy: RetryPolicy,
    rand: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
    now: Callable[[], datetime],
    log: Log,
) -> RequestAuth:
    """How requests with this secret are authenticated, whatever the provider's kind; no request is made.

    Raises CredentialError for a secret that is not of the form the kind needs.
    """
    fixed = request_auth(provider, secret)
    if (grant := _grant(provider, secret, settings)) is None:
        return fixed
    http = Http(
        client,
        provider=f"{provider.name} token endpoint",
        base_url=grant.url,
        official_hosts=_token_hosts(provider),
        auth=RequestAuth({}),
        permits=_Unpaced(),
        policy=policy,
        rand=rand,
        sleep=sleep,
        now=now,
        log=log,
    )
    return RequestAuth(fixed.headers, fixed.params, Tokens(http, grant, now=now))


def _grant(provider: Provider, secret: str, settings: Settings) -> Grant | None:
    if provider.auth.kind == "google_service_account":
        account = service_account(secret, oauth_base_url=settings.gcp_oauth_base_url)
        return ServiceAccountGrant(account, provider.auth.scopes)
    if provider.auth.kind == "oauth2_client_credentials":
        pair = client_pair(provider.display_name, secret)
        return ClientGrant(
            provider.token_address(settings), provider.auth, pair["client_id"], pair["client_secret"]
        )
    return None


def _token_hosts(provider: Provider) -> tuple[str, ...]:
    """Hosts that must be public: those that are named here, not what the environment points at."""
    if provider.auth.kind == "google_service_account":
        return tuple(TOKEN_HOSTS)
    return (*provider.official_hosts, urlsplit(str(provider.auth.token_url)).hostname or "")

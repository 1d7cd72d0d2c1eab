"""The one door to providers: auth, permits, retries, bounds, and errors that never carry a key."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal, NoReturn

import httpx
import msgspec

from engine.errors import ConfigurationError, CredentialError, DataError, TransientError
from engine.http_said import request_id, vendor_message
from engine.limits import Permits, asked_wait_s
from engine.log import HIDDEN, Log, redact
from engine.peers import Origins, PrivateAddressError
from engine.request_auth import RequestAuth
from engine.retry import RetryPolicy

if find_spec("sniffio") is None:
    # httpcore looks for it several times a request; a search in vain costs a fifth of a request's CPU time.
    sys.modules["sniffio"] = None  # type: ignore[assignment]

MAX_CONNECTIONS = 16  # httpx searches its whole pool for each request: above this it gets slower, not faster.
MAX_BODY_BYTES = 64 * 1024 * 1024
#: Retried besides 5xx, as the vendors' own clients do.
RETRIED_STATUSES = frozenset({408, 409, 425, 429})
#: 429 codes that a wait does not cure.
_SPENT_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_JSON_PATH = re.compile(r"`(\$[^`]*)`")


class RefusedError(ConfigurationError):
    """A request the provider understands and will not answer; `status` is the HTTP status."""

    status: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One request: `path` is appended to the base URL or is a whole URL of an allowed host."""

    path: str
    params: Sequence[tuple[str, str]] = ()
    method: Literal["GET", "POST"] = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole; header names in any case."""

    url: str
    status: int
    headers: httpx.Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Again:
    """A judgement: ask once more; `asked_s` are the seconds that the answer wants to be left alone.

    `limited` makes it count as a 429 for every request with the credential.
    """

    detail: str
    asked_s: float | None = None
    limited: bool = False


class Take:
    """A judgement: this is the answer, whatever its status."""


#: Looks at an answer before the usual rules do; None leaves it to them. May raise an error of ours.
type Judge = Callable[[Answer], Again | Take | None]


@dataclass(frozen=True, slots=True)
class _Try:
    """A failed attempt that may be repeated: what it was, and the wait the server asked for."""

    code: str
    detail: str
    asked_s: float | None = None
    again: bool = True
    #: The token that was refused: another one is worth one more request, at once.
    token: str | None = None


def open_client(
    *,
    connect_s: float = 10,
    read_s: float = 60,
    transport: httpx.AsyncBaseTransport | None = None,
) -> httpx.AsyncClient:
    """Return the client that the `Http`s of a unit share; close it with `async with`.

    It keeps no cookies (they would travel between credentials), follows no redirect and never sends loopback
    calls through a proxy.
    """
    return httpx.AsyncClient(
        transport=transport,
        mounts={"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None},
        timeout=httpx.Timeout(read_s, connect=connect_s),
        limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
        follow_redirects=False,
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
    )


@cache
def user_agent() -> str:
    """Return `manta/<version>`; Anthropic asks callers of its admin API to name themselves."""
    try:
        return f"manta/{version('manta')}"
    except PackageNotFoundError:
        return "manta/0"


class Http:
    """One provider with one credential: requests with retries inside.

    Raises CredentialError (401, 403; nothing is asked again after it), RefusedError (other 4xx, redirects),
    DataError (a body that is too large or breaks the contract), TransientError (what outlived the retries),
    ConfigurationError (an address elsewhere: see `engine.peers`). `calls` counts requests sent, `bytes`
    decoded body bytes received. `services` are further addresses that may be asked by a whole URL.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        provider: str,
        base_url: str,
        auth: RequestAuth,
        permits: Permits,
        policy: RetryPolicy,
        rand: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        now: Callable[[], datetime],
        log: Log,
        max_body_bytes: int = MAX_BODY_BYTES,
        services: Mapping[str, str] | None = None,
        official_hosts: Sequence[str] = (),
    ) -> None:
        self.provider = provider
        self.calls = 0
        self.bytes = 0
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._origins = Origins([self._base_url, *(services or {}).values()], official_hosts)
        self._auth = auth
        self._headers = {"user-agent": user_agent(), "accept": "application/json", **auth.headers}
        self._permits, self._policy, self._rand, self._sleep = permits, policy, rand, sleep
        self._now, self._log, self._max_body_bytes = now, log, max_body_bytes
        secrets = [*auth.headers.values(), *(value for _, value in auth.params)]
        self._secrets = {part for value in secrets for part in value.split() if len(part) > 11}
        self._refusal = ""
        if bad := [name for name, value in auth.headers.items() if not _sendable(value)]:
            raise CredentialError(
                f"{provider}: header {', '.join(bad)} holds a character that HTTP does not allow.",
                fix="Store the credential again without line breaks or other invisible characters.",
            )

    async def get(
        self, path: str, params: Sequence[tuple[str, str]] = (), *, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Return the body of a 2xx answer; `path` starts with a slash and is appended to the base URL."""
        return await self.get_json(path, params, bytes, headers=headers)

    async def get_json[T](
        self,
        path: str,
        params: Sequence[tuple[str, str]],
        decoder: Callable[[bytes], T],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """Return the decoded body of a 2xx answer; see `send`."""
        return await self.send(Call(path, params, headers=headers or {}), lambda answer: decoder(answer.body))

    async def send[T](self, call: Call, decoder: Callable[[Answer], T], *, judge: Judge | None = None) -> T:
        """Return what `decoder` makes of a 2xx answer, or of one that `judge` takes.

        A body that `decoder` finds not to be JSON (msgspec.DecodeError) is asked for again; one of the wrong
        shape (msgspec.ValidationError) is a DataError that names the JSON path.
        """
        url = self._url(call.path)
        waited_s, attempt, renewed = 0.0, 0, False
        while True:
            if self._refusal:
                raise self._credential_refused()
            failed = await self._attempt(url, call, decoder, judge)
            if not isinstance(failed, _Try):
                return failed[0]
            if failed.token is not None and self._auth.tokens is not None:
                self._auth.tokens.refused(failed.token)
                if renewed:
                    self._refusal = failed.detail
                renewed = True
                continue
            wait_s = self._policy.delay(attempt, asked_s=failed.asked_s, waited_s=waited_s, rand=self._rand)
            if wait_s is None or not failed.again:
                self._give_up(self._shown(url), failed, attempts=attempt + 1)
            attempt += 1
            self._log.warning(
                "http.retry",
                provider=self.provider,
                path=self._shown(url),
                attempt=attempt,
                wait_s=round(wait_s, 3),
                code=failed.code,
            )
            waited_s += wait_s
            await self._sleep(wait_s)

    def _url(self, path: str) -> httpx.URL:
        try:
            url = httpx.URL(path if "://" in path else self._base_url + path)
        except httpx.InvalidURL:
            raise ConfigurationError(
                f"{self.provider}: {self._clean(path)[:100]!r} is no address.",
                fix="Write a path that begins with a slash.",
            ) from None
        self._origins.check(url, provider=self.provider)
        return url

    def _shown(self, url: httpx.URL) -> str:
        """A URL's path as it follows the base URL: what messages call the request."""
        base = httpx.URL(self._base_url)
        return url.path.removeprefix(base.path.rstrip("/")) if url.host == base.host else url.path

    async def _attempt[T](
        self, url: httpx.URL, call: Call, decoder: Callable[[Answer], T], judge: Judge | None
    ) -> tuple[T] | _Try:
        path, headers, token = self._shown(url), {**self._headers, **call.headers}, None
        if self._auth.tokens is not None:
            token = await self._auth.tokens.token()
            self._secrets.add(token)
            headers["Authorization"] = f"Bearer {token}"
        await self._permits.take()
        self.calls += 1
        try:
            async with self._client.stream(
                call.method,
                url.copy_merge_params([*call.params, *self._auth.params]),
                headers=headers,
                content=call.content,
                extensions=self._origins.extensions(url),
            ) as response:
                self._permits.learn(response.status_code, response.headers)
                body = await self._read(path, response)
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL) as error:
            # Their text can quote a header, so neither it nor the cause goes on.
            raise ConfigurationError(
                f"{self.provider} {path}: the request cannot be built ({type(error).__name__}).",
                fix=f"Check the base URL of {self.provider} in the settings.",
            ) from None
        except PrivateAddressError as error:
            raise ConfigurationError(
                f"{self.provider} {path}: {error}, which is no public address; nothing was sent.",
                fix="If the API is meant to be there, name its address in PROVIDER_BASE_URLS.",
                field="official_hosts",
            ) from None
        except httpx.RequestError as error:
            return _Try(type(error).__name__, self._clean(str(error)) or "no further detail")
        answer = Answer(str(url), response.status_code, response.headers, body)
        judged = judge(answer) if judge else None
        if isinstance(judged, Again):
            if judged.limited and answer.status != 429:
                self._permits.learn(429, _wait_header(judged.asked_s))
            return _Try(str(answer.status), self._clean(judged.detail), asked_s=judged.asked_s)
        if not response.is_success and not isinstance(judged, Take):
            return self._unsuccessful(path, response, body, token)
        try:
            return (decoder(answer),)
        except msgspec.ValidationError as error:
            raise self._contract_broken(path, response, error) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            kind = response.headers.get("content-type", "no content type")
            return _Try("undecodable", f"{len(body)} bytes of {kind} are not JSON: {self._clean(str(error))}")

    async def _read(self, path: str, response: httpx.Response) -> bytes:
        chunks: list[bytes] = []
        size = 0
        # Counted after decompression: a small answer can unpack to a large one.
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > self._max_body_bytes:
                raise DataError(
                    f"{self.provider} {path}: the answer is larger than {self._max_body_bytes} bytes.",
                    fix="Ask for fewer days at once (max_days_per_unit of the pipeline).",
                )
            chunks.append(chunk)
        self.bytes += size
        return b"".join(chunks)

    def _unsuccessful(self, path: str, response: httpx.Response, body: bytes, token: str | None) -> _Try:
        """Raise what nobody should repeat; return what may be repeated."""
        status = response.status_code
        said, code = vendor_message(body, response.headers, clean=self._clean, instead=response.reason_phrase)
        where = f"{self.provider} {path}: HTTP {status}"
        if response.is_redirect:
            raise _refused(
                f"{where}: redirects to {_redirect_host(response)}; redirects are not followed.",
                status=status,
                fix=f"Set the base URL of {self.provider} to the API itself.",
            )
        if status == 401 and token is not None:
            return _Try("401", f"{where}: {said}", token=token)
        if status in (401, 403):
            self._refusal = f"{where}: {said}"
            raise self._credential_refused()
        if (status in RETRIED_STATUSES and code not in _SPENT_CODES) or status >= 500:
            again = response.headers.get("x-should-retry", "").lower() != "false"
            return _Try(
                str(status), said, asked_s=asked_wait_s(response.headers, now=self._now()), again=again
            )
        raise _refused(f"{where}: {said}", status=status, fix="Correct what the provider's message names.")

    def _credential_refused(self) -> CredentialError:
        # Built anew each time: callers add to the message of the error they catch.
        return CredentialError(
            self._refusal,
            fix=f"Store a valid {self.provider} key with permission to read what is asked for.",
        )

    def _give_up(self, path: str, failed: _Try, *, attempts: int) -> NoReturn:
        status = f"HTTP {failed.code}" if failed.code.isdigit() else failed.code
        plural = "attempt" if attempts == 1 else "attempts"
        raise TransientError(
            f"{self.provider} {path}: {status} after {attempts} {plural}: {failed.detail}",
            fix="Wait: the unit is tried again by itself.",
            retry_after=None if failed.asked_s is None else timedelta(seconds=min(failed.asked_s, 7 * 86400)),
        )

    def _contract_broken(
        self, path: str, response: httpx.Response, error: msgspec.ValidationError
    ) -> DataError:
        found = _JSON_PATH.search(str(error))
        return DataError(
            f"{self.provider} {path}: {self._clean(str(error))}{request_id(response.headers)}",
            fix=f"Nothing was published; compare the answer with {self.provider}'s documentation.",
            field=found.group(1) if found else None,
        )

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return redact(text)


def _redirect_host(response: httpx.Response) -> str:
    try:
        return response.url.join(response.headers.get("location", "")).host or "an unnamed host"
    except httpx.InvalidURL:
        return "an unreadable address"


def _wait_header(asked_s: float | None) -> dict[str, str]:
    return {} if asked_s is None else {"retry-after": f"{asked_s:.3f}"}


def _sendable(value: str) -> bool:
    return value.isascii() and value.isprintable()


def _refused(message: str, *, status: int, fix: str) -> RefusedError:
    error = RefusedError(message, fix=fix)
    error.status = status
    return error

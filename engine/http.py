"""The one door to providers: auth, permits, retries, bounds, and errors that never carry a key."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

import httpx
import msgspec

from engine.errors import ConfigurationError, CredentialError, DataError, TransientError
from engine.limits import Permits, asked_wait_s
from engine.log import HIDDEN, Log, redact
from engine.retry import RetryPolicy

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
class _Try:
    """A failed attempt that may be repeated: what it was, and the wait the server asked for."""

    code: str
    detail: str
    asked_s: float | None = None
    again: bool = True


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
    """One provider with one credential: GET with retries inside.

    Raises CredentialError (401, 403; nothing is asked again after it), RefusedError (other 4xx, redirects),
    DataError (a body that is too large or breaks the contract), TransientError (what outlived the retries).
    `calls` counts requests sent, `bytes` decoded body bytes received.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        provider: str,
        base_url: str,
        headers: Mapping[str, str],
        permits: Permits,
        policy: RetryPolicy,
        rand: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        now: Callable[[], datetime],
        log: Log,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self.provider = provider
        self.calls = 0
        self.bytes = 0
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._headers = {"user-agent": user_agent(), "accept": "application/json", **headers}
        self._permits, self._policy, self._rand, self._sleep = permits, policy, rand, sleep
        self._now, self._log, self._max_body_bytes = now, log, max_body_bytes
        self._secrets = tuple(part for value in headers.values() for part in value.split() if len(part) > 11)
        self._refusal = ""
        if bad := [name for name, value in headers.items() if not (value.isascii() and value.isprintable())]:
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
        """Return the decoded body of a 2xx answer.

        A body that `decoder` finds not to be JSON (msgspec.DecodeError) is asked for again; one of the wrong
        shape (msgspec.ValidationError) is a DataError that names the JSON path.
        """
        waited_s = 0.0
        for attempt in range(self._policy.max_attempts):
            if self._refusal:
                raise self._credential_refused()
            failed = await self._attempt(path, params, {**self._headers, **(headers or {})}, decoder)
            if not isinstance(failed, _Try):
                return failed[0]
            wait_s = self._policy.delay(attempt, asked_s=failed.asked_s, waited_s=waited_s, rand=self._rand)
            if wait_s is None or not failed.again:
                self._give_up(path, failed, attempts=attempt + 1)
            self._log.warning(
                "http.retry",
                provider=self.provider,
                path=path,
                attempt=attempt + 1,
                wait_s=round(wait_s, 3),
                code=failed.code,
            )
            waited_s += wait_s
            await self._sleep(wait_s)
        raise AssertionError("the policy gives up on the last attempt")

    async def _attempt[T](
        self,
        path: str,
        params: Sequence[tuple[str, str]],
        headers: Mapping[str, str],
        decoder: Callable[[bytes], T],
    ) -> tuple[T] | _Try:
        await self._permits.take()
        self.calls += 1
        try:
            async with self._client.stream(
                "GET", self._base_url + path, params=list(params), headers=headers
            ) as response:
                self._permits.learn(response.status_code, response.headers)
                body = await self._read(path, response)
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL) as error:
            # Their text can quote a header, so neither it nor the cause goes on.
            raise ConfigurationError(
                f"{self.provider} {path}: the request cannot be built ({type(error).__name__}).",
                fix=f"Check the base URL of {self.provider} in the settings.",
            ) from None
        except httpx.RequestError as error:
            return _Try(type(error).__name__, self._clean(str(error)) or "no further detail")
        if not response.is_success:
            return self._unsuccessful(path, response, body)
        try:
            return (decoder(body),)
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

    def _unsuccessful(self, path: str, response: httpx.Response, body: bytes) -> _Try:
        """Raise what nobody should repeat; return what may be repeated."""
        status = response.status_code
        said, code = self._vendor_message(response, body)
        where = f"{self.provider} {path}: HTTP {status}"
        if response.is_redirect:
            raise _refused(
                f"{where}: redirects to {_redirect_host(response)}; redirects are not followed.",
                status=status,
                fix=f"Set the base URL of {self.provider} to the API itself.",
            )
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
            fix=f"Store a valid {self.provider} admin key with permission to read usage and cost.",
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
            f"{self.provider} {path}: {self._clean(str(error))}{_request_id(response)}",
            fix=f"Nothing was published; compare the answer with {self.provider}'s documentation.",
            field=found.group(1) if found else None,
        )

    def _vendor_message(self, response: httpx.Response, body: bytes) -> tuple[str, str]:
        """Return the vendor's own words with the request id, and the vendor's error code."""
        said, code = "", ""
        try:
            error = msgspec.json.decode(body).get("error")
            said, code = (
                (str(error.get("message") or ""), str(error.get("code") or error.get("type") or ""))
                if isinstance(error, dict)
                else (str(error or ""), "")
            )
        except (msgspec.DecodeError, UnicodeDecodeError, AttributeError):
            # A gateway's page says nothing that a person could use.
            said = "" if b"<" in body[:200] else body[:300].decode(errors="replace")
        said = " ".join(self._clean(said).split())[:300] or response.reason_phrase or "no message"
        return said + _request_id(response), code

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return redact(text)


def _redirect_host(response: httpx.Response) -> str:
    try:
        return response.url.join(response.headers.get("location", "")).host or "an unnamed host"
    except httpx.InvalidURL:
        return "an unreadable address"


def _request_id(response: httpx.Response) -> str:
    request_id = response.headers.get("x-request-id") or response.headers.get("request-id")
    return f" (request {request_id[:100]})" if request_id else ""


def _refused(message: str, *, status: int, fix: str) -> RefusedError:
    error = RefusedError(message, fix=fix)
    error.status = status
    return error

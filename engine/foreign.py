"""Foreign exceptions become ours at the doors, and a door keeps trying while the other side is away."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import grpc
import httpx
import requests.exceptions
from google.api_core import exceptions as google
from google.auth import exceptions as auth

from engine.errors import ConfigurationError, InternalError, MantaError, NotFoundError, TransientError

#: BigQuery's error reasons that pass by themselves (docs: "Error messages").
TRANSIENT_REASONS = frozenset(
    {
        "backendError",
        "badGateway",
        "internalError",
        "jobBackendError",
        "jobInternalError",
        "jobRateLimitExceeded",
        "quotaExceeded",
        "rateLimitExceeded",
        "resourcesExceeded",
        "resourceInUse",
        "stopped",
        "tableUnavailable",
        "timeout",
    }
)
#: Two transactions met; the embedded BigQuery and the real one say it differently, all as 400. The last one
#: is the embedded one's too: its clean-up after the failed commit hides the commit's own error.
CONFLICT_TEXTS = (
    "Failed to commit DuckLake transaction",
    "aborted due to concurrent update",
    "Could not serialize access",
    "cannot rollback - no transaction is active",
)

Kind = type[MantaError]
_untyped: Any = google


class Conflict(TransientError):  # noqa: N818  (a state of the world; the contract's name)
    """Somebody else was first: the id, the offset or the etag is used up."""

    code = "conflict"


# The most specific line wins: the first match along the exception's own ancestry.
KINDS: dict[type[BaseException], Kind] = {
    google.GoogleAPIError: InternalError,
    google.RetryError: TransientError,
    google.DuplicateCredentialArgs: ConfigurationError,
    google.AsyncRestUnsupportedParameterError: InternalError,
    google.Redirection: ConfigurationError,
    google.ResumeIncomplete: TransientError,
    google.ClientError: ConfigurationError,
    google.NotFound: NotFoundError,
    google.Conflict: Conflict,
    google.Aborted: TransientError,
    google.PreconditionFailed: Conflict,
    google.TooManyRequests: TransientError,
    google.Cancelled: TransientError,
    google.ServerError: TransientError,
    google.MethodNotImplemented: InternalError,
    google.DataLoss: InternalError,
    google.ResumableTransferError: TransientError,
    google.UnseekableStreamError: InternalError,
    auth.GoogleAuthError: ConfigurationError,
    auth.TransportError: TransientError,
    auth.ResponseError: TransientError,
    requests.exceptions.RequestException: TransientError,
    requests.exceptions.SSLError: ConfigurationError,
    requests.exceptions.InvalidURL: ConfigurationError,
    requests.exceptions.InvalidSchema: ConfigurationError,
    requests.exceptions.MissingSchema: ConfigurationError,
    requests.exceptions.TooManyRedirects: ConfigurationError,
    httpx.HTTPError: InternalError,
    httpx.TransportError: TransientError,
    httpx.UnsupportedProtocol: ConfigurationError,
    httpx.LocalProtocolError: InternalError,
    httpx.DecodingError: TransientError,
    httpx.TooManyRedirects: ConfigurationError,
    httpx.InvalidURL: ConfigurationError,
    httpx.CookieConflict: InternalError,
    httpx.StreamError: InternalError,
    ConnectionError: TransientError,
    TimeoutError: TransientError,
}
#: An optional package's errors go by their names: it is not imported for them.
NAMED: dict[str, Kind] = {
    "google.cloud.storage.exceptions.DataCorruption": TransientError,
    "google.cloud.storage.exceptions.InvalidResponse": TransientError,
    "google.cloud.storage.exceptions.InvalidPathError": InternalError,
}
#: Whoever has the id of a resumable upload may write in our name, without credentials, for a week.
_UPLOAD_ID = re.compile(r"(?<=upload_id=)[\w.~%-]+")
FIXES: dict[Kind, str] = {
    TransientError: "Try again; if it stays, look whether the service is up.",
    Conflict: "Read the state again before the next try.",
    NotFoundError: "Check the name, or create it first.",
    ConfigurationError: "Check the address, the credentials and the request.",
    InternalError: "Report it with this message.",
}


def translate(error: BaseException, doing: str) -> MantaError | None:
    """Answer our kind of a foreign error, or None for one that no door knows."""
    if isinstance(error, grpc.RpcError) and not isinstance(error, google.GoogleAPIError):
        error = _untyped.from_grpc_error(error)
    if isinstance(error, httpx.HTTPStatusError):
        error = _untyped.from_http_status(error.response.status_code, str(error))
    kind = next(filter(None, map(_kind, type(error).__mro__)), None)
    if kind is None:
        return None
    timed_out = getattr(error, "code", None) == HTTPStatus.REQUEST_TIMEOUT
    if timed_out or (kind is ConfigurationError and passes(_reason(error), str(error))):
        kind = TransientError
    said = getattr(error, "message", None) or str(error) or type(error).__name__
    return kind(f"{doing}: {_UPLOAD_ID.sub('...', said)}", fix=FIXES[kind])


def passes(reason: str, message: str) -> bool:
    """Say whether a BigQuery error of this reason and text is worth another try."""
    return reason in TRANSIENT_REASONS or any(text in message for text in CONFLICT_TEXTS)


def _kind(ancestor: type) -> Kind | None:
    return KINDS.get(ancestor) or NAMED.get(f"{ancestor.__module__}.{ancestor.__qualname__}")


def _reason(error: BaseException) -> str:
    details = getattr(error, "errors", None) or ()
    first = details[0] if isinstance(details, (list, tuple)) and details else None
    return str(first.get("reason", "")) if isinstance(first, dict) else ""


@contextmanager
def mapped(doing: str) -> Iterator[None]:
    """Raise our kind of error for every foreign one; `doing` begins the message."""
    try:
        yield
    except MantaError:
        raise
    except Exception as error:
        ours = translate(error, doing)
        if ours is None:
            raise
        raise ours from error


@dataclass(frozen=True)
class Patience:
    """How long a door tries again while the other side is away: full jitter, `away_s` in all."""

    away_s: float = 120.0
    base_s: float = 0.1
    cap_s: float = 5.0
    rand: Callable[[], float] = random.random
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def pause(self, times: int) -> None:
        """Wait before try `times` + 1: somewhere in 0..min(cap, base * 2**times) seconds."""
        self.sleep(self.rand() * min(self.cap_s, self.base_s * 2 ** min(times, 16)))

    def insist[T](self, doing: str, call: Callable[[], T]) -> T:
        """Call until it answers; everything but a transient error ends it at once.

        Raises TransientError when `away_s` are over, and whatever else the call means.
        """
        until, times = self.clock() + self.away_s, 0
        while True:
            try:
                with mapped(doing):
                    return call()
            except Conflict:
                raise
            except TransientError:
                if self.clock() >= until:
                    raise
            self.pause(times)
            times += 1

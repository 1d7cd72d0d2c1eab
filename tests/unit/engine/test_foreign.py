"""Every foreign exception has a kind of ours, and a door tries again exactly while that can help."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import google.api_core.exceptions as google
import google.auth.exceptions as auth
import grpc
import httpx
import pytest
import requests
from google.cloud.storage import exceptions as storage

from engine.errors import ConfigurationError, InternalError, MantaError, NotFoundError, TransientError
from engine.foreign import NAMED, Conflict, Patience, mapped, translate


def tree(*roots: type[BaseException]) -> Iterator[type[BaseException]]:
    for root in roots:
        yield root
        yield from tree(*root.__subclasses__())


def declared(module: object) -> list[type[BaseException]]:
    """Every exception class that a module defines itself."""
    found = [thing for thing in vars(module).values() if isinstance(thing, type)]
    return [kind for kind in found if issubclass(kind, Exception) and kind.__module__ == module.__name__]  # type: ignore[attr-defined]


FOREIGN = sorted(
    {
        *declared(google),
        *declared(auth),
        *declared(httpx._exceptions),
        *declared(requests.exceptions),
        *declared(storage),
        *tree(google.GoogleAPIError, httpx.HTTPError, httpx.StreamError, requests.RequestException),
    },
    key=lambda kind: f"{kind.__module__}.{kind.__qualname__}",
)


REQUEST = httpx.Request("GET", "http://127.0.0.1/")


def instance(kind: Any) -> BaseException:
    """An exception of that kind, built as its library lets it be built."""
    if issubclass(kind, httpx.HTTPStatusError):
        return kind("said so", request=REQUEST, response=httpx.Response(503, request=REQUEST))
    if issubclass(kind, google.RetryError):
        return kind("said so", cause=None)
    if issubclass(kind, google.GoogleAPICallError):
        return kind("said so")
    # The other constructors want what only their libraries have; none of it is looked at.
    error: BaseException = kind.__new__(kind)
    Exception.__init__(error, "said so")
    return error


@pytest.mark.parametrize(
    "kind", [k for k in FOREIGN if not issubclass(k, Warning)], ids=lambda k: k.__qualname__
)
def test_every_foreign_exception_is_mapped(kind: type[BaseException]) -> None:
    error = instance(kind)

    ours = translate(error, "Doing")

    assert isinstance(ours, MantaError), f"{kind} is new: give it a kind in KINDS"
    assert ours.message.startswith("Doing: ")
    assert ours.fix


def test_what_goes_by_name_is_there() -> None:
    assert set(NAMED) == {f"{kind.__module__}.{kind.__qualname__}" for kind in declared(storage)}


class Dropped(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "connection reset"

    def trailing_metadata(self) -> tuple[()]:
        return ()


def api(status: int, reason: str, message: str = "no") -> Exception:
    error: Exception = google.from_http_status(status, message, errors=[{"reason": reason}])  # type: ignore[no-untyped-call]
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (api(400, "invalidQuery"), ConfigurationError),
        (api(400, "invalid", "Failed to commit: Failed to commit DuckLake transaction."), TransientError),
        (api(400, "invalid", "Transaction is aborted due to concurrent update"), TransientError),
        (api(400, "invalid", "cannot rollback - no transaction is active"), TransientError),
        (api(403, "rateLimitExceeded"), TransientError),
        (api(403, "accessDenied"), ConfigurationError),
        (api(404, "notFound"), NotFoundError),
        (api(408, "timeout"), TransientError),
        (api(409, "duplicate"), Conflict),
        (api(412, "conditionNotMet"), Conflict),
        (api(429, "quotaExceeded"), TransientError),
        (api(500, "backendError"), TransientError),
        (api(501, "notImplemented"), InternalError),
        (api(503, "backendError"), TransientError),
        (Dropped(), TransientError),
        (requests.ConnectionError("refused"), TransientError),
        (requests.exceptions.SSLError("bad certificate"), ConfigurationError),
        (auth.DefaultCredentialsError("none"), ConfigurationError),
        (auth.TransportError("metadata server is away"), TransientError),
        (httpx.ReadTimeout("slow"), TransientError),
        (httpx.HTTPStatusError("no", request=REQUEST, response=httpx.Response(401)), ConfigurationError),
        (httpx.HTTPStatusError("no", request=REQUEST, response=httpx.Response(502)), TransientError),
        (ConnectionResetError(), TransientError),
    ],
)
def test_the_kind_says_whether_to_try_again(error: Exception, kind: type[MantaError]) -> None:
    with pytest.raises(kind) as caught, mapped("Doing"):
        raise error

    assert type(caught.value) is kind
    assert caught.value.__cause__ is error


def test_what_no_door_knows_passes_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), mapped("Doing"):
        raise ZeroDivisionError
    with pytest.raises(NotFoundError, match=r"^ours$"), mapped("Doing"):
        raise NotFoundError("ours")


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def sleep(self, wait_s: float) -> None:
        self.slept.append(wait_s)
        self.now_s += wait_s

    def patience(self, rand: Callable[[], float] = lambda: 1.0) -> Patience:
        return Patience(away_s=30, base_s=0.1, cap_s=5, rand=rand, sleep=self.sleep, clock=lambda: self.now_s)


def test_a_door_outlives_an_absence() -> None:
    clock = Clock()

    def away_for_20_s() -> str:
        if clock.now_s < 20:
            raise requests.ConnectionError("refused")
        return "here"

    assert clock.patience().insist("Asking", away_for_20_s) == "here"
    assert clock.slept[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(clock.slept) == 5


def test_a_door_gives_up() -> None:
    clock = Clock()

    def away() -> None:
        raise requests.ConnectionError("refused")

    with pytest.raises(TransientError, match="Asking"):
        clock.patience().insist("Asking", away)
    assert 30 <= clock.now_s <= 35


@pytest.mark.parametrize("error", [api(400, "invalid"), api(404, "notFound"), api(409, "duplicate")])
def test_a_door_does_not_repeat_what_cannot_help(error: Exception) -> None:
    clock = Clock()
    calls: list[int] = []

    def refused() -> None:
        calls.append(1)
        raise error

    with pytest.raises(MantaError):
        clock.patience().insist("Asking", refused)
    assert len(calls) == 1


def test_the_jitter_is_full() -> None:
    clock = Clock()

    clock.patience(lambda: 0.0).pause(3)
    clock.patience(lambda: 0.5).pause(100)

    assert clock.slept == [0.0, 2.5]

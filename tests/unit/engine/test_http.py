from __future__ import annotations

import asyncio
import gzip
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from engine.errors import ConfigurationError, CredentialError, DataError, MantaError, TransientError
from engine.http import Http, RefusedError, open_client, user_agent
from engine.request_auth import RequestAuth
from engine.retry import RetryPolicy

KEY = "sk-admin-VerySecret123"
NOW = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


class Free:
    """Permits without a limit that remember what they were told."""

    def __init__(self) -> None:
        self.taken = 0
        self.learned: list[int] = []

    async def take(self) -> None:
        self.taken += 1

    def learn(self, status: int, headers: Any) -> None:
        self.learned.append(status)


class Lines:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.events.append((event, fields))

    warning = error = info

    def bind(self, **fields: object) -> Lines:
        return self


class Rig:
    """An Http over scripted answers; time passes only on paper."""

    def __init__(
        self, *answers: httpx.Response | Exception, policy: RetryPolicy | None = None, **kwargs: Any
    ):
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []
        self.permits, self.log = Free(), Lines()
        self.client = open_client(transport=httpx.MockTransport(self._answer))
        defaults: dict[str, Any] = {
            "base_url": "https://api.test/v1",
            "auth": RequestAuth({"authorization": f"Bearer {KEY}"}),
        }
        self.http = Http(
            self.client,
            provider="openai",
            permits=self.permits,
            policy=policy or RetryPolicy(),
            rand=lambda: 1.0,
            sleep=self._sleep,
            now=lambda: NOW,
            log=self.log,
            **(defaults | kwargs),
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        # A response is read once; the script may give it again.
        headers = [(k, v) for k, v in answer.headers.items() if k != "content-length"]
        return httpx.Response(answer.status_code, headers=headers, content=answer.content)

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


def no(
    status: int, message: str = "no", headers: dict[str, str] | None = None, **error: object
) -> httpx.Response:
    body = {"error": {"message": message, "type": "t", "param": None, "code": None, **error}}
    return httpx.Response(status, json=body, headers=headers)


OK = httpx.Response(200, json={"fine": True})


async def test_a_call_carries_key_agent_and_parameters_in_order() -> None:
    rig = Rig(OK)
    body = await rig.http.get("/usage", [("group_by[]", "a"), ("group_by[]", "b")], headers={"x-more": "1"})
    (request,) = rig.requests
    assert msgspec.json.decode(body) == {"fine": True}
    assert str(request.url) == "https://api.test/v1/usage?group_by%5B%5D=a&group_by%5B%5D=b"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["user-agent"] == user_agent()
    assert user_agent().startswith("manta/")
    assert request.headers["x-more"] == "1"
    assert (rig.http.calls, rig.http.bytes, rig.permits.taken, rig.permits.learned) == (
        1,
        len(body),
        1,
        [200],
    )


@pytest.mark.parametrize(
    "failure",
    [
        no(429), no(500), no(502), no(503), no(529), no(408), no(409),
        httpx.ReadTimeout("slow"), httpx.ConnectError("refused"), httpx.RemoteProtocolError("cut"),
        httpx.ReadError("reset"), httpx.PoolTimeout("full"),
        httpx.Response(200, content=b'{"fine": tr'), httpx.Response(200, content=b"<html>502</html>"),
        httpx.Response(200, content=b""), httpx.Response(200, content=b'{"fine": "\xff"}'),
    ],
)  # fmt: skip
async def test_what_passes_is_tried_again(failure: httpx.Response | Exception) -> None:
    rig = Rig(failure, failure, OK)
    assert await rig.http.get_json("/usage", (), msgspec.json.decode) == {"fine": True}
    assert rig.waits == [0.5, 1.0]
    assert [event for event, _ in rig.log.events] == ["http.retry"] * 2
    fields = rig.log.events[1][1]
    assert (fields["attempt"], fields["wait_s"], fields["path"]) == (2, 1.0, "/usage")
    assert fields["code"]


async def test_attempts_are_bounded_and_the_error_says_what_happened() -> None:
    rig = Rig(no(503, "we are down", {"x-request-id": "req_42"}))
    with pytest.raises(TransientError) as caught:
        await rig.http.get("/usage", [("page", "cursor-secret")])
    assert caught.value.message == ("openai /usage: HTTP 503 after 5 attempts: we are down (request req_42)")
    assert caught.value.retry_after is None
    assert rig.waits == [0.5, 1, 2, 4]
    assert rig.permits.taken == rig.http.calls == 5


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7.5),
        ({"retry-after": "Fri, 20 Nov 2026 08:00:12 GMT"}, 12.5),
        ({"retry-after-ms": "250"}, 0.75),
        ({"anthropic-ratelimit-requests-reset": "2026-11-20T08:00:30Z"}, 30.5),
    ],
)
async def test_the_servers_wait_is_honoured(headers: dict[str, str], wait_s: float) -> None:
    rig = Rig(no(429, headers=headers), OK)
    await rig.http.get("/usage")
    assert rig.waits == [wait_s]


async def test_a_wait_beyond_the_budget_hands_the_unit_back_at_once() -> None:
    rig = Rig(no(429, headers={"retry-after": "50"}))
    with pytest.raises(TransientError) as caught:
        await rig.http.get("/usage")
    assert rig.waits == [50.5, 50.5]
    assert caught.value.retry_after == timedelta(seconds=50)
    far = Rig(no(429, headers={"retry-after": "3600"}))
    with pytest.raises(TransientError) as caught:
        await far.http.get("/usage")
    assert (far.waits, caught.value.retry_after) == ([], timedelta(hours=1))


async def test_a_refused_key_is_not_tried_again_not_even_by_the_next_call() -> None:
    rig = Rig(no(401, f"Incorrect API key provided: {KEY}. Find yours", {"x-request-id": "req_1"}))
    with pytest.raises(CredentialError) as caught:
        await rig.http.get("/usage")
    assert caught.value.message == (
        "openai /usage: HTTP 401: Incorrect API key provided: [redacted]. Find yours (request req_1)"
    )
    with pytest.raises(CredentialError) as again:
        await rig.http.get("/costs")
    assert again.value is not caught.value
    assert rig.http.calls == 1


@pytest.mark.parametrize(
    ("answer", "kind", "status"),
    [
        (no(403), CredentialError, None),
        (no(400), RefusedError, 400),
        (no(402), RefusedError, 402),
        (no(404), RefusedError, 404),
        (no(422), RefusedError, 422),
        (no(429, code="insufficient_quota"), RefusedError, 429),
        (httpx.Response(304), RefusedError, 304),
    ],
)
async def test_what_does_not_pass_is_said_once(
    answer: httpx.Response, kind: type[MantaError], status: int | None
) -> None:
    rig = Rig(answer)
    with pytest.raises(kind) as caught:
        await rig.http.get("/usage")
    assert (rig.http.calls, rig.waits) == (1, [])
    assert getattr(caught.value, "status", None) == status
    assert pickle.loads(pickle.dumps(caught.value)).__dict__ == caught.value.__dict__


async def test_x_should_retry_false_is_handed_back_without_a_wait() -> None:
    rig = Rig(no(500, headers={"x-should-retry": "false"}))
    with pytest.raises(TransientError):
        await rig.http.get("/usage")
    assert rig.http.calls == 1


async def test_redirects_are_refused_and_the_key_stays_home() -> None:
    rig = Rig(httpx.Response(307, headers={"location": "https://evil.test/usage?x=1"}))
    with pytest.raises(ConfigurationError, match=r"redirects to evil\.test"):
        await rig.http.get("/usage")
    assert [request.url.host for request in rig.requests] == ["api.test"]


async def test_a_wrong_shape_names_the_field() -> None:
    class Fine(msgspec.Struct):
        fine: int

    rig = Rig(OK)
    with pytest.raises(DataError) as caught:
        await rig.http.get_json("/usage", (), msgspec.json.Decoder(Fine).decode)
    assert caught.value.message == "openai /usage: Expected `int`, got `bool` - at `$.fine`"
    assert caught.value.field == "$.fine"
    assert rig.http.calls == 1


async def test_a_body_that_unpacks_too_large_is_refused() -> None:
    packed = gzip.compress(b" " * 5_000_000)
    rig = Rig(OK, max_body_bytes=1_000_000)
    rig.client = open_client(
        transport=httpx.MockTransport(
            lambda request: httpx.Response(200, headers={"content-encoding": "gzip"}, content=packed)
        )
    )
    rig.http._client = rig.client
    with pytest.raises(DataError, match="larger than 1000000 bytes"):
        await rig.http.get("/usage")


@pytest.mark.parametrize("key", ["sk-admin-line\nbreak", "sk-admin-ümlaut", "sk-admin-\x00"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(CredentialError) as caught:
        Rig(OK, auth=RequestAuth({"x-api-key": key}))
    assert "x-api-key" in str(caught.value)
    assert "sk-admin" not in str(caught.value)


async def test_a_base_url_that_is_none_is_a_setting_to_mend() -> None:
    rig = Rig(OK, base_url="ftp://api.test")
    rig.client = rig.http._client = open_client()
    with pytest.raises(ConfigurationError, match="cannot be built"):
        await rig.http.get("/usage")


def _leaves(kind: type[Exception]) -> list[type[Exception]]:
    return [leaf for sub in kind.__subclasses__() for leaf in _leaves(sub)] or [kind]


@pytest.mark.parametrize("kind", _leaves(httpx.RequestError), ids=lambda kind: kind.__name__)
async def test_every_httpx_error_is_mapped_and_none_shows_the_key(kind: Callable[[str], Exception]) -> None:
    rig = Rig(kind(f"illegal header value b'Bearer {KEY}'"))
    with pytest.raises(MantaError) as caught:
        await rig.http.get("/usage")
    assert KEY not in str(caught.value)
    assert KEY not in str(rig.log.events)
    assert caught.value.__cause__ is None


async def raw_server(*answers: bytes) -> tuple[asyncio.Server, str, list[bytes]]:
    """Serve raw bytes, one answer a connection, the last one for ever."""
    left, heads = list(answers), []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


async def test_a_connection_cut_in_the_body_is_tried_again() -> None:
    cut = b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"fine"'
    whole = b'HTTP/1.1 200 OK\r\ncontent-length: 13\r\nset-cookie: a=b\r\n\r\n{"fine":true}'
    server, url, heads = await raw_server(cut, b"", whole)
    async with server, open_client() as client:
        rig = Rig(OK, base_url=url)
        rig.http._client = client
        assert await rig.http.get_json("/usage", (), msgspec.json.decode) == {"fine": True}
        await rig.http.get("/usage")
    assert len(rig.waits) == 2
    # Cookies would travel from one tenant's credential to another's.
    assert not any(b"cookie" in head.lower() for head in heads)


async def test_a_server_that_says_nothing_times_out() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, open_client(read_s=0.05) as client:
        rig = Rig(OK, base_url=url, policy=RetryPolicy(max_attempts=2))
        rig.http._client = client
        with pytest.raises(TransientError, match="ReadTimeout after 2 attempts"):
            await rig.http.get("/usage")

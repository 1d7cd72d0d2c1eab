"""Access tokens over real sockets: bought, kept, renewed, refused, and never shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from engine.errors import ConfigurationError, CredentialError, TransientError
from engine.http import open_client
from engine.providers import Provider
from engine.settings import Settings
from processors.generic.api_extractor import get_engine
from sandbox.gcp_keys import TOKEN_URI, service_account_key
from sandbox.rest import CLIENT
from sandbox.server import Sandbox
from tests.wire.scripted import Asked, Reading, Said, serving
from tests.wire.test_generic_api import config

KEY = service_account_key("acme")
CLIENT_SECRET = json.dumps({"client_id": CLIENT[0], "client_secret": CLIENT[1]})
ACCOUNTS: dict[str, Any] = {
    "table": "accounts",
    "request": {"path": "/v1/billingAccounts"},
    "response": {
        "items": "/billingAccounts",
        "columns": [{"name": "name", "path": "name", "type": "STRING"}],
        "unknown_fields": "ignore",
    },
    "day": {"column": "snapshot_date", "source": "snapshot"},
}


def google(**auth: Any) -> Provider:
    return Provider.model_validate(
        {
            "name": "gcp",
            "display_name": "Google Cloud",
            "setting": "gcp_billing_base_url",
            "official_hosts": ["cloudbilling.googleapis.com"],
            "day_timezone": "UTC",
            "auth": {"kind": "google_service_account", "scopes": ["https://scope.example/read"], **auth},
        }
    )


def client_credentials(token_url: str = "/oauth/token", **auth: Any) -> Provider:
    return Provider.model_validate(
        {
            "name": "example",
            "display_name": "Example",
            "base_url": "https://api.example.com",
            "official_hosts": ["api.example.com"],
            "day_timezone": "UTC",
            "auth": {"kind": "oauth2_client_credentials", "token_url": token_url, **auth},
        }
    )


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    def made(**given: Any) -> Settings:
        return Settings(root=tmp_path, home=tmp_path, **given)

    return made


@pytest.fixture
def reading() -> Reading:
    return Reading()


def tokens_asked(sandbox: Sandbox) -> int:
    return len(sandbox.state.seen.all(provider="gcp", path="/token"))


async def test_a_service_account_buys_one_token_for_many_requests(
    sandbox: Sandbox, reading: Reading, settings: Callable[..., Settings]
) -> None:
    auth = reading.opening(google(), KEY, settings(gcp_oauth_base_url=sandbox.gcp_url))
    result = await reading.run(get_engine(), ACCOUNTS, sandbox.gcp_url, auths={"c": auth})
    assert result["metrics"]["rows"] == 3
    async with open_client() as client:
        http = reading.http(client, sandbox.gcp_url, auth(client))
        await asyncio.gather(*(http.get("/v1/services") for _ in range(20)))
    assert tokens_asked(sandbox) == 2
    shown = "".join(reading.lines)
    assert all(token not in shown for token in sandbox.state.tokens)


async def test_a_token_is_renewed_five_minutes_before_its_end(
    sandbox: Sandbox, reading: Reading, settings: Callable[..., Settings]
) -> None:
    clock = [datetime.now(UTC)]
    auth = reading.opening(google(), KEY, settings(gcp_oauth_base_url=sandbox.gcp_url), now=lambda: clock[0])
    async with open_client() as client:
        http = reading.http(client, sandbox.gcp_url, auth(client))
        for passed, bought in ((0, 1), (3290, 1), (3300, 2)):
            clock[0] = datetime.now(UTC) + timedelta(seconds=passed)
            sandbox.state.faults.clear()
            if passed < 3300:
                await http.get("/v1/services")
            else:
                # The sandbox knows the real time, and takes nothing signed in the future.
                with pytest.raises(CredentialError, match="short-lived"):
                    await http.get("/v1/services")
            assert tokens_asked(sandbox) == bought


async def test_a_refused_token_is_renewed_once(
    sandbox: Sandbox, reading: Reading, settings: Callable[..., Settings]
) -> None:
    auth = reading.opening(google(), KEY, settings(gcp_oauth_base_url=sandbox.gcp_url))
    async with open_client() as client:
        http = reading.http(client, sandbox.gcp_url, auth(client))
        await http.get("/v1/services")
        sandbox.state.tokens.clear()
        await asyncio.gather(*(http.get("/v1/services") for _ in range(8)))
        assert tokens_asked(sandbox) == 2
        assert reading.waits == []


async def test_a_second_401_is_the_credentials_fault_and_ends_it(
    reading: Reading, settings: Callable[..., Settings]
) -> None:
    def answer(asked: Asked) -> Said:
        if asked.path == "/token":
            return Said({"access_token": "a-token-that-is-no-use", "expires_in": "3599"})
        return Said({"error": {"code": 401, "message": "who?", "status": "UNAUTHENTICATED"}}, 401)

    with serving(answer) as server:
        auth = reading.opening(google(), KEY, settings(gcp_oauth_base_url=server.url))
        error = await reading.fails(get_engine(), ACCOUNTS, server.url, auths={"c": auth})
        assert isinstance(error, CredentialError)
        assert "HTTP 401: who?" in error.message
        assert [asked.path for asked in server.asked] == ["/token", "/v1/billingAccounts"] * 2


async def test_what_is_signed_is_what_google_wants(
    reading: Reading, settings: Callable[..., Settings]
) -> None:
    def answer(asked: Asked) -> Said:
        return Said({"access_token": "t", "expires_in": 3599} if asked.path == "/token" else {})

    with serving(answer) as server:
        auth = reading.opening(google(), KEY, settings(gcp_oauth_base_url=server.url))
        asked_for = ACCOUNTS | {"response": ACCOUNTS["response"] | {"missing_items": "empty"}}
        await reading.run(get_engine(), asked_for, server.url, auths={"c": auth})
        form = dict(parse_qsl(server.asked[0].body.decode()))
        assert server.asked[0].method == "POST"
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        from google.auth import jwt

        claims: Any = jwt.decode(form["assertion"], verify=False)
        assert (claims["iss"], claims["aud"]) == ("acme@sandbox.iam.gserviceaccount.com", TOKEN_URI)
        assert claims["scope"] == "https://scope.example/read"
        assert claims["exp"] - claims["iat"] == 3600
        assert server.asked[1].headers["Authorization"] == "Bearer t"


async def test_invalid_grant_is_not_asked_again(
    sandbox: Sandbox, reading: Reading, settings: Callable[..., Settings]
) -> None:
    sandbox.state.revoked.add("acme@sandbox.iam.gserviceaccount.com")
    auth = reading.opening(google(), KEY, settings(gcp_oauth_base_url=sandbox.gcp_url))
    async with open_client() as client:
        http = reading.http(client, sandbox.gcp_url, auth(client))
        answers = await asyncio.gather(*(http.get("/v1/services") for _ in range(5)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {CredentialError}
    assert "acme@sandbox.iam.gserviceaccount.com: the token endpoint answered invalid_grant" in str(
        answers[0]
    )
    assert tokens_asked(sandbox) == 1


@pytest.mark.parametrize("fault", ["server_error", "html", "cut", "truncated_json"])
async def test_a_token_endpoint_that_is_down_passes(
    sandbox: Sandbox, reading: Reading, settings: Callable[..., Settings], fault: str
) -> None:
    auth = reading.opening(google(), KEY, settings(gcp_oauth_base_url=sandbox.gcp_url))
    sandbox.state.faults.put(fault, provider="gcp", path="/token", count=2)
    result = await reading.run(get_engine(), ACCOUNTS, sandbox.gcp_url, auths={"c": auth})
    assert result["metrics"]["rows"] == 3
    sandbox.state.faults.put(fault, provider="gcp", path="/token", count=5)
    error = await reading.fails(get_engine(), ACCOUNTS, sandbox.gcp_url, auths={"c": auth})
    assert isinstance(error, TransientError)
    assert "gcp token endpoint" in error.message
    assert "acme@sandbox.iam.gserviceaccount.com" in error.message


async def test_a_token_endpoint_that_is_none_is_the_settings_fault(
    reading: Reading, settings: Callable[..., Settings]
) -> None:
    with serving(lambda _: Said({"message": "nothing here"}, 404)) as server:
        auth = reading.opening(google(), KEY, settings(gcp_oauth_base_url=server.url))
        error = await reading.fails(get_engine(), ACCOUNTS, server.url, auths={"c": auth})
    assert isinstance(error, ConfigurationError)
    assert f"{server.url}/token" in error.fix


async def test_client_credentials_in_header_and_body(
    sandbox: Sandbox, reading: Reading, settings: Callable[..., Settings]
) -> None:
    moved = settings(provider_base_urls={"example": sandbox.rest_url})
    auth = reading.opening(client_credentials(), CLIENT_SECRET, moved)
    result = await reading.run(get_engine(), config("/auth/oauth"), sandbox.rest_url, auths={"c": auth})
    assert result["metrics"]["rows"] == 3
    wrong = reading.opening(client_credentials(), CLIENT_SECRET.replace(CLIENT[1], "a-guess"), moved)
    error = await reading.fails(get_engine(), config("/auth/oauth"), sandbox.rest_url, auths={"c": wrong})
    assert isinstance(error, CredentialError)
    assert "rest-client: the token endpoint answered invalid_client" in error.message
    assert "a-guess" not in str(error)

    def answer(asked: Asked) -> Said:
        return Said({"access_token": "t"} if asked.path == "/elsewhere/token" else {"items": []})

    with serving(answer) as server:
        provider = client_credentials(
            "https://login.example.com/elsewhere/token",
            client_auth="body",
            scopes=["read", "more"],
            token_params={"audience": "us"},
        )
        addresses = {"example.token": f"{server.url}/elsewhere/token"}
        auth = reading.opening(provider, CLIENT_SECRET, settings(provider_base_urls=addresses))
        await reading.run(get_engine(), config(), server.url, auths={"c": auth})
        assert dict(parse_qsl(server.asked[0].body.decode())) == {
            "grant_type": "client_credentials",
            "audience": "us",
            "scope": "read more",
            "client_id": CLIENT[0],
            "client_secret": CLIENT[1],
        }
        assert server.asked[1].headers["Authorization"] == "Bearer t"

"""A customer's key says who asks and never where: addresses are the settings'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.clients import connect_source
from engine.errors import CredentialError
from engine.settings import Settings
from tests.integration.gcp_front import EMAIL, key_json


def settings(**more: Any) -> Settings:
    return Settings(root=Path("/nowhere"), home=Path("/nowhere"), **more)


@pytest.mark.parametrize(
    "token_uri",
    [
        "https://oauth2.googleapis.com/token",
        "https://accounts.google.com/o/oauth2/token",
        "https://www.googleapis.com/oauth2/v4/token",
    ],
)
def test_googles_own_token_endpoints_lead_to_the_one_of_the_settings(token_uri: str) -> None:
    made = connect_source(key_json(token_uri=token_uri), settings())
    assert (made.project, made.email, made.notes) == ("acme-billing", EMAIL, {})
    assert _account(made)._token_uri == "https://oauth2.googleapis.com/token"
    here = connect_source(key_json(token_uri=token_uri), settings(gcp_oauth_base_url="http://127.0.0.1:7777"))
    assert _account(here)._token_uri == "http://127.0.0.1:7777/token"


def _account(made: Any) -> Any:
    return made.bigquery._credentials._account


@pytest.mark.parametrize(
    "token_uri",
    [
        "https://evil.example/token",
        "http://169.254.169.254/token",
        "https://oauth2.googleapis.com.evil.example/token",
        "https://oauth2.googleapis.com@evil.example/token",
        "http://127.0.0.1:9/token",
        "oauth2.googleapis.com/token",
    ],
)
def test_another_token_endpoint_is_refused(token_uri: str) -> None:
    with pytest.raises(CredentialError) as caught:
        connect_source(key_json(token_uri=token_uri), settings())
    assert caught.value.field == "token_uri"


def test_what_else_the_key_names_is_no_address() -> None:
    given = key_json(
        universe_domain="evil.example",
        api_endpoint="https://evil.example",
        auth_uri="https://evil.example",
        manta={"billing_dataset": "p.d"},
    )
    with pytest.raises(CredentialError, match="universe_domain"):
        connect_source(given, settings())
    plain = key_json(api_endpoint="https://evil.example", auth_uri="https://evil.example", manta={"a": 1})
    made = connect_source(plain, settings())
    assert made.bigquery._connection.API_BASE_URL == "https://bigquery.googleapis.com"
    assert made.notes == {"a": 1}


def _without(name: str) -> str:
    return json.dumps({k: v for k, v in json.loads(key_json()).items() if k != name})


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("", "no service account"),
        ("sk-admin-1234", "no service account"),
        ('["type"]', "no service account"),
        (key_json(type="authorized_user"), "no service account"),
        (_without("private_key"), "lacks private_key"),
        (_without("client_email"), "lacks client_email"),
        (key_json(project_id=7), "lacks project_id"),
        (key_json(private_key="-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), EMAIL),
    ],
)
def test_what_is_no_key_is_said_and_never_shown(secret: str, said: str) -> None:
    with pytest.raises(CredentialError, match=said) as caught:
        connect_source(secret, settings())
    for part in (secret, "BEGIN PRIVATE KEY", "AAAA"):
        assert not part or part not in str(caught.value)


def test_a_region_lookup_of_the_library_is_never_started() -> None:
    """google-auth's own service accounts show their token to iamcredentials.googleapis.com."""
    made = connect_source(key_json(), settings())
    assert not hasattr(made.bigquery._credentials, "_lookup_regional_access_boundary")

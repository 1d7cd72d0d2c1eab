"""What is taken for a service account's key, and that nothing quotes one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.errors import ConfigurationError, CredentialError
from engine.google_keys import service_account
from engine.providers import Provider
from sandbox.gcp_keys import service_account_key

GOOGLE = "https://oauth2.googleapis.com"
GOOD: dict[str, Any] = json.loads(service_account_key("acme"))


def test_a_key_is_exchanged_where_the_environment_says_whatever_it_names() -> None:
    account = service_account(json.dumps(GOOD), oauth_base_url="http://127.0.0.1:9")
    assert (account.email, account.project) == (GOOD["client_email"], "acme-sandbox")
    assert account.token_url == account.info["token_uri"] == "http://127.0.0.1:9/token"
    assert account.audience == f"{GOOGLE}/token"
    assert GOOD["private_key"] not in repr(account)


@pytest.mark.parametrize(
    "token_uri",
    [
        "https://evil.example/token",
        "http://oauth2.googleapis.com/token",
        "https://oauth2.googleapis.com.evil.example/token",
        "https://oauth2.googleapis.com@evil.example/token",
        "http://169.254.169.254/token",
        "https://[::1",
        "file:///etc/passwd",
    ],
)
def test_a_key_that_names_another_token_endpoint_is_refused(token_uri: str) -> None:
    with pytest.raises(CredentialError, match="which is not Google's"):
        service_account(json.dumps({**GOOD, "token_uri": token_uri}), oauth_base_url=GOOGLE)


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("", "no JSON object"),
        ("sk-admin-something", "no JSON object"),
        ('["a"]', "no JSON object"),
        ("{}", "lacks type, project_id, private_key_id, private_key, client_email, token_uri"),
        (json.dumps({**GOOD, "client_email": 7}), "lacks client_email"),
        (json.dumps({**GOOD, "type": "authorized_user"}), "a key of type 'authorized_user'"),
        (json.dumps({**GOOD, "private_key": "-----BEGIN nothing"}), "private_key cannot be read"),
    ],
)
def test_other_secrets_are_refused_unseen(secret: str, said: str) -> None:
    with pytest.raises(CredentialError, match=said) as refused:
        service_account(secret, oauth_base_url=GOOGLE)
    assert refused.value.__cause__ is None
    assert "BEGIN" not in str(refused.value)


def provider(kind: str, **auth: Any) -> Provider:
    return Provider.model_validate(
        {
            "name": "p",
            "display_name": "P",
            "base_url": "https://p.example",
            "official_hosts": ["p.example"],
            "day_timezone": "UTC",
            "auth": {"kind": kind, **auth},
        }
    )


@pytest.mark.parametrize(
    ("known", "good", "bad"),
    [
        (provider("google_service_account"), json.dumps(GOOD, indent=2), '{"type": "service_account"}'),
        (
            provider("oauth2_client_credentials", token_url="/token"),
            '{"client_id": "a", "client_secret": "b"}',
            '{"client_id": "a"}',
        ),
        (provider("basic"), "user:password", "password"),
    ],
)
def test_a_secret_is_looked_at_before_it_is_stored(known: Provider, good: str, bad: str) -> None:
    known.check_key(good, base_url="https://p.example")
    with pytest.raises(ConfigurationError):
        known.check_key(bad, base_url="https://p.example")


def test_a_provider_without_credentials_takes_none() -> None:
    with pytest.raises(ConfigurationError, match="asks for no credential"):
        provider("none").check_key("anything", base_url="https://p.example")

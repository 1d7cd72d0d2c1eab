"""Which keys a provider takes, and how they are sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.catalog import read_catalog
from engine.errors import ConfigurationError
from engine.providers import Provider
from engine.request_auth import request_auth
from engine.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[3]
OFFICIAL = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}


@pytest.fixture(scope="module")
def providers() -> dict[str, Provider]:
    return dict(read_catalog(CHECKOUT).catalog.providers)


def test_headers_as_the_vendors_want_them(providers: dict[str, Provider]) -> None:
    assert request_auth(providers["openai"], "k").headers == {"Authorization": "Bearer k"}
    assert request_auth(providers["anthropic"], "k").headers == {
        "x-api-key": "k",
        "anthropic-version": "2023-06-01",
    }


def test_base_urls_default_to_the_real_hosts(providers: dict[str, Provider], tmp_path: Path) -> None:
    settings = Settings.load({"MANTA_HOME": str(tmp_path)}, root=tmp_path)
    assert {
        name: found.address(settings) for name, found in providers.items() if name in OFFICIAL
    } == OFFICIAL


@pytest.mark.parametrize(
    ("name", "key"),
    [("openai", "sk-admin-abc"), ("anthropic", "sk-ant-admin01-abc"), ("anthropic", "sk-ant-admin-a")],
)
def test_admin_keys_are_taken(providers: dict[str, Provider], name: str, key: str) -> None:
    providers[name].check_key(key, base_url=OFFICIAL[name])


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("openai", "sk-proj-abcdef", "is an ordinary key"),
        ("openai", "sk-abcdef", "is an ordinary key"),
        ("openai", "something", "is no admin key"),
        ("openai", "sk-ant-admin01-abc", "is an ordinary key"),
        ("anthropic", "sk-ant-api03-abc", "is an ordinary key"),
        ("anthropic", "sk-admin-abc", "is no admin key"),
    ],
)
def test_other_keys_are_refused_unseen(
    providers: dict[str, Provider], name: str, key: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        providers[name].check_key(key, base_url=OFFICIAL[name])
    assert key not in str(refused.value)
    assert providers[name].key.where in refused.value.fix
    # A sandbox or gateway has keys of its own.
    providers[name].check_key(key, base_url="http://127.0.0.1:9700/v1")


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "sk-admin-ü", "tab\t"])
def test_unsendable_keys_are_refused_everywhere(providers: dict[str, Provider], key: str) -> None:
    with pytest.raises(ConfigurationError, match="is empty or holds spaces"):
        providers["openai"].check_key(key, base_url="http://127.0.0.1:9700/v1")

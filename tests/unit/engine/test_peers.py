"""Which addresses requests may go to."""

from __future__ import annotations

import httpx
import pytest

from engine.errors import ConfigurationError
from engine.peers import Origins, is_public


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("142.250.1.1", True), ("2607:f8b0:4005::1", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False), ("100.64.0.1", False),
        ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False),
        ("::ffff:10.0.0.1", False), ("::ffff:142.250.1.1", True), ("2002:7f00:1::", False),
    ],
)  # fmt: skip
def test_what_is_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("addresses", "url", "allowed"),
    [
        (["https://api.example/v1"], "https://api.example/other", True),
        (["https://api.example/v1"], "https://api.example:443/", True),
        (["https://api.example/v1"], "https://more.example/", True),
        (["https://api.example/v1"], "http://api.example/", False),
        (["https://api.example/v1"], "https://api.example:8443/", False),
        (["https://api.example/v1"], "https://api.example.evil/", False),
        (["https://api.example/v1"], "https://user@api.example/", False),
        (["http://127.0.0.1:9"], "http://127.0.0.1:9/x", True),
        # What the environment points elsewhere asks the real hosts for nothing.
        (["http://127.0.0.1:9"], "https://api.example/", False),
        (["https://a.example", "https://b.example"], "https://b.example/", True),
    ],
)
def test_where_requests_may_go(addresses: list[str], url: str, allowed: bool) -> None:
    origins = Origins(addresses, ["api.example", "more.example"])
    if allowed:
        origins.check(httpx.URL(url), provider="p")
        return
    with pytest.raises(ConfigurationError, match="p: nothing is sent to http"):
        origins.check(httpx.URL(url), provider="p")


def test_only_official_hosts_are_looked_at() -> None:
    origins = Origins(["https://api.example"], ["api.example"])
    assert "trace" in origins.extensions(httpx.URL("https://api.example/"))
    assert origins.extensions(httpx.URL("http://127.0.0.1/")) == {}

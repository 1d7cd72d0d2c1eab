"""Plaintext and anonymous access stay on this machine; unreadable credentials are said, not shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.clients import connect
from engine.errors import ConfigurationError

LOCAL: dict[str, Any] = {
    "project": "local",
    "rest_host": "http://127.0.0.1:9650",
    "grpc_host": "127.0.0.1:9660",
    "credentials": "anonymous",
    "transport": "plaintext",
}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.8.9.1"])
def test_loopback_may_be_plaintext_and_anonymous(host: str) -> None:
    made = connect(**{**LOCAL, "rest_host": f"http://{host}:9650", "grpc_host": f"{host}:9660"})

    assert made.bigquery.project == "local"


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"rest_host": "http://10.0.0.8:9650"}, "BIGQUERY_EMULATOR_HOST"),
        ({"rest_host": "http://127.0.0.1.example.com:9650"}, "BIGQUERY_EMULATOR_HOST"),
        ({"rest_host": None}, "googleapis.com"),
        ({"grpc_host": "example.com:9660"}, "BIGQUERY_STORAGE_EMULATOR_HOST"),
        ({"grpc_host": None}, "googleapis.com"),
        ({"rest_host": "http://example.com", "transport": "tls", "credentials": "file"}, "plaintext"),
        ({"rest_host": "https://example.com", "transport": "tls"}, "anonymous"),
    ],
)
def test_elsewhere_it_is_refused(changed: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigurationError, match=names) as caught:
        connect(**{**LOCAL, **changed})
    assert caught.value.fix


def test_a_credentials_file_is_named_but_not_quoted(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_text('{"private_key": "do-not-show"', encoding="utf-8")

    with pytest.raises(ConfigurationError, match=r"key\.json") as caught:
        connect(project="p", credentials="file", credentials_file=file)
    assert "do-not-show" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="none is named"):
        connect(project="p", credentials="file")

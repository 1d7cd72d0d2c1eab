"""One running sandbox a module, its clock standing well after the days that are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from sandbox.server import Sandbox, running
from sandbox.state import admin_key

NOW = datetime(2026, 11, 20, tzinfo=UTC)


class Client:
    """Asks one provider as one organisation, and walks its pages."""

    def __init__(self, http: httpx.Client, base: str, headers: dict[str, str]) -> None:
        self.http, self.base, self.headers = http, base, headers

    def get(self, path: str, params: Any = (), **headers: str) -> httpx.Response:
        pairs = list(params.items()) if isinstance(params, dict) else list(params)
        sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.get(self.base + path, params=pairs, headers=sent)

    def pages(self, path: str, params: Any, **headers: str) -> list[dict[str, Any]]:
        """Give every page of a walk; a walk longer than 500 pages is a fault of the sandbox."""
        pairs = list(params.items()) if isinstance(params, dict) else list(params)
        pages: list[dict[str, Any]] = []
        cursor: list[tuple[str, str]] = []
        while len(pages) < 500:
            answer = self.get(path, [*pairs, *cursor], **headers)
            assert answer.status_code == 200, answer.text
            pages.append(answer.json())
            if not pages[-1]["has_more"]:
                assert pages[-1]["next_page"] is None
                return pages
            cursor = [("page", pages[-1]["next_page"])]
        raise AssertionError("the walk does not end")

    def buckets(self, path: str, params: Any, **headers: str) -> list[dict[str, Any]]:
        return [bucket for page in self.pages(path, params, **headers) for bucket in page["data"]]

    def rows(self, path: str, params: Any, **headers: str) -> list[dict[str, Any]]:
        return [row for bucket in self.buckets(path, params, **headers) for row in bucket["results"]]


@pytest.fixture(scope="module")
def running_sandbox() -> Iterator[Sandbox]:
    with running(now=NOW) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running_sandbox: Sandbox) -> Sandbox:
    running_sandbox.state.reset()
    running_sandbox.state.set_clock(NOW)
    return running_sandbox


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=5, follow_redirects=False) as client:
        yield client


@pytest.fixture
def openai(sandbox: Sandbox, http: httpx.Client) -> Client:
    key = {"authorization": f"Bearer {admin_key('openai', 'acme')}"}
    return Client(http, sandbox.openai_url + "/organization", key)


@pytest.fixture
def anthropic(sandbox: Sandbox, http: httpx.Client) -> Client:
    key = {"x-api-key": admin_key("anthropic", "acme"), "anthropic-version": "2023-06-01"}
    return Client(http, sandbox.anthropic_url + "/v1/organizations", key)

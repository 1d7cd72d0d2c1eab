"""A caller of the API of a running stack: plain HTTP, with the keys its operator would hand out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from engine.api_keys import ApiKeys
from engine.root_keys import read_root_keys
from tests.acceptance.conftest import Stack

ENDED = ("SUCCESS", "PARTIAL", "FAILED", "CANCELLED")


@dataclass(frozen=True)
class Api:
    """The API of a stack."""

    stack: Stack
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60, trust_env=False))

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(self.stack.workplace().settings.manta_api_url)

    @property
    def root(self) -> dict[str, str]:
        """The operator's header."""
        return {"X-CA-Root-Key": read_root_keys(self.stack.workplace().settings)[0]}

    def key(self, org: str, *scopes: Any) -> str:
        """A new key of an organisation."""
        work = self.stack.workplace()
        keys = ApiKeys(work.central, work.vault, now=lambda: datetime.now(UTC))
        return keys.add(org, name="test", scopes=scopes or ("run", "read"))[1]

    def call(self, method: str, path: str, *, key: str | None = None, **arguments: Any) -> httpx.Response:
        """One request; without `key` as the operator."""
        headers = {"X-API-Key": key} if key else self.root
        return self.http.request(
            method, self.url + path, headers={**headers, **arguments.pop("headers", {})}, **arguments
        )

    def run(self, org: str, pipeline: str, body: Any = None, **arguments: Any) -> httpx.Response:
        """Ask for a run."""
        return self.call("POST", f"/api/v1/pipelines/run/{org}/{pipeline}", json=body or {}, **arguments)

    def ended(self, run_id: str, *, seconds: float = 120) -> dict[str, Any]:
        """The run at its end."""

        def look() -> dict[str, Any] | None:
            try:
                answer = self.call("GET", f"/api/v1/pipelines/runs/{run_id}?detail=false")
            except httpx.HTTPError:
                return None
            found = answer.json() if answer.status_code == 200 else {}
            return found if found.get("status") in ENDED and found["end_time"] else None

        return until(f"the end of {run_id}", look, seconds=seconds)


def until[T](what: str, look: Callable[[], T | None], *, seconds: float = 90) -> T:
    """Ask again and again until there is an answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} did not come within {seconds} s")

"""A running sandbox and the processors' real way to it: httpx over loopback, retries without the waiting."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from engine.http import Http, open_client
from engine.limits import LocalPermits, Pace
from engine.log import JsonLog
from engine.request_auth import RequestAuth
from engine.retry import RetryPolicy
from processors.anthropic import usage as anthropic_usage
from processors.openai import usage as openai_usage
from sandbox.server import Sandbox, running
from sandbox.state import admin_key

#: Long after every late row and correction of the days that tests read.
NOW = datetime(2026, 11, 20, tzinfo=UTC)
MODULES = {"openai": openai_usage, "anthropic": anthropic_usage}


@pytest.fixture(scope="session")
def _sandbox() -> Iterator[Sandbox]:
    with running(now=NOW) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_sandbox: Sandbox) -> Sandbox:
    """The sandbox as new: no faults, no memory, its clock at NOW."""
    _sandbox.state.reset()
    _sandbox.state.set_clock(NOW)
    return _sandbox


@dataclass
class Read:
    """One execution of a usage processor: what came back, what it waited, what it logged."""

    sandbox: Sandbox
    waits: list[float] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    calls: int = 0

    def __call__(
        self,
        provider: str,
        days: Sequence[date],
        *,
        orgs: Sequence[str] = ("acme",),
        read_s: float = 5,
        **config: Any,
    ) -> pa.Table:
        """Read `days` with one credential per organisation."""
        return asyncio.run(self._read(provider, days, orgs=orgs, read_s=read_s, config=config))

    async def _read(
        self,
        provider: str,
        days: Sequence[date],
        *,
        orgs: Sequence[str],
        read_s: float,
        config: dict[str, Any],
    ) -> pa.Table:
        module = MODULES[provider]
        log = JsonLog(self.lines.append, now=lambda: NOW)
        async with open_client(read_s=read_s) as client:
            https = {f"cred_{org}": self._http(client, provider, admin_key(provider, org)) for org in orgs}  # type: ignore[arg-type]
            context = {"org_slug": "tenant", "dates": tuple(days), "http": https, "log": log}
            try:
                result = await module.get_engine().execute(config, context)
            finally:
                self.calls = sum(http.calls for http in https.values())
        assert result["status"] == "SUCCESS"
        table: pa.Table = result["tables"][module.TABLE]
        return table

    def _http(self, client: Any, provider: str, key: str) -> Http:
        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)

        clock = Skipping()
        openai = provider == "openai"
        return Http(
            client,
            provider=provider,
            base_url=self.sandbox.openai_url if openai else self.sandbox.anthropic_url,
            auth=RequestAuth(
                {"authorization": f"Bearer {key}"}
                if openai
                else {"x-api-key": key, "anthropic-version": "2023-06-01"}
            ),
            permits=LocalPermits(
                Pace(1e9, 1000), clock=clock, now=lambda: datetime.now(UTC), sleep=clock.sleep
            ),
            policy=RetryPolicy(base_s=0.001),
            rand=random.Random(7).random,
            sleep=sleep,
            now=lambda: datetime.now(UTC),
            log=JsonLog(self.lines.append, now=lambda: NOW),
        )


class Skipping:
    """A monotonic clock that sleepers push forward instead of waiting."""

    def __init__(self) -> None:
        self.skipped_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped_s

    async def sleep(self, seconds: float) -> None:
        self.skipped_s += seconds
        await asyncio.sleep(0)


@pytest.fixture
def read(sandbox: Sandbox) -> Read:
    """Reads usage from the sandbox."""
    return Read(sandbox)


@pytest.fixture
def reader(sandbox: Sandbox) -> Callable[[], Read]:
    """Makes further readers of the same sandbox."""
    return lambda: Read(sandbox)

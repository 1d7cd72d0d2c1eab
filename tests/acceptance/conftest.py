"""One local stack for all tests here: embedded BigQuery, Ray and the sandbox, driven through `manta`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.settings import Settings
from engine.workplace import Workplace, open_workplace
from sandbox.server import running
from sandbox.state import admin_key

ROOT = Path(__file__).resolve().parents[2]
MANTA = [str(Path(sys.executable).parent / "manta")]
STARTED = datetime.now(UTC)
OPENAI, ANTHROPIC = "openai/cost/usage_cost", "anthropic/usage_cost"


@dataclass(frozen=True)
class Answer:
    """What one call of `manta` said."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines of standard output."""
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]


@dataclass(frozen=True)
class Stack:
    """A running local stack with a home of its own."""

    home: Path
    environ: Mapping[str, str]
    sandbox: Any

    def manta(self, *arguments: str, stdin: str = "", timeout_s: float = 150, **environ: str) -> Answer:
        """Call `manta` as a process of its own."""
        done = subprocess.run(
            [*MANTA, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**self.environ, **environ},
            cwd=self.home,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def workplace(self) -> Workplace:
        """The same installation, opened in this process."""
        return open_workplace(Settings.load(self.environ))

    def org(self, slug: str, *, providers: tuple[str, ...] = ("openai", "anthropic")) -> str:
        """Add an organisation with the sandbox's keys."""
        work = self.workplace()
        work.tenants.add(slug, name=slug.title(), admin_email=f"finops@{slug.replace('_', '-')}.example")
        for provider in providers:
            work.tenants.add_credential(slug, provider, admin_key(provider, slug))
        return slug


def closed_days(count: int) -> tuple[str, str]:
    """First and last of the `count` days that closed last, in UTC."""
    last = datetime.now(UTC).date() - timedelta(days=1)
    return (last - timedelta(days=count - 1)).isoformat(), last.isoformat()


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("manta")
    inherited = {
        k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE")
    }
    with running(seed=7) as sandbox:
        environ = {
            **inherited,
            "MANTA_ENV": "local",
            "MANTA_ROOT": str(ROOT),
            "MANTA_HOME": str(home),
            "OPENAI_BASE_URL": sandbox.openai_url,
            "ANTHROPIC_BASE_URL": sandbox.anthropic_url,
            "DEFAULT_ADMIN_EMAIL": "admin@example.com",
        }
        made = Stack(home, environ, sandbox)
        try:
            up = made.manta("up", "--cpus", "2", "--ports", "free")
            assert up.code == 0, up.err + up.out
            yield made
        finally:
            made.manta("down")


@pytest.fixture(autouse=True)
def healthy_sandbox(request: pytest.FixtureRequest) -> Iterator[None]:
    """No fault, revocation or style reaches the next test; the clock stands, so late data stays late."""
    state = request.getfixturevalue("stack").sandbox.state if "stack" in request.fixturenames else None
    if state is not None:
        state.set_clock(STARTED)
    yield
    if state is not None:
        state.reset()

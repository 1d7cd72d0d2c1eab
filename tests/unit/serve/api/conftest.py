"""The API on a real socket, over actors in memory."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.audit import Audit
from engine.audit_log import AuditLog, Row
from engine.authentication import Authenticator, hash_root_key
from engine.log import JsonLog
from engine.settings import Settings
from serve.deps import Doors
from tests.unit.serve.api.doubles import NOW, ROOT_KEY, Actors, Work
from tests.unit.serve.api.serving import served
from tests.unit.serve.doubles import ROOT, FakeHistory

RUN = "/api/v1/pipelines/run/acme_corp/openai/cost/usage_cost"
RUNS = "/api/v1/pipelines/runs"


@dataclass
class Api:
    """A running API and everything behind it."""

    actors: Actors
    history: FakeHistory
    doors: Doors
    client: httpx.Client
    port: int
    lines: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    answered: int = 0

    def key(self, *scopes: str, org: str = "acme_corp") -> dict[str, str]:
        """A new key of the organisation, as headers; the replica knows it."""
        made = {"X-API-Key": self.actors.add_key(org, *scopes)}
        self.actors.publish()
        self.settle()
        return made

    def settle(self) -> None:
        """Wait until the replica has the coordinator's directory."""
        wanted = self.actors._made().version
        until = time.monotonic() + 10
        while self.doors.directory.current().version != wanted:
            assert time.monotonic() < until, "the replica never got the directory"
            time.sleep(0.005)

    def logged(self) -> list[dict[str, Any]]:
        """Log lines of all requests so far; a line is written just after its answer."""
        until = time.monotonic() + 10
        while sum('"event":"request"' in line for line in self.lines) < self.answered:
            assert time.monotonic() < until, "a request has no log line"
            time.sleep(0.005)
        return [found for line in self.lines if (found := json.loads(line))["event"] == "request"]

    def audits(self) -> list[Row]:
        """What was written to the audit table."""
        self.logged()
        self.doors.audit.flush()
        return self.rows


ROOT_HEADERS = {"X-CA-Root-Key": ROOT_KEY}


@pytest.fixture
def settings_changes() -> dict[str, Any]:
    """Settings that a test wants otherwise; override by parametrizing the fixture."""
    return {}


@pytest.fixture
def api(tmp_path: Path, settings_changes: dict[str, Any]) -> Iterator[Api]:
    """Two organisations, acme_corp and globex; requests go over a socket."""
    history = FakeHistory()
    work = Work(ROOT, tmp_path, history)
    actors = Actors(work.vault, work)
    actors.add_org("acme_corp")
    actors.add_org("globex")
    actors.publish()
    lines: list[str] = []
    rows: list[Row] = []
    doors = Doors(
        settings=Settings(root=ROOT, home=tmp_path, **settings_changes),
        cluster=actors,
        work=work,
        authenticator=Authenticator(work.vault, [hash_root_key(ROOT_KEY)], now=lambda: NOW),
        audit=AuditLog(rows.extend, now=lambda: NOW),
        log=JsonLog(lines.append, now=lambda: NOW),
        now=lambda: NOW,
        version="test",
    )
    with served(doors) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        found = Api(actors, history, doors, client, port, lines, rows)

        def count(_: httpx.Response) -> None:
            found.answered += 1

        client.event_hooks["response"].append(count)
        found.settle()
        yield found


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of an answer, checked for what every one has."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert found["code"] == code, found
    assert found["type"] == f"/docs#{code}"
    assert found["title"]
    assert found["detail"]
    assert found["request_id"] == answer.headers["x-request-id"]
    return found


def noted(api: Api) -> list[tuple[object, object, object]]:
    """(organisation, action, status) of every audit entry."""
    return [(row["org_slug"], row["action"], row["status"]) for row in api.audits()]


__all__ = ["ROOT_HEADERS", "RUN", "RUNS", "Api", "Audit", "noted", "problem"]

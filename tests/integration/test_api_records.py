"""The API over the records: organisations, keys, credentials, quotas, audit, runs, costs, plans."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from engine.audit_log import REQUESTS, AuditLog
from engine.authentication import Authenticator, hash_root_key
from engine.central import Central
from engine.clients import Clients
from engine.directory import Directory, read_directory
from engine.log import JsonLog
from engine.plans import Limits
from engine.runs import Origin, Run
from engine.schemas import Schema
from engine.settings import Settings
from engine.types import RunRequest
from engine.warehouse import Warehouse
from engine.workplace import Workplace
from serve import cost_rows
from serve.cli.output import jsonable
from serve.deps import Doors
from tests.integration.bigquery_server import BigQueryServer
from tests.integration.conftest import ROOT
from tests.integration.test_costs import publish, row
from tests.unit.serve.api.doubles import ROOT_KEY, Actors
from tests.unit.serve.api.serving import served
from tests.unit.serve.doubles import a_run

HEADERS = {"X-CA-Root-Key": ROOT_KEY}
PATH = "openai/cost/usage_cost"
ORGS = "/api/v1/organizations"
RUNS = "/api/v1/pipelines/runs"


class RecordedActors(Actors):
    """The same transport; organisations, keys and runs are those in the warehouse."""

    def _made(self) -> Directory:
        found = read_directory(self.work.central, self.work.catalog.plans)
        self.orgs = dict(found.orgs)
        return found

    async def refresh_directory(self) -> str:
        self.refreshed += 1
        self._read = await asyncio.to_thread(self._made)
        return self._read.version

    async def accept(self, request: RunRequest, origin: Origin) -> tuple[Run, bool]:
        run, created = await super().accept(request, origin)
        if created:
            await asyncio.to_thread(self.work.history.accept, [(run, origin)], now=self.now)
        return run, created


@dataclass
class Platform:
    client: httpx.Client
    doors: Doors
    work: Workplace

    def org(self) -> str:
        """A new organisation, added over HTTP."""
        slug = f"org_{uuid4().hex[:12]}"
        body = {"org_slug": slug, "name": "Acme", "admin_email": "ann@acme.example"}
        answer = self.client.post(ORGS, headers=HEADERS, json=body)
        assert answer.status_code == 201, answer.text
        assert answer.headers["location"] == f"{ORGS}/{slug}"
        return slug

    def key(self, org: str, *scopes: str) -> dict[str, str]:
        answer = self.client.post(
            f"{ORGS}/{org}/keys", headers=HEADERS, json={"name": "test", "scopes": scopes or ["run", "read"]}
        )
        assert answer.status_code == 201, answer.text
        return {"X-API-Key": answer.json()["api_key"]}

    def trail(self, org: str) -> list[tuple[str, str, str]]:
        """(action, actor's kind, status) of every entry, oldest first."""
        self.doors.audit.flush()
        found = self.client.get(f"{ORGS}/{org}/audit?limit=1000", headers=HEADERS).json()["entries"]
        return [(one["action"], one["actor"].partition(":")[0], one["status"]) for one in reversed(found)]


@pytest.fixture(scope="module")
def platform(
    bigquery_server: BigQueryServer, _central: Central, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    home: Path = tmp_path_factory.mktemp("home")
    settings = Settings(
        root=ROOT,
        home=home,
        bigquery_emulator_host=bigquery_server.rest,
        bigquery_storage_emulator_host=bigquery_server.grpc,
    )
    work = Workplace(settings)
    actors = RecordedActors(work.vault, work, now=datetime.now(UTC))  # type: ignore[arg-type]
    doors = Doors(
        settings=settings,
        cluster=actors,
        work=work,
        authenticator=Authenticator(work.vault, [hash_root_key(ROOT_KEY)]),
        audit=AuditLog(lambda rows: work.central.append(REQUESTS, rows)),
        log=JsonLog(lambda line: None, now=lambda: datetime.now(UTC)),
    )
    with served(doors) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield Platform(client, doors, work)


@pytest.mark.slow
def test_an_organisation_from_first_to_last(platform: Platform) -> None:
    org, client = platform.org(), platform.client
    assert client.get(f"{ORGS}/{org}", headers=HEADERS).json()["status"] == "ACTIVE"
    assert org in [one["org_slug"] for one in client.get(ORGS, headers=HEADERS).json()["organizations"]]
    key = platform.key(org, "admin")
    run = f"/api/v1/pipelines/run/{org}/{PATH}"
    assert client.post(run, headers=key).status_code == 409  # no credential yet
    secret = "sk-admin-" + "x" * 40
    stored = client.post(
        f"{ORGS}/{org}/credentials", headers=key, json={"provider": "openai", "secret": secret}
    )
    assert stored.status_code == 201, stored.text
    assert secret not in stored.text
    assert client.post(run, headers=key).status_code == 202
    assert client.post(f"{ORGS}/{org}/suspend", headers=HEADERS).json()["status"] == "SUSPENDED"
    assert client.post(run, headers=key, json={"policy": "all"}).status_code == 403
    assert client.post(f"{ORGS}/{org}/resume", headers=HEADERS).json()["status"] == "ACTIVE"
    credential_id = stored.json()["credential_id"]
    off = client.delete(f"{ORGS}/{org}/credentials/{credential_id}", headers=key)
    assert off.json()["is_active"] is False
    assert client.post(run, headers=key, json={"policy": "all"}).status_code == 409
    planned = client.delete(f"{ORGS}/{org}", headers=HEADERS).json()
    assert (planned["dry_run"], planned["status"], planned["keys"]) == (True, "ACTIVE", 1)
    assert len(planned["active_runs"]) == 1
    removed = client.delete(f"{ORGS}/{org}?dry_run=false&grace_days=7", headers=HEADERS).json()
    assert (removed["dry_run"], removed["status"]) == (False, "REMOVED")
    assert client.get(f"{ORGS}/{org}/keys", headers=key).status_code in (401, 403)
    trail = platform.trail(org)
    changes = [
        ("org.add", "root", "OK"),
        ("key.add", "root", "OK"),
        ("run.start", "key", "REFUSED"),
        ("credential.add", "key", "OK"),
        ("run.start", "key", "OK"),
        ("org.suspend", "root", "OK"),
        ("org.resume", "root", "OK"),
        ("credential.off", "key", "OK"),
        ("org.remove", "root", "OK"),
    ]
    assert [one for one in changes if one not in trail] == []
    # The change's own row is its entry: no second one.
    assert trail.count(("org.suspend", "root", "OK")) == 1
    assert trail.count(("run.start", "key", "OK")) == 1


def test_keys_are_shown_once_and_end_at_once(platform: Platform) -> None:
    org, client = platform.org(), platform.client
    admin = platform.key(org, "admin")
    made = client.post(
        f"{ORGS}/{org}/keys", headers=admin, json={"name": "ci", "scopes": ["read"], "expires_in_days": 1}
    ).json()
    reader = {"X-API-Key": made["api_key"]}
    assert client.get("/api/v1/pipelines", headers=reader).status_code == 200
    listed = client.get(f"{ORGS}/{org}/keys", headers=admin)
    assert [one["name"] for one in listed.json()["keys"]] == ["test", "ci"]
    assert made["api_key"][-43:] not in listed.text
    assert client.get(f"{ORGS}/{org}/keys", headers=reader).status_code == 403
    url = f"{ORGS}/{org}/keys/{made['key_id']}"
    assert client.delete(url, headers=admin).json()["is_active"] is False
    assert client.delete(url, headers=admin).status_code == 200
    assert client.get("/api/v1/pipelines", headers=reader).status_code == 401
    assert client.delete(f"{ORGS}/{org}/keys/ffffffffffff", headers=admin).status_code == 404
    for wrong in ({"name": ""}, {"name": "x", "scopes": ["root"]}, {"name": "x", "expires_in_days": 0}, {}):
        assert client.post(f"{ORGS}/{org}/keys", headers=admin, json=wrong).status_code == 422


def test_plans_and_quotas(platform: Platform) -> None:
    org, client = platform.org(), platform.client
    url = f"{ORGS}/{org}/quota"
    admin = platform.key(org, "admin")
    found = client.get(url, headers=admin).json()
    assert (found["plan"], found["limits"]["daily"]) == ("SCALE", 100)
    assert client.put(url, headers=admin, json={"daily": 1}).status_code == 403
    changed = client.put(url, headers=HEADERS, json={"daily": 7, "monthly": None}).json()
    assert changed["limits"] == {"daily": 7, "monthly": None, "concurrent": 5}
    assert changed["is_custom"] is True
    starter = client.put(f"{ORGS}/{org}/plan", headers=HEADERS, json={"plan": "STARTER"}).json()
    assert starter["limits"] == {"daily": 6, "monthly": 180, "concurrent": 1}
    assert client.put(f"{ORGS}/{org}/plan", headers=HEADERS, json={"plan": "FREE"}).status_code == 422
    for wrong in ({"daily": 0}, {"daily": "7"}, {"daily": 1.5}, {"weekly": 1}):
        assert client.put(url, headers=HEADERS, json=wrong).status_code == 422
    assert platform.doors.directory.current().orgs[org].limits == Limits(6, 180, 1)


@pytest.mark.slow
def test_bad_organisations_and_credentials(platform: Platform) -> None:
    client = platform.client
    for slug in ("Acme", "a", "x" * 51, "openai", "../etc", "acme\x00corp"):
        body = {"org_slug": slug, "name": "A", "admin_email": "a@b.example"}
        assert client.post(ORGS, headers=HEADERS, json=body).status_code == 422, slug
    org = platform.org()
    url = f"{ORGS}/{org}/credentials"
    assert client.post(url, headers=HEADERS, json={"provider": "nope", "secret": "x"}).status_code == 404
    refused = client.post(url, headers=HEADERS, json={"provider": "openai", "secret": "sk-proj-abcdefghijk"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "#/secret"
    assert "sk-proj-abc" not in refused.text
    assert client.delete(f"{url}/none", headers=HEADERS).status_code == 404
    assert client.get(f"{ORGS}/nobody_x", headers=HEADERS).status_code == 404
    for path in ("keys", "credentials", "quota", "audit"):
        assert client.get(f"{ORGS}/nobody_x/{path}", headers=HEADERS).status_code == 404


@pytest.mark.slow
def test_runs_in_pages(platform: Platform) -> None:
    org, client = platform.org(), platform.client
    began = datetime.now(UTC).replace(microsecond=0)
    for n in range(1, 6):
        run = replace(
            a_run(RunRequest(org, PATH, date(2026, 3, n), date(2026, 3, n))),
            id=f"{org}-{n}",
            sequence=n,
            version=1,
            start_time=began - timedelta(days=5 - n),
        )
        platform.work.history.save(run, now=began)
        platform.work.history.save(
            replace(run, version=2, status="FAILED" if n % 2 else "SUCCESS", end_time=began), now=began
        )
    key = platform.key(org, "read")

    def ids(query: str) -> list[str]:
        answer = client.get(f"{RUNS}?{query}", headers=key)
        assert answer.status_code == 200, answer.text
        return [one["pipeline_logging_id"].rpartition("-")[2] for one in answer.json()["runs"]]

    assert ids("") == ["5", "4", "3", "2", "1"]
    assert ids("status=FAILED") == ["5", "3", "1"]
    assert ids(f"pipeline={PATH}&limit=2") == ["5", "4"]
    assert ids("pipeline=no/such") == []
    assert ids(f"since={began.date() - timedelta(days=1)}") == ["5", "4"]
    assert ids(f"until={began.date() - timedelta(days=4)}") == ["1"]
    seen, cursor = [], None
    while True:
        query = "limit=2&status=FAILED" + (f"&cursor={cursor}" if cursor else "")
        page = client.get(f"{RUNS}?{query}", headers=key).json()
        seen += [one["pipeline_logging_id"] for one in page["runs"]]
        if (cursor := page["next_cursor"]) is None:
            break
        # A cursor belongs to its list.
        assert client.get(f"{RUNS}?limit=2&cursor={cursor}", headers=key).status_code == 422
    assert seen == [f"{org}-5", f"{org}-3", f"{org}-1"]
    shown = client.get(f"{RUNS}/{org}-3", headers=key).json()
    assert (shown["status"], shown["days"][0]["state"]) == ("FAILED", "not taken")
    events = client.get(f"{RUNS}/{org}-3/events?after=4", headers=key).json()
    assert events == {"pipeline_logging_id": f"{org}-3", "status": "FAILED", "events": [], "next_after": 4}
    assert client.get(f"{RUNS}/{org}-3", headers=HEADERS).json()["org_slug"] == org


@pytest.mark.slow
def test_costs_are_those_of_the_command_line(
    platform: Platform, clients: Clients, schemas: dict[str, Schema]
) -> None:
    org = platform.org()
    schema = schemas["openai_cost_daily"]
    warehouse = Warehouse(clients, org=org, dataset=f"{org}_local", maximum_bytes_billed=10**10)
    rows = [
        row(schema, date(2026, 3, 10), "gpt-5", "0.123456789", input_tokens=100),
        row(schema, date(2026, 3, 11), "gpt-5-mini", "7.000000001", input_tokens=9),
        row(schema, date(2026, 3, 9), "gpt-5", "1", input_tokens=1),
    ]
    publish(warehouse, schema, rows)
    key = platform.key(org, "read")
    url = f"/api/v1/costs/{org}?since=2026-03-10&until=2026-03-11"
    for by in ("provider", "model", "project", "api_key", "day"):
        answer = platform.client.get(f"{url}&by={by}", headers=key).json()
        found = cost_rows.spent(platform.work, [org], since=date(2026, 3, 10), until=date(2026, 3, 11), by=by)
        assert answer["rows"] == [jsonable(one) for one in cost_rows.rows_of(found, by=by)], by
    answer = platform.client.get(f"{url}&limit=1", headers=key)
    assert (len(answer.json()["rows"]), answer.json()["truncated"]) == (1, True)
    assert '"cost":"7.000000001"' in answer.text
    for wrong in ("since=2026-03-11&until=2026-03-10", "by=colour", "limit=0", "since=2999-01-01"):
        assert platform.client.get(f"/api/v1/costs/{org}?{wrong}", headers=key).status_code == 422
    other = platform.org()
    assert platform.client.get(f"/api/v1/costs/{other}", headers=HEADERS).json()["rows"] == []
    assert platform.client.get(f"/api/v1/costs/{other}", headers=key).status_code == 403


def test_a_plan_is_what_a_run_would_do(platform: Platform) -> None:
    org, client = platform.org(), platform.client
    body = {"provider": "openai", "secret": "sk-admin-" + "y" * 40}
    client.post(f"{ORGS}/{org}/credentials", headers=HEADERS, json=body)
    answer = client.post(
        f"/api/v1/pipelines/run/{org}/{PATH}/plan",
        headers=platform.key(org, "run"),
        content=json.dumps({"start_date": "2026-03-01", "end_date": "2026-03-03"}),
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["units"] == [{"first_day": "2026-03-01", "last_day": "2026-03-03", "days": 3}]
    assert client.get(f"{RUNS}?org={org}", headers=HEADERS).json()["runs"] == []


@pytest.mark.slow
def test_the_audit_in_pages(platform: Platform) -> None:
    org, client = platform.org(), platform.client
    admin = platform.key(org, "admin")
    for _ in range(3):
        client.get("/api/v1/pipelines", headers=admin)
    assert platform.trail(org).count(("pipeline.read", "key", "OK")) == 3
    url = f"{ORGS}/{org}/audit"
    first = client.get(f"{url}?limit=2", headers=admin).json()
    second = client.get(f"{url}?limit=2&cursor={first['next_cursor']}", headers=admin).json()
    ids = [one["audit_id"] for page in (first, second) for one in page["entries"]]
    assert len(set(ids)) == 4
    assert client.get(f"{url}?cursor=xx", headers=admin).status_code == 422
    assert client.get(f"{url}?since=2999-01-01", headers=admin).json()["entries"] == []
    assert client.get(url, headers=platform.key(org, "read")).status_code == 403


def test_ready_when_everything_is_there(platform: Platform) -> None:
    answer = platform.client.get("/health/ready")
    assert answer.status_code == 200, answer.text
    assert answer.json()["numbers"]["slots"] == 6
    assert {one["name"] for one in answer.json()["checks"]} == {
        "warehouse",
        "cluster",
        "key_store",
        "directory",
    }

"""The API over procedures and migrations: the root key's alone, on record, and true to the files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import httpx
import pytest

from engine.audit_log import REQUESTS, AuditLog
from engine.authentication import Authenticator, hash_root_key
from engine.log import JsonLog
from engine.settings import Settings
from engine.workplace import Workplace
from serve.deps import Doors
from tests.integration.bigquery_server import BigQueryServer
from tests.integration.conftest import ROOT
from tests.integration.test_api_records import HEADERS, Platform, RecordedActors
from tests.unit.serve.api.doubles import ROOT_KEY
from tests.unit.serve.api.serving import served

PROCEDURES, MIGRATIONS = "/api/v1/procedures", "/api/v1/migrations"
PROBE = "CREATE OR REPLACE PROCEDURE demo_probe(dataset STRING)\nBEGIN\n  SELECT 1;\nEND;\n"
ADD = "-- scope: tenant\n-- requires: costs\nALTER TABLE costs ADD COLUMN IF NOT EXISTS note STRING;\n"


@pytest.fixture(scope="module")
def platform(bigquery_server: BigQueryServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """An installation of its own, with one procedure and one migration."""
    root = tmp_path_factory.mktemp("root")
    (root / "configs").symlink_to(ROOT / "configs")
    for name, text in (("demo/probe.sql", PROBE), ("migrations/001_add_note.sql", ADD)):
        path = root / "procedures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    prefix = f"t{uuid4().hex[:12]}"
    settings = Settings(
        root=root,
        home=tmp_path_factory.mktemp("home"),
        meta_dataset=f"{prefix}_orgs",
        dataset_suffix=prefix,
        bigquery_emulator_host=bigquery_server.rest,
        bigquery_storage_emulator_host=bigquery_server.grpc,
    )
    work = Workplace(settings)
    work.central.ensure()
    doors = Doors(
        settings=settings,
        cluster=RecordedActors(work.vault, work, now=datetime.now(UTC)),  # type: ignore[arg-type]
        work=work,
        authenticator=Authenticator(work.vault, [hash_root_key(ROOT_KEY)]),
        audit=AuditLog(lambda rows: work.central.append(REQUESTS, rows)),
        log=JsonLog(lambda line: None, now=lambda: datetime.now(UTC)),
    )
    with served(doors) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield Platform(client, doors, work)


def platform_trail(platform: Platform) -> list[tuple[str, str, str]]:
    """(action, resource, status) of what belongs to no organisation."""
    platform.doors.audit.flush()
    found = platform.work.central.query(
        f"SELECT action, resource_id, status FROM {REQUESTS} WHERE org_slug = @org_slug ORDER BY created_at",
        org="-",
        purpose="test",
    ).to_pylist()
    return [(row["action"], row["resource_id"], row["status"]) for row in found]


def test_procedures_from_the_file_to_the_warehouse_and_away(platform: Platform) -> None:
    client = platform.client
    (listed,) = client.get(PROCEDURES, headers=HEADERS).json()["procedures"]
    assert (listed["name"], listed["state"], listed["domain"]) == ("demo_probe", "missing", "demo")
    assert listed["arguments"] == [{"name": "dataset", "type": "STRING"}]

    dry = client.post(f"{PROCEDURES}/sync", headers=HEADERS, json={"dry_run": True}).json()
    assert (dry["dry_run"], dry["procedures"][0]["action"]) == (True, "created")
    assert client.get(f"{PROCEDURES}/demo_probe", headers=HEADERS).json()["state"] == "missing"

    done = client.post(f"{PROCEDURES}/sync", headers=HEADERS, json={"domain": "demo"}).json()
    assert [one["action"] for one in done["procedures"]] == ["created"]
    again = client.post(f"{PROCEDURES}/sync", headers=HEADERS).json()
    assert [one["action"] for one in again["procedures"]] == ["unchanged"]
    assert client.get(f"{PROCEDURES}/demo_probe", headers=HEADERS).json()["state"] == "current"

    gone = client.delete(f"{PROCEDURES}/demo_probe", headers=HEADERS)
    assert gone.json() == {"name": "demo_probe", "file": "procedures/demo/probe.sql"}
    assert client.delete(f"{PROCEDURES}/demo_probe", headers=HEADERS).status_code == 404
    wrong = client.post(f"{PROCEDURES}/sync", headers=HEADERS, json={"names": ["demo_prob"]})
    assert (wrong.status_code, wrong.json()["fix"]) == (404, "Did you mean demo_probe?")
    trail = [entry for entry in platform_trail(platform) if entry[0] != "procedure.list"]
    assert trail == [
        ("procedure.sync", "dry run: all", "OK"),
        ("procedure.read", "demo_probe", "OK"),
        ("procedure.sync", "demo", "OK"),
        ("procedure.sync", "all", "OK"),
        ("procedure.read", "demo_probe", "OK"),
        ("procedure.delete", "demo_probe", "OK"),
        ("procedure.delete", "demo_probe", "REFUSED"),
        ("procedure.sync", "demo_prob", "REFUSED"),
    ]


def test_a_broken_file_is_409_with_file_and_line(platform: Platform) -> None:
    path = platform.work.settings.root / "procedures" / "demo" / "broken.sql"
    path.write_text("CREATE OR REPLACE PROCEDURE demo_broken()\nBEGIN\n  SELECT * FROM acme_prod.costs;\nEND")
    try:
        answer = platform.client.post(f"{PROCEDURES}/sync", headers=HEADERS)
    finally:
        path.unlink()
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("procedures/demo/broken.sql:3: acme_prod.costs names a dataset")


def test_a_migration_is_a_dry_run_unless_it_is_said(platform: Platform) -> None:
    org, client = platform.org(), platform.client
    warehouse = platform.work.warehouse(org)
    warehouse.query("CREATE TABLE costs AS SELECT 1 AS id", purpose="test")
    url = f"{MIGRATIONS}/001_add_note/execute"

    dry = client.post(url, headers=HEADERS).json()
    assert (dry["dry_run"], dry["complete"]) == (True, True)
    assert dry["statements"][0]["sql"] == "ALTER TABLE costs ADD COLUMN IF NOT EXISTS note STRING"
    assert dry["statements"][0]["writes"] == ["costs"]
    (dataset,) = (one for one in dry["datasets"] if one["org_slug"] == org)
    assert (dataset["state"], dataset["touched"]) == (
        "pending",
        [{"table": "costs", "written": True, "exists": True, "rows": 1}],
    )
    (listed,) = client.get(MIGRATIONS, headers=HEADERS).json()["migrations"]
    assert (listed["name"], listed["pending"], listed["done"]) == ("001_add_note", len(dry["datasets"]), 0)

    done = client.post(f"{url}?dry_run=false&org={org}", headers=HEADERS).json()
    assert [(one["org_slug"], one["state"]) for one in done["datasets"]] == [(org, "applied")]
    assert warehouse.query("SELECT note FROM costs", purpose="test").to_pylist() == [{"note": None}]
    again = client.post(f"{url}?dry_run=false", headers=HEADERS).json()
    assert {one["org_slug"]: one["state"] for one in again["datasets"]}[org] == "unchanged"
    assert platform.trail(org).count(("migration.execute", "root", "OK")) == 1
    assert client.post(f"{url}?org=nobody_here", headers=HEADERS).status_code == 404
    assert client.post(f"{MIGRATIONS}/001_ad_note/execute", headers=HEADERS).status_code == 404


def test_only_the_root_key_may(platform: Platform) -> None:
    key = platform.key(platform.org(), "admin")
    for method, path in (
        ("GET", PROCEDURES),
        ("GET", f"{PROCEDURES}/demo_probe"),
        ("POST", f"{PROCEDURES}/sync"),
        ("DELETE", f"{PROCEDURES}/demo_probe"),
        ("GET", MIGRATIONS),
        ("POST", f"{MIGRATIONS}/001_add_note/execute"),
    ):
        assert platform.client.request(method, path, headers=key).status_code == 403, (method, path)
        assert platform.client.request(method, path).status_code == 401, (method, path)

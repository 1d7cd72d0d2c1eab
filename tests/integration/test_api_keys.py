"""API keys on the embedded BigQuery: what is on record, what the directory makes of it, and the commands."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from rich.console import Console

from engine.api_keys import API_KEYS, ApiKeys, seal_hash_key
from engine.audit import Audit
from engine.authentication import Authenticator
from engine.catalog import Catalog
from engine.central import Central
from engine.clients import Clients
from engine.directory import Directory, read_directory
from engine.errors import AuthenticationError, InternalError, NotFoundError, UsageError
from engine.plans import Limits, Plans, Subscriptions
from engine.root_keys import read_root_keys
from engine.settings import Settings
from engine.vault import FileKeyWrapper, Vault
from engine.workplace import Workplace
from serve.cli.desk import Desk
from serve.cli.main import run
from tests.integration.bigquery_server import BigQueryServer
from tests.integration.conftest import BYTES_BILLED, ROOT

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
TABLES = ("org_profiles", API_KEYS, "org_subscriptions", "org_integration_credentials")
PLANS = Plans(default="SCALE", plans={"SCALE": Limits(100, 3000, 5), "STARTER": Limits(6, 180, 1)})
AUDIT = Audit("acme", "key.revoke", "root", "api_key", request_id="req-1")


@pytest.fixture(scope="module")
def central(clients: Clients) -> Central:
    """A dataset of its own, so that a directory holds what these tests wrote."""
    schemas = Catalog.load(ROOT).schemas
    made = Central(
        clients,
        schemas={name: schemas[name] for name in TABLES},
        dataset=f"keys_{uuid4().hex[:12]}",
        maximum_bytes_billed=BYTES_BILLED,
    )
    made.ensure()
    return made


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(FileKeyWrapper(tmp_path / "master.key"))


@pytest.fixture
def keys(central: Central, vault: Vault) -> ApiKeys:
    ticks = count()
    return ApiKeys(central, vault, now=lambda: START + timedelta(seconds=next(ticks)))


Put = Callable[..., None]


@pytest.fixture
def put(central: Central) -> Put:
    """`put(org, status)` appends a version of an organisation."""
    versions = count(1)

    def append(org: str, status: str = "ACTIVE") -> None:
        row = {
            "org_slug": org,
            "version": next(versions),
            "company_name": org,
            "admin_email": "a@b.example",
            "org_dataset_id": f"{org}_local",
            "status": status,
            "created_at": START,
            "written_at": START,
        }
        central.append("org_profiles", [row])

    return append


def stored(central: Central, org: str) -> list[dict[str, Any]]:
    sql = f"SELECT * FROM {API_KEYS} WHERE org_slug = @org_slug ORDER BY org_api_key_id, version"
    return list(central.query(sql, {}, org=org, purpose="test").to_pylist())


def test_a_key_is_shown_once_and_kept_as_a_hash(keys: ApiKeys, central: Central, org: str) -> None:
    key, text = keys.add(org, name="nightly", scopes=["read", "run"], audit=replace(AUDIT, action="key.add"))
    assert text.startswith(f"{org}_api_{key.key_id}")
    assert (key.name, key.scopes, key.is_active, key.version) == ("nightly", ("run", "read"), True, 1)
    assert keys.list(org) == (key,)
    (row,) = stored(central, org)
    assert text[-43:] not in repr(row)
    assert json.loads(row["audit"]) == {
        "org": "acme",
        "action": "key.add",
        "actor": "root",
        "resource_type": "api_key",
        "resource_id": key.key_id,
        "status": "OK",
        "request_id": "req-1",
    }


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scopes": ["write"]}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"name": "  "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "bell\a"}, "name"),
        ({"expires_at": START}, "expires_at"),
        ({"expires_at": START.replace(tzinfo=None) + timedelta(days=1)}, "expires_at"),
        ({"org": "No_Slug"}, "org_slug"),
    ],
)
def test_impossible_keys(keys: ApiKeys, org: str, change: dict[str, Any], field: str) -> None:
    given = {"org": org, "name": "nightly", "scopes": ["run"], **change}
    with pytest.raises(UsageError) as refused:
        keys.add(given.pop("org"), **given)
    assert refused.value.field == field
    assert keys.list(org) == ()


def test_a_revoked_key_stays_on_record_and_stays_revoked(keys: ApiKeys, central: Central, org: str) -> None:
    (one, _), (two, _) = (keys.add(org, name=name, scopes=["run"]) for name in ("one", "two"))
    revoked = keys.revoke(org, one.key_id, audit=AUDIT)
    assert (revoked.is_active, revoked.version) == (False, 2)
    assert keys.revoke(org, one.key_id) == revoked
    assert [(key.key_id, key.is_active) for key in keys.list(org)] == [
        (one.key_id, False),
        (two.key_id, True),
    ]
    rows = [row for row in stored(central, org) if row["org_api_key_id"] == one.key_id]
    assert [json.loads(row["audit"])["action"] if row["audit"] else None for row in rows] == [
        None,
        "key.revoke",
    ]
    # A rotation that had read the key before writes the same version, active, and later.
    central.append(API_KEYS, [{**rows[0], "version": 2, "written_at": START + timedelta(days=1)}])
    assert not keys.list(org)[0].is_active


def test_all_keys_are_revoked_in_one_append(keys: ApiKeys, central: Central, org: str) -> None:
    made = [keys.add(org, name=f"k{n}", scopes=["run"])[0] for n in range(3)]
    keys.revoke(org, made[0].key_id)
    assert keys.revoke_all(org, audit=AUDIT) == 2
    assert keys.revoke_all(org) == 0
    assert not any(key.is_active for key in keys.list(org))
    written = {row["written_at"] for row in stored(central, org) if row["audit"]}
    assert len(written) == 1


def test_one_organisation_cannot_revoke_anothers_key(keys: ApiKeys, org: str) -> None:
    key, _ = keys.add(org, name="mine", scopes=["run"])
    with pytest.raises(NotFoundError, match="has no API key"):
        keys.revoke("globex", key.key_id)
    assert keys.list(org) == (key,)


def test_the_directory_says_who_may_come_in(
    keys: ApiKeys, central: Central, vault: Vault, put: Put, org: str
) -> None:
    put(org)
    key, text = keys.add(org, name="nightly", scopes=["run"], expires_at=START + timedelta(days=1))
    directory = read_directory(central, PLANS)
    assert read_directory(central, PLANS) == directory
    entry = directory.orgs[org]
    assert (entry.status, entry.plan, entry.limits) == ("ACTIVE", "SCALE", PLANS.limits("SCALE"))
    now = [START + timedelta(minutes=1)]
    authenticator = Authenticator(vault, (), now=lambda: now[0])
    caller = authenticator.org(text, directory)
    assert (caller.org, caller.key_id, caller.scopes) == (org, key.key_id, {"run"})
    keys.revoke(org, key.key_id)
    after = read_directory(central, PLANS)
    assert after.version != directory.version
    with pytest.raises(AuthenticationError, match="is not valid"):
        authenticator.org(text, after)
    now[0] += timedelta(days=1)
    with pytest.raises(AuthenticationError, match="expired"):
        authenticator.org(text, directory)


def test_the_directory_holds_plans_statuses_and_active_credentials(
    central: Central, put: Put, org: str
) -> None:
    put(org)
    before = read_directory(central, PLANS)
    Subscriptions(central, PLANS).set_plan(org, "STARTER")
    put(org, "SUSPENDED")
    sealed = {"encrypted_credential": b"c", "wrapped_key": b"w", "key_name": "k"}
    row = {"org_slug": org, "version": 1, "credential_name": "n", "created_at": START, "written_at": START}
    for provider, states in (("openai", (True,)), ("anthropic", (True, False))):
        for version, is_active in enumerate(states, start=1):
            facts = {"credential_id": f"{org}-{provider}", "provider": provider, "is_active": is_active}
            central.append("org_integration_credentials", [{**row, **sealed, **facts, "version": version}])
    directory = read_directory(central, PLANS)
    entry = directory.orgs[org]
    assert (entry.status, entry.plan, entry.limits.concurrent) == ("SUSPENDED", "STARTER", 1)
    assert {provider for owner, provider in directory.credentials if owner == org} == {"openai"}
    assert directory.version != before.version


def test_a_row_copied_to_another_organisation_opens_nothing_and_shadows_nobody(
    keys: ApiKeys, central: Central, vault: Vault, put: Put, org: str
) -> None:
    other = f"org_{uuid4().hex[:12]}"
    put(org)
    put(other)
    key, text = keys.add(org, name="mine", scopes=["run"])
    (row,) = stored(central, org)
    central.append(API_KEYS, [{**row, "org_slug": other, "created_at": START + timedelta(days=1)}])
    authenticator = Authenticator(vault, (), now=lambda: START)
    directory = read_directory(central, PLANS)
    assert authenticator.org(text, directory).org == org
    with pytest.raises(AuthenticationError):
        authenticator.org(other + text.removeprefix(org), directory)
    # Without the original in the way, the ciphertext does not open for the other organisation.
    alone = replace(directory.keys[key.key_id], org=other)
    with pytest.raises(InternalError):
        authenticator.org(
            other + text.removeprefix(org), Directory.of(directory.orgs, {key.key_id: alone}, frozenset())
        )


def test_a_resealed_hash_key_is_the_same_key(
    keys: ApiKeys, central: Central, vault: Vault, tmp_path: Path, put: Put, org: str
) -> None:
    put(org)
    key, text = keys.add(org, name="mine", scopes=["run"])
    (row,) = stored(central, org)
    entry = read_directory(central, PLANS).keys[key.key_id]
    opened = vault.open(entry.sealed, org=org, provider="api_key", credential_id=key.key_id).reveal()
    newer = Vault(FileKeyWrapper(tmp_path / "newer.key"))
    sealed = seal_hash_key(newer, bytes.fromhex(opened), org=org, key_id=key.key_id)
    changed = {
        "version": 2,
        "encrypted_hash_key": sealed.ciphertext,
        "wrapped_key": sealed.wrapped_key,
        "key_name": sealed.key_name,
    }
    central.append(API_KEYS, [{**row, **changed}])
    directory = read_directory(central, PLANS)
    assert Authenticator(newer, (), now=lambda: START).org(text, directory).key_id == key.key_id


@dataclass
class Terminal:
    """Calls of `manta` on a real workplace."""

    environ: dict[str, str]

    @property
    def settings(self) -> Settings:
        return Settings.load(self.environ, root=ROOT)

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        desk = Desk(
            environ=self.environ,
            stdin=io.StringIO(),
            out=Console(file=out, width=100, highlight=False),
            err=Console(file=err, width=100, highlight=False),
            load=lambda environ: Settings.load(environ, root=ROOT),
            open=Workplace,
        )
        return run(arguments, desk), out.getvalue(), err.getvalue()


@pytest.fixture
def manta(bigquery_server: BigQueryServer, tmp_path: Path, central: Central) -> Terminal:
    return Terminal(
        {
            "MANTA_HOME": str(tmp_path),
            "BIGQUERY_EMULATOR_HOST": bigquery_server.rest,
            "BIGQUERY_STORAGE_EMULATOR_HOST": bigquery_server.grpc,
            "META_DATASET": central.dataset,
            "DIRECTORY_REFRESH_SECONDS": "7",
            "USER": "tess",
        }
    )


def test_a_key_s_life_on_the_command_line(manta: Terminal, central: Central, put: Put, org: str) -> None:
    put(org)
    code, out, err = manta("key", "add", org, "--name", "ci", "--expires-days", "30")
    assert (code, err) == (0, "")
    text, said, *rest = out.splitlines()
    key_id = text.removeprefix(f"{org}_api_")[:12]
    assert said == f"That is key {key_id} (ci) of {org}, for run, read."
    assert rest == [
        "Keep it now: it cannot be shown again.",
        "It works within 12 seconds, as the header X-API-Key.",
    ]
    directory = read_directory(central, PLANS)
    vault = Workplace(manta.settings).vault
    assert Authenticator(vault, ()).org(text, directory).scopes == {"run", "read"}

    code, out, _ = manta("key", "list", org)
    assert code == 0
    assert key_id in out
    assert "active" in out
    assert text not in out

    code, out, _ = manta("key", "revoke", org, key_id)
    assert code == 0
    assert "The API refuses it within 12 seconds." in out
    assert json.loads(manta("key", "list", org, "--json")[1])["is_active"] is False
    assert [json.loads(row["audit"])["actor"] for row in stored(central, org)] == ["cli:tess"] * 2


@pytest.mark.slow
def test_json_and_refusals_on_the_command_line(manta: Terminal, put: Put, org: str) -> None:
    put(org)
    code, out, _ = manta("key", "add", org, "--scope", "admin", "--json")
    facts = json.loads(out)
    assert (code, facts["scopes"]) == (0, ["admin"])
    assert facts["key"].startswith(f"{org}_api_{facts['org_api_key_id']}")
    for arguments, said in (
        (("key", "add", org, "--scope", "write"), "There is no scope 'write'"),
        (("key", "add", "nobody_here"), "There is no organisation 'nobody_here'"),
        (("key", "revoke", org, "0" * 12), "has no API key"),
    ):
        code, out, err = manta(*arguments)
        assert (code, out) == (2, "")
        assert said in err
    put(org, "REMOVED")
    code, _, err = manta("key", "add", org)
    assert code == 2
    assert "has been removed" in err


def test_the_root_key_changes_in_two_steps_and_is_never_shown(manta: Terminal) -> None:
    assert manta("key", "root")[0] == 1
    assert manta("key", "root", "--rotate")[0] == 0
    (former,) = read_root_keys(manta.settings)
    code, out, _ = manta("key", "root", "--rotate")
    new, kept = read_root_keys(manta.settings)
    assert (code, kept) == (0, former)
    assert "two are valid" in out
    assert not {new, former} & set(out.split())
    assert manta("key", "root", "--rotate")[0] == 2
    assert manta("key", "root", "--rotate", "--retire")[0] == 2
    assert json.loads(manta("key", "root", "--retire", "--json")[1])["valid_keys"] == 1
    assert read_root_keys(manta.settings) == (new,)
    given = Terminal({**manta.environ, "CA_ROOT_API_KEY": "r" * 32})
    code, _, err = given("key", "root", "--rotate")
    assert code == 2
    assert "CA_ROOT_API_KEY_PREVIOUS" in err
    assert "CA_ROOT_API_KEY (one is valid)" in given("key", "root")[1]

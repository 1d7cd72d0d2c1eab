"""An installation with stored keys: a central dataset of its own, a key file, and what was put there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from engine.api_keys import ApiKeys
from engine.authentication import Authenticator
from engine.catalog import read_catalog
from engine.central import Central
from engine.clients import Clients
from engine.directory import read_directory
from engine.key_file import FileKeyWrapper
from engine.rotation import API_KEYS, CREDENTIALS, Rotation, rotate, standing
from engine.settings import Settings
from engine.tenants import Tenants
from engine.vault import Vault
from engine.warehouse import Warehouse
from tests.integration.bigquery_server import BigQueryServer

CHECKOUT = Path(__file__).resolve().parents[2]
START = datetime(2026, 11, 23, 12, tzinfo=UTC)
SECRET = "sk-ant-admin01-the-secret"
LIMIT = 2**30


@dataclass
class Place:
    """One installation: its own central dataset, a vault, and what was stored in it."""

    central: Central
    tenants: Tenants
    keys: ApiKeys
    vault: Vault
    settings: Settings
    now: Callable[[], datetime]
    secrets: dict[tuple[str, str], str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    def store(self, org: str, credentials: int = 1, keys: int = 1) -> None:
        self.tenants.add(org, name=org)
        for number in range(credentials):
            secret = f"{SECRET}-{number}"
            self.secrets[org, self.tenants.add_credential(org, "anthropic", secret)] = secret
        self.texts += [self.keys.add(org, name="k", scopes=["run"])[1] for _ in range(keys)]

    def check(self, vault: Vault | None = None) -> None:
        """All that was stored opens, and API keys authenticate, with nothing cached."""
        vault = vault or self.vault
        tenants = self.with_vault(vault)
        for org in {org for org, _ in self.secrets}:
            opened = tenants.open_active(org, "anthropic")
            assert {(org, name): secret.reveal() for name, secret in opened.items()} == {
                key: secret for key, secret in self.secrets.items() if key[0] == org
            }
        authenticator = Authenticator(vault, [], now=self.now)
        directory = read_directory(self.central, read_catalog(CHECKOUT).catalog.plans)
        assert {authenticator.org(text, directory).org for text in self.texts} == {
            text.partition("_api_")[0] for text in self.texts
        }

    def with_vault(self, vault: Vault) -> Tenants:
        return Tenants(
            self.central,
            vault,
            settings=self.settings,
            providers=read_catalog(CHECKOUT).catalog.providers,
            ensure_dataset=lambda org: None,
        )

    def rotate(self, what: str = "master", vault: Vault | None = None, **more: object) -> Rotation:
        given = {"orgs": standing(self.central), "now": self.now, **more}
        return rotate(self.central, vault or self.vault, what=what, **given)  # type: ignore[arg-type]

    def rows(self, org: str) -> list[dict[str, Any]]:
        sql = f"SELECT * FROM {CREDENTIALS.table} WHERE org_slug = @org_slug ORDER BY credential_id, version"
        return self.central.query(sql, org=org, purpose="test").to_pylist()


def a_place(clients: Clients, bigquery_server: BigQueryServer, home: Path) -> Place:
    """A new, empty one; its key file is `home`/keys/master.key."""
    prefix = f"t{uuid4().hex[:12]}"
    environ = {
        "MANTA_HOME": str(home),
        "DATASET_SUFFIX": prefix,
        "META_DATASET": f"{prefix}_orgs",
        "DEFAULT_ADMIN_EMAIL": "ops@acme.example",
        "BIGQUERY_EMULATOR_HOST": bigquery_server.rest,
        "BIGQUERY_STORAGE_EMULATOR_HOST": bigquery_server.grpc,
    }
    settings = Settings.load(environ, root=CHECKOUT)
    catalog = read_catalog(CHECKOUT).catalog
    wanted = ("org_profiles", "org_subscriptions", CREDENTIALS.table, API_KEYS.table)
    central = Central(
        clients,
        schemas={name: catalog.schemas[name] for name in wanted},
        dataset=settings.meta_dataset,
        maximum_bytes_billed=LIMIT,
    )
    central.ensure()
    ticks = count()

    def now() -> datetime:
        return START + timedelta(seconds=next(ticks))

    vault = Vault(FileKeyWrapper(settings.key_file))
    tenants = Tenants(
        central,
        vault,
        settings=settings,
        providers=catalog.providers,
        ensure_dataset=lambda org: Warehouse(
            clients, org=org, dataset=settings.dataset(org), maximum_bytes_billed=LIMIT
        ).ensure_dataset(),
        now=now,
    )
    return Place(central, tenants, ApiKeys(central, vault, now=now), vault, settings, now)

"""Organisations and credentials on the embedded BigQuery: what is on record, and what stays closed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest

from engine.catalog import read_catalog
from engine.central import Central
from engine.clients import Clients
from engine.errors import ConfigurationError, NotFoundError, UsageError
from engine.settings import Settings
from engine.tenants import CREDENTIALS, Tenants
from engine.vault import FileKeyWrapper, Vault
from engine.warehouse import Warehouse

CHECKOUT = Path(__file__).resolve().parents[2]
START = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = "sk-ant-admin01-the-secret"
LIMIT = 2**30


@pytest.fixture
def prefix() -> str:
    """Datasets of its own for each test: the server outlives it."""
    return f"t{uuid4().hex[:12]}"


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(FileKeyWrapper(tmp_path / "master.key"))


@pytest.fixture
def central(clients: Clients, prefix: str) -> Central:
    schemas = read_catalog(CHECKOUT).catalog.schemas
    wanted = {name: schemas[name] for name in ("org_profiles", CREDENTIALS)}
    made = Central(clients, schemas=wanted, dataset=f"{prefix}_orgs", maximum_bytes_billed=LIMIT)
    made.ensure()
    return made


@pytest.fixture
def tenants(central: Central, clients: Clients, vault: Vault, tmp_path: Path, prefix: str) -> Tenants:
    environ = {
        "MANTA_HOME": str(tmp_path),
        "DATASET_SUFFIX": prefix,
        "DEFAULT_ADMIN_EMAIL": "ops@acme.example",
    }
    settings = Settings.load(environ, root=CHECKOUT)
    ticks, ids = count(), count(1)

    def ensure_dataset(org: str) -> None:
        Warehouse(
            clients, org=org, dataset=settings.dataset(org), maximum_bytes_billed=LIMIT
        ).ensure_dataset()

    return Tenants(
        central,
        vault,
        settings=settings,
        providers=read_catalog(CHECKOUT).catalog.providers,
        ensure_dataset=ensure_dataset,
        now=lambda: START + timedelta(seconds=next(ticks)),
        new_id=lambda: f"cred{next(ids)}",
    )


def test_an_organisation_has_a_dataset_and_a_record(tenants: Tenants, clients: Clients) -> None:
    added = tenants.add("acme", name="Acme", admin_email="a@acme.example")
    assert (added.slug, added.name, added.status, added.version) == ("acme", "Acme", "ACTIVE", 1)
    assert added.created_at == START
    assert clients.bigquery.get_dataset(added.dataset).dataset_id == added.dataset
    assert tenants.get("acme") == added
    assert tenants.add("acme", name="Acme", admin_email="a@acme.example") == added


def test_active_lists_each_organisation_once(tenants: Tenants) -> None:
    for slug in ("globex", "acme"):
        tenants.add(slug, name=slug.title())
    assert [(org.slug, org.admin_email) for org in tenants.active()] == [
        ("acme", "ops@acme.example"),
        ("globex", "ops@acme.example"),
    ]


def test_highest_version_is_current_and_double_rows_count_once(tenants: Tenants, central: Central) -> None:
    first = tenants.add("acme", name="Acme")
    row = tenants._org_row("acme", "Acme Two", "two@acme.example")
    # What arrives last is not what is current, and a lost answer makes a row arrive twice.
    for version, name in ((3, "Acme Three"), (2, "Acme Two"), (3, "Acme Three")):
        central.append("org_profiles", [{**row, "version": version, "company_name": name}])
    assert (tenants.get("acme").name, tenants.get("acme").version) == ("Acme Three", 3)
    central.append("org_profiles", [{**row, "version": 4, "status": "CLOSED"}])
    assert tenants.active() == ()
    assert tenants.get("acme").status == "CLOSED"
    assert first.version == 1


@pytest.mark.parametrize(
    ("slug", "name", "email", "field"),
    [
        ("ac", "Acme", None, "org_slug"),
        ("openai", "Acme", None, "org_slug"),
        ("acme", " ", None, "name"),
        ("acme", "Acme", "nobody", "admin_email"),
    ],
)
def test_impossible_organisations(
    tenants: Tenants, slug: str, name: str, email: str | None, field: str
) -> None:
    with pytest.raises(UsageError) as refused:
        tenants.add(slug, name=name, admin_email=email)
    assert refused.value.field == field
    assert tenants.active() == ()


def test_a_slug_is_given_once(tenants: Tenants) -> None:
    tenants.add("acme", name="Acme")
    with pytest.raises(UsageError, match="already there, as 'Acme'"):
        tenants.add("acme", name="Another Acme")


def test_an_unknown_organisation_says_how_to_add_it(tenants: Tenants) -> None:
    for ask in (
        lambda: tenants.get("nobody"),
        lambda: tenants.add_credential("nobody", "anthropic", KEY),
    ):
        with pytest.raises(NotFoundError) as missing:
            ask()
        assert missing.value.fix == "Add it: manta org add nobody"


def test_a_credential_opens_again_and_is_never_listed(tenants: Tenants, central: Central) -> None:
    tenants.add("acme", name="Acme")
    credential_id = tenants.add_credential("acme", "anthropic", KEY, name="main")
    (listed,) = tenants.credentials("acme")
    assert (listed.credential_id, listed.provider, listed.name, listed.is_active) == (
        credential_id,
        "anthropic",
        "main",
        True,
    )
    assert KEY not in repr(listed)
    assert tenants.open("acme", credential_id).reveal() == KEY
    stored = central.query(
        f"SELECT * FROM {CREDENTIALS} WHERE org_slug = @org_slug", org="acme", purpose="test"
    ).to_pylist()
    assert KEY not in repr(stored)
    assert KEY.encode() not in stored[0]["encrypted_credential"]


def test_deactivated_credentials_stay_on_record_but_out_of_use(tenants: Tenants) -> None:
    tenants.add("acme", name="Acme")
    old = tenants.add_credential("acme", "anthropic", KEY)
    new = tenants.add_credential("acme", "anthropic", KEY + "-new")
    tenants.add_credential("acme", "openai", "sk-admin-x")
    tenants.deactivate("acme", old)
    tenants.deactivate("acme", old)
    assert [(c.credential_id, c.is_active, c.version) for c in tenants.credentials("acme", "anthropic")] == [
        (old, False, 2),
        (new, True, 1),
    ]
    assert [c.credential_id for c in tenants.active_credentials("acme", "anthropic")] == [new]
    opened = tenants.open_active("acme", "anthropic")
    assert {name: secret.reveal() for name, secret in opened.items()} == {new: KEY + "-new"}
    with pytest.raises(ConfigurationError, match="is deactivated"):
        tenants.open("acme", old)


def test_one_organisation_cannot_reach_anothers_credential(tenants: Tenants, central: Central) -> None:
    for slug in ("acme", "globex"):
        tenants.add(slug, name=slug)
    credential_id = tenants.add_credential("acme", "anthropic", KEY)
    with pytest.raises(NotFoundError, match="globex has no credential"):
        tenants.open("globex", credential_id)
    with pytest.raises(NotFoundError):
        tenants.deactivate("globex", credential_id)
    # Even with the row copied over in the warehouse itself.
    central.append(CREDENTIALS, [{**tenants._row("acme", credential_id), "org_slug": "globex"}])
    with pytest.raises(ConfigurationError, match="does not decrypt"):
        tenants.open("globex", credential_id)
    assert tenants.open("acme", credential_id).reveal() == KEY


def test_refused_keys_and_providers_are_not_stored(tenants: Tenants) -> None:
    tenants.add("acme", name="Acme")
    with pytest.raises(ConfigurationError, match="is an ordinary key") as refused:
        tenants.add_credential("acme", "anthropic", "sk-ant-api03-secret")
    assert "sk-ant-api03-secret" not in str(refused.value)
    with pytest.raises(NotFoundError, match="There is no provider 'anthropc'"):
        tenants.add_credential("acme", "anthropc", KEY)
    assert tenants.credentials("acme") == ()

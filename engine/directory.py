"""What every request is checked against: organisations, limits and keys, read at once and held in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.api_keys import API_KEYS, LATEST_KEY
from engine.central import Central
from engine.plans import (
    LATEST_SUBSCRIPTION,
    SUBSCRIPTIONS,
    Limits,
    Plans,
    default_subscription,
    subscription_of,
)
from engine.tenants import CREDENTIALS, LATEST_CREDENTIAL, LATEST_ORG, ORGS
from engine.vault import Sealed


@dataclass(frozen=True, slots=True)
class OrgEntry:
    """An organisation: `ACTIVE`, `SUSPENDED` or `REMOVED`, and what its plan lets it start."""

    slug: str
    status: str
    limits: Limits
    plan: str


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key as it is checked: `mac` is the keyed hash of its text, `sealed` the hash key's ciphertext."""

    org: str
    key_id: str
    mac: str
    sealed: Sealed
    scopes: frozenset[str]
    expires_at: datetime | None
    is_active: bool


@dataclass(frozen=True, slots=True)
class Directory:
    """One reading of the records, without secrets: it is sent to every replica.

    `version` is a hash of the content: equal content has an equal version. `keys` are by key id, revoked ones
    too; `credentials` are the (organisation, provider) pairs with an active credential.
    """

    version: str
    orgs: Mapping[str, OrgEntry]
    keys: Mapping[str, KeyEntry]
    credentials: frozenset[tuple[str, str]]

    @classmethod
    def of(
        cls,
        orgs: Mapping[str, OrgEntry],
        keys: Mapping[str, KeyEntry],
        credentials: frozenset[tuple[str, str]],
    ) -> Directory:
        """A directory of this content, with its version."""
        content = (
            sorted((name, repr(entry)) for name, entry in orgs.items()),
            sorted((name, _content(entry)) for name, entry in keys.items()),
            sorted(credentials),
        )
        version = hashlib.sha256(repr(content).encode()).hexdigest()
        return cls(version, dict(orgs), dict(keys), credentials)


def read_directory(central: Central, plans: Plans) -> Directory:
    """Read everything, one statement a table; organisations without a subscription have the default plan."""
    return Directory.of(_orgs(central, plans), _keys(central), _credentials(central))


def _orgs(central: Central, plans: Plans) -> dict[str, OrgEntry]:
    latest = f"SELECT * FROM {SUBSCRIPTIONS} WHERE TRUE {LATEST_SUBSCRIPTION}"
    found = central.query(latest, {}, org=None, purpose="directory-subscriptions")
    subscriptions = {row["org_slug"]: subscription_of(row) for row in found.to_pylist()}
    sql = f"SELECT org_slug, status FROM {ORGS} WHERE TRUE {LATEST_ORG}"
    entries = {}
    for row in central.query(sql, {}, org=None, purpose="directory-orgs").to_pylist():
        slug = row["org_slug"]
        has = subscriptions.get(slug) or default_subscription(slug, plans)
        entries[slug] = OrgEntry(slug, row["status"], has.limits, has.plan)
    return entries


def _keys(central: Central) -> dict[str, KeyEntry]:
    columns = (
        "org_slug, org_api_key_id, org_api_key_hash, encrypted_hash_key, wrapped_key, key_name, scopes, "
        "expires_at, is_active, created_at"
    )
    sql = f"SELECT {columns} FROM {API_KEYS} WHERE TRUE {LATEST_KEY} ORDER BY created_at, org_slug"
    entries: dict[str, KeyEntry] = {}
    for row in central.query(sql, {}, org=None, purpose="directory-keys").to_pylist():
        entry = key_entry(row)
        # A key id belongs to whoever had it first: a row copied to another organisation shadows nobody.
        entries.setdefault(entry.key_id, entry)
    return entries


def key_entry(row: Mapping[str, Any]) -> KeyEntry:
    """A row of org_api_keys as it is checked."""
    return KeyEntry(
        org=row["org_slug"],
        key_id=row["org_api_key_id"],
        mac=row["org_api_key_hash"],
        sealed=Sealed(row["encrypted_hash_key"], row["wrapped_key"], row["key_name"]),
        scopes=frozenset(row["scopes"]),
        expires_at=row["expires_at"],
        is_active=row["is_active"],
    )


def _credentials(central: Central) -> frozenset[tuple[str, str]]:
    latest = f"SELECT * FROM {CREDENTIALS} WHERE TRUE {LATEST_CREDENTIAL}"
    sql = f"SELECT DISTINCT org_slug, provider FROM ({latest}) WHERE is_active"
    rows = central.query(sql, {}, org=None, purpose="directory-credentials").to_pylist()
    return frozenset((row["org_slug"], row["provider"]) for row in rows)


def _content(key: KeyEntry) -> str:
    # A frozenset's repr has no fixed order.
    return repr((key.org, key.mac, key.sealed, sorted(key.scopes), key.expires_at, key.is_active))

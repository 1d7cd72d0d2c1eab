"""Organisations and their provider credentials: append-only rows, the highest version of a key is current."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

from engine.audit import Audit
from engine.central import Central
from engine.errors import (
    ConfigurationError,
    NotFoundError,
    StateError,
    UsageError,
)
from engine.providers import Provider
from engine.settings import Settings
from engine.validate import slug_problem
from engine.vault import Sealed, Secret, Vault

ORGS = "org_profiles"
CREDENTIALS = "org_integration_credentials"
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
#: ACTIVE; SUSPENDED: runs are refused; REMOVED: for good, with its data until `purge_after`.
Status = Literal["ACTIVE", "SUSPENDED", "REMOVED"]
# A tie (two writers at one moment, or rows that arrived twice) is broken the same way by every reader.
LATEST_ORG = (
    "QUALIFY ROW_NUMBER() OVER (PARTITION BY org_slug "
    "ORDER BY version DESC, written_at, admin_email, status DESC) = 1"
)
# Of two versions the deactivated one counts: a rotation must not bring a credential back.
LATEST_CREDENTIAL = (
    "QUALIFY ROW_NUMBER() OVER (PARTITION BY credential_id "
    "ORDER BY version DESC, is_active, written_at, key_name) = 1"
)
#: Writers that may come before us at one version of an organisation; each of them has made progress.
MAX_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Org:
    """An organisation as it now stands. `purge_after`: REMOVED, and its data still there until then."""

    slug: str
    name: str
    admin_email: str
    dataset: str
    status: str
    version: int
    created_at: datetime
    purge_after: datetime | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """A stored credential without its secret."""

    org: str
    credential_id: str
    provider: str
    name: str
    is_active: bool
    version: int
    created_at: datetime


class Tenants:
    """The organisations of this environment and what they gave to ask their providers with."""

    def __init__(
        self,
        central: Central,
        vault: Vault,
        *,
        settings: Settings,
        providers: Mapping[str, Provider],
        ensure_dataset: Callable[[str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self._central = central
        self._vault = vault
        self._settings = settings
        self._providers = providers
        self._ensure_dataset = ensure_dataset
        self._now = now
        self._new_id = new_id

    def add(self, slug: str, *, name: str, admin_email: str | None = None, audit: Audit | None = None) -> Org:
        """Add an organisation and its dataset; the same again answers the one that is there.

        Without `admin_email` the setting DEFAULT_ADMIN_EMAIL stands in. A slug whose organisation was removed
        and purged is free again. Raises UsageError for a slug or address that cannot be, and for a slug that
        another name or address already has; StateError for one that is removed but not purged.
        """
        email = admin_email or self._settings.default_admin_email
        if said := slug_problem(slug, self._settings.root):
            raise UsageError(f"{said}.", fix="Choose another slug, such as acme_corp.", field="org_slug")
        if not name.strip():
            raise UsageError("The organisation's name is empty.", fix="Give --name.", field="name")
        if email is None or not EMAIL.fullmatch(email):
            raise UsageError(
                f"{email!r} is no e-mail address." if email else "There is no admin e-mail address.",
                fix="Give --email, or set DEFAULT_ADMIN_EMAIL.",
                field="admin_email",
            )
        there = self._find(slug)
        if there is not None and there.purge_after is not None:
            raise StateError(
                f"{slug} was removed; its data is kept until {there.purge_after:%Y-%m-%d %H:%M} UTC.",
                fix="Choose another slug, or purge it then: manta org purge",
                field="org_slug",
            )
        if there is None or there.status == "REMOVED":
            # The dataset comes first: an organisation on record always has a place for its tables.
            self._ensure_dataset(slug)
            row = self._org_row(slug, name, email, version=there.version + 1 if there else 1, audit=audit)
            self._central.append(ORGS, [row])
            return self.get(slug)
        if (there.name, there.admin_email) != (name, email):
            raise UsageError(
                f"{slug} is already there, as {there.name!r} with {there.admin_email}.",
                fix="Choose another slug, or give the same name and address.",
                field="org_slug",
            )
        self._ensure_dataset(slug)
        return there

    def get(self, slug: str) -> Org:
        """The organisation; NotFoundError when there is none."""
        if (found := self._find(slug)) is None:
            raise NotFoundError(
                f"There is no organisation {slug!r}.",
                fix=f"Add it: manta org add {slug}",
                field="org_slug",
            )
        return found

    def active(self) -> tuple[Org, ...]:
        """Every active organisation, by slug."""
        return tuple(org for org in self.every() if org.status == "ACTIVE")

    def every(self) -> tuple[Org, ...]:
        """Every organisation there ever was, by slug."""
        sql = f"SELECT * FROM {ORGS} WHERE TRUE {LATEST_ORG} ORDER BY org_slug"
        return tuple(map(_org, self._central.query(sql, {}, org=None, purpose="orgs-list").to_pylist()))

    def mark(
        self, slug: str, status: Status, *, purge_after: datetime | None = None, audit: Audit | None = None
    ) -> Org:
        """Put a status on record and answer the organisation; `Life` says when this may be done.

        Raises StateError when others change the organisation all the time.
        """
        for _ in range(MAX_ROUNDS):
            now = self._now()
            sql = f"SELECT * FROM {ORGS} WHERE org_slug = @org_slug {LATEST_ORG}"
            rows = self._central.query(sql, {}, org=slug, purpose="org-get").to_pylist()
            if not rows:
                return self.get(slug)
            changed = {
                "version": rows[0]["version"] + 1,
                "status": status,
                "purge_after": purge_after,
                "written_at": now,
                "audit": audit.column() if audit else None,
            }
            self._central.append(ORGS, [{**rows[0], **changed}])
            # Of two writers at one version a reader takes one: ours must be it, or come after it.
            stands = self.get(slug)
            if (stands.status, stands.purge_after) == (status, purge_after):
                return stands
        raise StateError(f"{slug} is being changed by others.", fix="Try again.", field="org_slug")

    def add_credential(
        self, org: str, provider: str, secret: str, *, name: str = "default", audit: Audit | None = None
    ) -> str:
        """Encrypt and store a provider key, and answer its credential id.

        Raises NotFoundError for an unknown organisation or provider, StateError for a removed organisation,
        ConfigurationError for a key that the provider would refuse.
        """
        if self.get(org).status == "REMOVED":
            raise StateError(
                f"{org} was removed: it takes no credentials.", fix="Use another one.", field="org_slug"
            )
        if provider not in self._providers:
            raise NotFoundError(
                f"There is no provider {provider!r}.",
                fix=f"Use one of {', '.join(sorted(self._providers))}.",
                field="provider",
            )
        known = self._providers[provider]
        known.check_key(secret, base_url=known.address(self._settings))
        credential_id = self._new_id()
        sealed = self._vault.seal(secret, org=org, provider=provider, credential_id=credential_id)
        now = self._now()
        row = {
            "org_slug": org,
            "credential_id": credential_id,
            "version": 1,
            "provider": provider,
            "credential_name": name,
            "encrypted_credential": sealed.ciphertext,
            "wrapped_key": sealed.wrapped_key,
            "key_name": sealed.key_name,
            "is_active": True,
            "created_at": now,
            "written_at": now,
            "audit": audit.column() if audit else None,
        }
        self._central.append(CREDENTIALS, [row])
        return credential_id

    def credentials(self, org: str, provider: str | None = None) -> tuple[Credential, ...]:
        """Every credential of an organisation, deactivated ones too, oldest first; never a secret."""
        return tuple(_credential(row) for row in self._rows(org, provider=provider))

    def active_credentials(self, org: str, provider: str) -> tuple[Credential, ...]:
        """The credentials that a run for this provider covers, oldest first."""
        return tuple(found for found in self.credentials(org, provider) if found.is_active)

    def deactivate(self, org: str, credential_id: str, *, audit: Audit | None = None) -> None:
        """Take a credential out of use; again is harmless."""
        row = self._row(org, credential_id)
        if row["is_active"]:
            self._central.append(CREDENTIALS, [self._off(row, audit)])

    def deactivate_all(self, org: str, *, audit: Audit | None = None) -> int:
        """Take every credential out of use for good, in one append; answers how many there were.

        The new rows hold no ciphertext and no key any more.
        """
        emptied = {"encrypted_credential": b"", "wrapped_key": b""}
        rows = [{**self._off(row, audit), **emptied} for row in self._rows(org) if row["is_active"]]
        self._central.append(CREDENTIALS, rows)
        return len(rows)

    def open(self, org: str, credential_id: str) -> Secret:
        """Decrypt one credential. Raises ConfigurationError when it is deactivated or does not decrypt."""
        row = self._row(org, credential_id)
        if not row["is_active"]:
            raise ConfigurationError(
                f"Credential {credential_id} of {org} is deactivated.",
                fix=f"Add a new one: manta credential add {org} {row['provider']}",
            )
        return self._opened(row)

    def open_active(self, org: str, provider: str) -> dict[str, Secret]:
        """Every active credential for a provider, decrypted, by credential id: one statement for all."""
        rows = self._rows(org, provider=provider)
        return {row["credential_id"]: self._opened(row) for row in rows if row["is_active"]}

    def _off(self, row: Mapping[str, Any], audit: Audit | None) -> dict[str, Any]:
        changed = {"version": row["version"] + 1, "is_active": False, "written_at": self._now()}
        return {**row, **changed, "audit": audit.column() if audit else None}

    def _opened(self, row: Mapping[str, Any]) -> Secret:
        sealed = Sealed(row["encrypted_credential"], row["wrapped_key"], row["key_name"])
        return self._vault.open(
            sealed, org=row["org_slug"], provider=row["provider"], credential_id=row["credential_id"]
        )

    def _find(self, slug: str) -> Org | None:
        sql = f"SELECT * FROM {ORGS} WHERE org_slug = @org_slug {LATEST_ORG}"
        rows = self._central.query(sql, {}, org=slug, purpose="org-get").to_pylist()
        return _org(rows[0]) if rows else None

    def _row(self, org: str, credential_id: str) -> dict[str, Any]:
        for row in self._rows(org):
            if row["credential_id"] == credential_id:
                return row
        raise NotFoundError(
            f"{org} has no credential {credential_id!r}.",
            fix=f"List them: manta credential list {org}",
            field="credential_id",
        )

    def _rows(self, org: str, *, provider: str | None = None) -> list[dict[str, Any]]:
        sql = (
            f"SELECT * FROM {CREDENTIALS} WHERE org_slug = @org_slug "
            + ("AND provider = @provider " if provider else "")
            + f"{LATEST_CREDENTIAL} ORDER BY created_at, credential_id"
        )
        given = {"provider": provider} if provider else {}
        rows: list[dict[str, Any]] = self._central.query(
            sql, given, org=org, purpose="credentials"
        ).to_pylist()
        return rows

    def _org_row(
        self, slug: str, name: str, email: str, *, version: int = 1, audit: Audit | None = None
    ) -> dict[str, object]:
        now = self._now()
        return {
            "org_slug": slug,
            "version": version,
            "company_name": name,
            "admin_email": email,
            "org_dataset_id": self._settings.dataset(slug),
            "status": "ACTIVE",
            "created_at": now,
            "written_at": now,
            "audit": audit.column() if audit else None,
        }


def _org(row: Mapping[str, Any]) -> Org:
    return Org(
        slug=row["org_slug"],
        name=row["company_name"],
        admin_email=row["admin_email"],
        dataset=row["org_dataset_id"],
        status=row["status"],
        version=row["version"],
        created_at=row["created_at"],
        purge_after=row["purge_after"],
    )


def _credential(row: Mapping[str, Any]) -> Credential:
    return Credential(
        org=row["org_slug"],
        credential_id=row["credential_id"],
        provider=row["provider"],
        name=row["credential_name"],
        is_active=row["is_active"],
        version=row["version"],
        created_at=row["created_at"],
    )

"""API keys of organisations: shown once, kept as keyed hashes; append-only, the highest version counts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from engine.audit import Audit
from engine.central import Central
from engine.errors import NotFoundError, UsageError
from engine.vault import Sealed, Vault

API_KEYS = "org_api_keys"
#: What the vault is told in a provider's place: binds a sealed hash key to its use.
SEALED_AS = "api_key"
# Of two versions written at one moment the revoked one counts: rotation must not bring a key back.
LATEST_KEY = (
    "QUALIFY ROW_NUMBER() OVER (PARTITION BY org_slug, org_api_key_id "
    "ORDER BY version DESC, is_active, written_at DESC, key_name) = 1"
)
Scope = Literal["run", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
KEY_ID_BYTES = 6
SECRET_BYTES = 32
HASH_KEY_BYTES = 32
MAX_NAME_CHARS = 100
# All after the slug has a fixed length: a slug that holds `_api_` itself cannot shift the parts.
_TEXT = re.compile(r"([a-z][a-z0-9_]{2,49})_api_([0-9a-f]{12})[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it now stands, without anything that would authenticate."""

    org: str
    key_id: str
    name: str
    scopes: tuple[str, ...]
    is_active: bool
    expires_at: datetime | None
    version: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class KeyName:
    """What a key's text says of itself, before any of it is believed."""

    org: str
    key_id: str


def read_key_text(text: str) -> KeyName | None:
    """Organisation and key id named in a key's text; None when it is no key."""
    match = _TEXT.fullmatch(text)
    return KeyName(match[1], match[2]) if match else None


def mac_of(text: str, hash_key: bytes) -> str:
    """The keyed hash of a key's text, in hex."""
    return hmac.new(hash_key, text.encode(), hashlib.sha256).hexdigest()


def seal_hash_key(vault: Vault, hash_key: bytes, *, org: str, key_id: str) -> Sealed:
    """Encrypt a hash key so that it opens only for this organisation and key id."""
    return vault.seal(hash_key.hex(), org=org, provider=SEALED_AS, credential_id=key_id)


def open_hash_key(vault: Vault, sealed: Sealed, *, org: str, key_id: str) -> bytes:
    """Decrypt a hash key. Raises ConfigurationError and TransientError as `Vault.open` does."""
    return bytes.fromhex(vault.open(sealed, org=org, provider=SEALED_AS, credential_id=key_id).reveal())


class ApiKeys:
    """The API keys on record; `random` gives that many random bytes."""

    def __init__(
        self,
        central: Central,
        vault: Vault,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._central = central
        self._vault = vault
        self._now = now
        self._random = random

    def add(
        self,
        org: str,
        *,
        name: str,
        scopes: Iterable[str],
        expires_at: datetime | None = None,
        audit: Audit | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key for an organisation that exists; answers it and its text, which is kept nowhere.

        An `audit` without a resource_id gets the key's id, here and in the other methods.
        Raises UsageError for an empty name, no or an unknown scope, and an expiry that has passed.
        """
        now = self._now()
        granted = _granted(scopes)
        _check_name(name)
        _check_expiry(expires_at, now)
        key_id = self._random(KEY_ID_BYTES).hex()
        secret = base64.urlsafe_b64encode(self._random(SECRET_BYTES)).rstrip(b"=").decode()
        text = f"{org}_api_{key_id}{secret}"
        if read_key_text(text) != KeyName(org, key_id):
            raise UsageError(f"{org!r} is no organisation's slug.", fix="Give a slug.", field="org_slug")
        hash_key = self._random(HASH_KEY_BYTES)
        sealed = seal_hash_key(self._vault, hash_key, org=org, key_id=key_id)
        row: dict[str, Any] = {
            "org_slug": org,
            "org_api_key_id": key_id,
            "version": 1,
            "name": name.strip(),
            "org_api_key_hash": mac_of(text, hash_key),
            "encrypted_hash_key": sealed.ciphertext,
            "wrapped_key": sealed.wrapped_key,
            "key_name": sealed.key_name,
            "scopes": [*granted],
            "is_active": True,
            "expires_at": expires_at,
            "created_at": now,
            "written_at": now,
            "audit": _column(audit, key_id),
        }
        self._central.append(API_KEYS, [row])
        return _api_key(row), text

    def list(self, org: str) -> tuple[ApiKey, ...]:
        """Every key of an organisation, revoked and expired ones too, oldest first."""
        return tuple(map(_api_key, self._rows(org)))

    def revoke(self, org: str, key_id: str, *, audit: Audit | None = None) -> ApiKey:
        """Take a key out of use for good; again is harmless. NotFoundError when the organisation lacks it."""
        for row in self._rows(org):
            if row["org_api_key_id"] == key_id:
                return self._revoked([row], audit)[0] if row["is_active"] else _api_key(row)
        raise NotFoundError(
            f"{org} has no API key {key_id!r}.", fix=f"List them: manta key list {org}", field="key_id"
        )

    def revoke_all(self, org: str, *, audit: Audit | None = None) -> int:
        """Take every key of an organisation out of use, in one append; answers how many there were."""
        return len(self._revoked([row for row in self._rows(org) if row["is_active"]], audit))

    def _revoked(self, rows: Iterable[Mapping[str, Any]], audit: Audit | None) -> tuple[ApiKey, ...]:
        now = self._now()
        changed = [
            {
                **row,
                "version": row["version"] + 1,
                "is_active": False,
                "written_at": now,
                "audit": _column(audit, row["org_api_key_id"]),
            }
            for row in rows
        ]
        self._central.append(API_KEYS, changed)
        return tuple(map(_api_key, changed))

    def _rows(self, org: str) -> tuple[dict[str, Any], ...]:
        sql = (
            f"SELECT * FROM {API_KEYS} WHERE org_slug = @org_slug "
            f"{LATEST_KEY} ORDER BY created_at, org_api_key_id"
        )
        return tuple(self._central.query(sql, {}, org=org, purpose="api-keys").to_pylist())


def _granted(scopes: Iterable[str]) -> tuple[Scope, ...]:
    asked = set(scopes)
    if unknown := sorted(asked.difference(SCOPES)):
        raise UsageError(
            f"There is no scope {unknown[0]!r}.", fix=f"Use some of {', '.join(SCOPES)}.", field="scopes"
        )
    if not asked:
        raise UsageError(
            "A key without a scope can do nothing.", fix=f"Give some of {', '.join(SCOPES)}.", field="scopes"
        )
    return tuple(scope for scope in SCOPES if scope in asked)


def _check_name(name: str) -> None:
    if not name.strip() or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise UsageError(
            "The key's name is empty, too long or not printable.",
            fix=f"Name it in 1 to {MAX_NAME_CHARS} characters, for example by who uses it.",
            field="name",
        )


def _check_expiry(expires_at: datetime | None, now: datetime) -> None:
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= now):
        raise UsageError(
            f"The expiry {expires_at.isoformat()} has passed, or has no time zone.",
            fix="Give a moment in the future with its offset, such as 2027-01-31T00:00:00Z.",
            field="expires_at",
        )


def _column(audit: Audit | None, key_id: str) -> str | None:
    # Whoever asks for a new key cannot name it yet.
    return replace(audit, resource_id=audit.resource_id or key_id).column() if audit else None


def _api_key(row: Mapping[str, Any]) -> ApiKey:
    return ApiKey(
        org=row["org_slug"],
        key_id=row["org_api_key_id"],
        name=row["name"],
        scopes=tuple(row["scopes"]),
        is_active=row["is_active"],
        expires_at=row["expires_at"],
        version=row["version"],
        created_at=row["created_at"],
    )

"""Who asks, and what they may: keys are checked against the directory, without a warehouse query."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from engine.api_keys import SCOPES, Scope, mac_of, open_hash_key, read_key_text
from engine.directory import Directory, KeyEntry
from engine.errors import AuthenticationError, ConfigurationError, ForbiddenError, InternalError
from engine.vault import Vault

ROOT_HASH = re.compile(r"sha256\$[0-9a-f]{32}\$[0-9a-f]{64}")
SALT_BYTES = 16
#: Opened hash keys kept in memory: about 300 bytes each.
MAX_HASH_KEYS = 10_000
#: The statuses in which an organisation's own keys may do anything at all.
OPEN_STATUSES = ("ACTIVE", "SUSPENDED")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a key stands for."""

    kind: Literal["org", "root"]
    org: str | None
    key_id: str | None
    scopes: frozenset[str]

    @property
    def actor(self) -> str:
        """The caller's name in audits and run records."""
        return "root" if self.kind == "root" else f"key:{self.key_id}"


class Authenticator:
    """Tells callers by their keys; safe to share between threads, and never to be pickled: it holds keys.

    `root_hashes` come from `hash_root_key`, one for each valid root key. Raises ConfigurationError when one
    is no such hash.
    """

    def __init__(
        self,
        vault: Vault,
        root_hashes: Sequence[str],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        max_hash_keys: int = MAX_HASH_KEYS,
    ) -> None:
        if not all(map(ROOT_HASH.fullmatch, root_hashes)):
            raise ConfigurationError("A root key's hash is malformed.", fix="Make it with hash_root_key.")
        self._vault = vault
        self._root_hashes = tuple(root_hashes)
        self._now = now
        self._max_hash_keys = max_hash_keys
        self._hash_keys: OrderedDict[tuple[str, str, str], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def org(self, key_text: str, directory: Directory) -> Caller:
        """The caller behind an organisation's key.

        The first check of a key asks the vault, which may be Cloud KMS: up to its timeout, so not on an event
        loop. Raises AuthenticationError (the same for a malformed, unknown and revoked key), TransientError
        when the vault is away, InternalError when it cannot open what is on record.
        """
        entry = _entry(key_text, directory)
        if entry is None or not entry.is_active:
            raise _refused()
        if not hmac.compare_digest(mac_of(key_text, self._hash_key(entry)), entry.mac):
            raise _refused()
        if entry.expires_at is not None and entry.expires_at <= self._now():
            raise AuthenticationError(
                f"The API key expired at {entry.expires_at.isoformat()}.",
                fix="Ask for a new key: manta key add.",
                field="X-API-Key",
            )
        return Caller("org", entry.org, entry.key_id, entry.scopes)

    def knows(self, key_text: str, directory: Directory) -> bool:
        """Whether the directory holds the key that a text names; says nothing of its secret."""
        return _entry(key_text, directory) is not None

    def root(self, key_text: str) -> Caller:
        """The caller behind a root key. Raises AuthenticationError."""
        # Every hash is compared, also after a match: the time taken tells nothing.
        matches = [
            hmac.compare_digest(hash_root_key(key_text, salt=bytes.fromhex(kept.split("$")[1])), kept)
            for kept in self._root_hashes
        ]
        if not any(matches):
            raise AuthenticationError(
                "The root key is not valid.", fix="Send a valid one in X-CA-Root-Key.", field="X-CA-Root-Key"
            )
        return Caller("root", None, None, frozenset(SCOPES))

    def _hash_key(self, entry: KeyEntry) -> bytes:
        name = (entry.org, entry.key_id, entry.mac)
        with self._lock:
            if (kept := self._hash_keys.get(name)) is not None:
                self._hash_keys.move_to_end(name)
                return kept
        try:
            opened = open_hash_key(self._vault, entry.sealed, org=entry.org, key_id=entry.key_id)
        except (ConfigurationError, ValueError) as error:
            # The operator's fault, not the caller's; the cause names files and keys, so it stays inside.
            raise InternalError(
                "The API key cannot be checked.",
                fix="The operator sees why in the log: the master key, or a row that was altered.",
            ) from error
        with self._lock:
            self._hash_keys[name] = opened
            while len(self._hash_keys) > self._max_hash_keys:
                self._hash_keys.popitem(last=False)
        return opened


def hash_root_key(key: str, *, salt: bytes | None = None) -> str:
    """A root key as processes keep and pass it on: `sha256$salt$hex`.

    One round suffices: the key is random and long, so it cannot be guessed from its hash.
    """
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    digest = hashlib.sha256(salt + key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"sha256${salt.hex()}${digest}"


def require(caller: Caller, org: str, scope: Scope, directory: Directory) -> None:
    """Let the caller pass, or raise ForbiddenError; root may do everything.

    Refused are another organisation's key, a missing scope (admin includes run and read), a run for a
    suspended organisation, and anything for a removed one.
    """
    if caller.kind == "root":
        return
    entry = directory.orgs.get(org) if caller.org == org else None
    # One answer for others' organisations and for none: it must not tell which exist.
    if entry is None:
        raise ForbiddenError(
            f"This key is not one of {org}'s.", fix="Use a key of that organisation.", field="org_slug"
        )
    if entry.status not in OPEN_STATUSES:
        raise ForbiddenError(f"{org} has been removed.", fix="Ask the operator.", field="org_slug")
    if not {scope, "admin"} & caller.scopes:
        raise ForbiddenError(
            f"This key lacks the scope {scope}.",
            fix=f"Use a key with it: manta key add {org} --scope {scope}",
            field="X-API-Key",
        )
    if scope == "run" and entry.status != "ACTIVE":
        raise ForbiddenError(
            f"{org} is suspended: it starts no runs.", fix="Ask the operator to resume it.", field="org_slug"
        )


def _entry(key_text: str, directory: Directory) -> KeyEntry | None:
    named = read_key_text(key_text)
    entry = directory.keys.get(named.key_id) if named else None
    return entry if entry and named and entry.org == named.org else None


def _refused() -> AuthenticationError:
    return AuthenticationError(
        "The API key is not valid.", fix="Send a valid key in X-API-Key.", field="X-API-Key"
    )

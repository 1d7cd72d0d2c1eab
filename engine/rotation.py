"""Rotation: what is sealed goes under a new master key or new data keys, as new versions of its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import batched
from typing import Any, Literal

from engine.audit import Audit
from engine.central import Central
from engine.errors import ConfigurationError, InternalError
from engine.tenants import LATEST_ORG, ORGS
from engine.vault import Sealed, Vault

What = Literal["master", "data"]
#: Rows sealed before they are appended together: a kill loses that much work and nothing else.
BATCH = 50


@dataclass(frozen=True, slots=True)
class Place:
    """A table that holds sealed things: its id, its ciphertext, and whose they are when no column says."""

    table: str
    resource: str
    id_column: str
    ciphertext_column: str
    provider: str | None = None

    def key(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Organisation and id."""
        return row["org_slug"], row[self.id_column]

    def owner(self, row: Mapping[str, Any]) -> dict[str, str]:
        """What the row's secret is bound to."""
        provider = self.provider or row["provider"]
        return {"org": row["org_slug"], "provider": provider, "credential_id": row[self.id_column]}

    def sealed(self, row: Mapping[str, Any]) -> Sealed:
        """The row's secret, closed."""
        return Sealed(row[self.ciphertext_column], row["wrapped_key"], row["key_name"])


CREDENTIALS = Place("org_integration_credentials", "credential", "credential_id", "encrypted_credential")
API_KEYS = Place("org_api_keys", "api_key", "org_api_key_id", "encrypted_hash_key", provider="api_key")
PLACES = (CREDENTIALS, API_KEYS)


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that stays as it is, and why."""

    org: str
    table: str
    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did, or would do: rows sealed anew by table, rows that would not open.

    `left` counts rows that were changed by somebody else meanwhile, or that Cloud KMS wrapped with the former
    version once more: the next rotation takes them.
    """

    what: What
    master_key: str | None
    dry_run: bool
    sealed: Mapping[str, int]
    refused: tuple[Refused, ...] = ()
    left: int = 0


@dataclass(frozen=True, slots=True)
class Holding:
    """How many rows in use a master key holds, by table; `current` seals, `at_hand` opens."""

    key_name: str
    rows: Mapping[str, int]
    current: bool
    at_hand: bool


def standing(central: Central) -> tuple[str, ...]:
    """Every organisation that was not removed, suspended ones too, by slug."""
    sql = f"SELECT org_slug, status FROM {ORGS} WHERE TRUE {LATEST_ORG}"
    rows = central.query(sql, org=None, purpose="vault-orgs").to_pylist()
    return tuple(sorted(row["org_slug"] for row in rows if row["status"] != "REMOVED"))


def survey(central: Central, vault: Vault) -> tuple[Holding, ...]:
    """Every master key that a row in use names, and the current one, which is first."""
    counts: dict[str, Counter[str]] = {}
    current, orgs = vault.master_key(), frozenset(standing(central))
    for place in PLACES:
        for row in _in_use(_latest(central, place), place, current):
            if row["org_slug"] in orgs:
                counts.setdefault(row["key_name"], Counter())[place.table] += 1
    names = sorted(
        counts.keys() | ({current} if current else set()), key=lambda name: (name != current, name)
    )
    return tuple(
        Holding(name, dict(counts.get(name, {})), name == current, _at_hand(vault, name)) for name in names
    )


def rotate(
    central: Central,
    vault: Vault,
    *,
    what: What,
    orgs: Collection[str],
    now: Callable[[], datetime],
    audit_of: Callable[[str, str, str], Audit | None] = lambda org, resource, resource_id: None,
    new_master: bool = False,
    dry_run: bool = False,
    batch: int = BATCH,
) -> Rotation:
    """Seal anew what these organisations have in use.

    `master` wraps each data key under the current master key, where another one holds it; `data` encrypts
    everything under new data keys. `new_master` makes a new master key first (a key file only). Each row is
    opened before it is appended. Killed, it is run again: without `new_master`, which would make one more.
    `audit_of` is given organisation, resource type and id. Raises TransientError while Cloud KMS or the
    warehouse is away.
    """
    fresh = new_master and not dry_run
    master_key = vault.renew_master_key() if fresh else vault.master_key()
    done: Counter[str] = Counter()
    refused: list[Refused] = []
    left = 0
    for place in PLACES:
        rows = [row for row in _in_use(_latest(central, place), place, master_key) if row["org_slug"] in orgs]
        if what == "master" and not (new_master and dry_run):
            rows = [row for row in rows if row["key_name"] != master_key]
        for some in batched(rows, batch, strict=False):
            sealed = list(_sealed(vault, place, some, what, refused))
            kept = [row for row in sealed if what == "data" or row["key_name"] == master_key or dry_run]
            appended = len(kept) if dry_run else _append(central, place, kept, now=now(), audit_of=audit_of)
            done[place.table] += appended
            left += len(sealed) - appended
    return Rotation(what, master_key, dry_run, dict(done), tuple(refused), left)


def _sealed(
    vault: Vault, place: Place, rows: Sequence[Mapping[str, Any]], what: What, refused: list[Refused]
) -> Iterator[dict[str, Any]]:
    """The rows under their new keys, each opened once more; what does not open goes to `refused`."""
    for row in rows:
        owner, former = place.owner(row), place.sealed(row)
        try:
            secret = vault.open(former, **owner)
            anew = vault.seal(secret.reveal(), **owner) if what == "data" else vault.rewrap(former, **owner)
            same = vault.open(anew, **owner).reveal() == secret.reveal()
        except ConfigurationError as error:
            refused.append(Refused(row["org_slug"], place.table, row[place.id_column], error.message))
            continue
        if not same:
            raise InternalError(
                f"{place.table} {row[place.id_column]} opened to something else once it was sealed anew.",
                fix="Nothing was written for it; report this.",
            )
        parts = {
            place.ciphertext_column: anew.ciphertext,
            "wrapped_key": anew.wrapped_key,
            "key_name": anew.key_name,
        }
        yield {**row, **parts}


def _append(
    central: Central,
    place: Place,
    rows: Sequence[Mapping[str, Any]],
    *,
    now: datetime,
    audit_of: Callable[[str, str, str], Audit | None],
) -> int:
    """Append the next versions of rows that still are as they were read, and answer how many there were."""
    # Sealing takes a while with Cloud KMS: who was changed or removed meanwhile is left out.
    orgs = set(standing(central))
    found = {place.key(row): row["version"] for row in _in_use(_latest(central, place, rows), place, None)}
    mine = [
        _next(place, row, now, audit_of)
        for row in rows
        if row["org_slug"] in orgs and found.get(place.key(row)) == row["version"]
    ]
    # Who takes one out of use from here on ties with our version at worst, and every reader lets that win.
    central.append(place.table, mine)
    return len(mine)


def _next(
    place: Place,
    row: Mapping[str, Any],
    now: datetime,
    audit_of: Callable[[str, str, str], Audit | None],
) -> dict[str, Any]:
    audit = audit_of(row["org_slug"], place.resource, row[place.id_column])
    changed = {"version": row["version"] + 1, "written_at": now}
    return {**row, **changed, "audit": audit.column() if audit else None}


def _latest(
    central: Central, place: Place, only: Sequence[Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Every row of the highest version of its id, ties too; with `only`, of these rows' ids."""
    where = f"{place.id_column} IN UNNEST(@ids)" if only is not None else "TRUE"
    if only is not None and not only:
        return []
    given = {"ids": [row[place.id_column] for row in only]} if only is not None else {}
    sql = (
        f"SELECT * FROM {place.table} WHERE {where} QUALIFY RANK() OVER "
        f"(PARTITION BY org_slug, {place.id_column} ORDER BY version DESC) = 1 "
        f"ORDER BY org_slug, {place.id_column}, written_at, key_name"
    )
    rows: list[dict[str, Any]] = central.query(sql, given, org=None, purpose="vault-rows").to_pylist()
    return rows


def _in_use(rows: Sequence[dict[str, Any]], place: Place, current: str | None) -> Iterator[dict[str, Any]]:
    """One row an id, without what is off: nothing opens that any more, so it stays under its former key.

    Of two rows of one version, two rotations at once, the one that is not under `current` counts: a reader
    may choose it.
    """
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: bool(row["key_name"] == current)):
        first.setdefault(place.key(row), row)
    off = {place.key(row) for row in rows if not row["is_active"]}
    return (row for key, row in sorted(first.items()) if key not in off)


def _at_hand(vault: Vault, key_name: str) -> bool:
    try:
        return vault.has_master_key(key_name)
    except ConfigurationError:
        return False

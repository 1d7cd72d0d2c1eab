"""API keys and the directory they are checked against, without a warehouse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from engine.api_keys import ApiKeys
from engine.central import Central
from engine.directory import Directory, KeyEntry, OrgEntry, key_entry
from engine.plans import Limits
from engine.vault import Vault

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LIMITS = Limits(daily=100, monthly=3000, concurrent=5)


class Records:
    """Takes what is appended."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def append(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        assert table == "org_api_keys"
        self.rows += map(dict, rows)


def make_key(
    vault: Vault,
    org: str,
    *,
    scopes: Iterable[str] = ("run", "read"),
    expires_at: datetime | None = None,
    now: datetime = NOW,
) -> tuple[KeyEntry, str]:
    """A key as the directory would hold it, and its text."""
    records = Records()
    keys = ApiKeys(cast(Central, records), vault, now=lambda: now)
    _, text = keys.add(org, name="test", scopes=scopes, expires_at=expires_at)
    return key_entry(records.rows[0]), text


def directory_of(*keys: KeyEntry, **statuses: str) -> Directory:
    """These keys, and their organisations with the given status; ACTIVE without one."""
    slugs = {key.org for key in keys} | set(statuses)
    orgs = {slug: OrgEntry(slug, statuses.get(slug, "ACTIVE"), LIMITS, "SCALE") for slug in slugs}
    return Directory.of(orgs, {key.key_id: key for key in keys}, frozenset())

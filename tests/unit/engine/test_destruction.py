"""Destroying keys where BigQuery does not let every row go yet: what settled goes, the rest is PENDING."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pyarrow as pa
import pytest

from engine.central import Central
from engine.destruction import SEALED, SETTLED_AFTER, destroy_keys
from engine.errors import ConfigurationError

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
REFUSED = (
    "Query keys-destroy: UPDATE or DELETE statement over table p.d.t would affect rows in the "
    "streaming buffer, which is not supported"
)


class Buffering:
    """Rows by table and age, of which the young ones are in BigQuery's streaming buffer."""

    def __init__(self, ages: Mapping[str, list[timedelta]], *, refuses: str = REFUSED) -> None:
        self.rows = {table: [NOW - age for age in ages.get(table, [])] for table in SEALED}
        self.refuses = refuses

    def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, *, org: str, purpose: str
    ) -> pa.Table:
        (table,) = [name for name in SEALED if f" {name} " in sql or sql.startswith(f"UPDATE {name} ")]
        assert "org_slug = @org_slug" in sql
        if purpose == "keys-pending":
            return pa.table({"found": [len(self.rows[table])]})
        before = (parameters or {}).get("before", NOW + timedelta(days=1))
        assert ("@before" in sql) == bool(parameters)
        affected = [at for at in self.rows[table] if at < before]
        if any(at > NOW - timedelta(minutes=30) for at in affected):
            raise ConfigurationError(self.refuses)
        self.rows[table] = [at for at in self.rows[table] if at not in affected]
        return pa.table({})


def destroy(warehouse: Buffering, now: datetime = NOW) -> int:
    return destroy_keys(cast("Central", warehouse), "acme", now=now)


def test_settled_rows_all_go() -> None:
    day = timedelta(days=1)
    assert destroy(Buffering({"org_api_keys": [day, day], "org_integration_credentials": [day]})) == 0


def test_young_rows_are_pending_and_the_others_go_nonetheless() -> None:
    ages = [timedelta(days=1), SETTLED_AFTER + timedelta(minutes=1), timedelta(minutes=5)]
    warehouse = Buffering({"org_api_keys": ages, "org_integration_credentials": ages[:2]})
    assert destroy(warehouse) == 1
    assert warehouse.rows == {
        "org_api_keys": [NOW - timedelta(minutes=5)],
        "org_integration_credentials": [],
    }


def test_another_refusal_is_no_pending_row() -> None:
    warehouse = Buffering({"org_api_keys": [timedelta(minutes=5)]}, refuses="Access Denied")
    with pytest.raises(ConfigurationError, match="Access Denied"):
        destroy(warehouse)

"""A removed organisation's secrets become unreadable: their wrapped data keys are overwritten."""

from __future__ import annotations

from datetime import datetime, timedelta

from engine.central import Central
from engine.errors import ConfigurationError

#: Tables with sealed secrets, and the columns that hold them.
SEALED = {
    "org_integration_credentials": ("wrapped_key", "encrypted_credential"),
    "org_api_keys": ("wrapped_key", "encrypted_hash_key"),
}
#: BigQuery refuses to change rows that were appended within the last 30 minutes or so, and says it so.
BUFFERED = "streaming buffer"
SETTLED_AFTER = timedelta(minutes=90)


def destroy_keys(central: Central, org: str, *, now: datetime) -> int:
    """Empty every sealed secret of the organisation and answer how many rows are PENDING.

    Those are rows that BigQuery does not let go yet; the same call later finishes them. Again is harmless.
    """
    for table in SEALED:
        try:
            _empty(central, table, org)
        except ConfigurationError as error:
            if BUFFERED not in error.message:
                raise
            try:
                _empty(central, table, org, before=now - SETTLED_AFTER)
            except ConfigurationError as again:
                if BUFFERED not in again.message:
                    raise
    return pending(central, org)


def pending(central: Central, org: str) -> int:
    """How many rows of the organisation still hold a data key."""
    return sum(
        central.query(
            f"SELECT COUNT(*) AS found FROM {table} WHERE org_slug = @org_slug AND LENGTH(wrapped_key) > 0",
            org=org,
            purpose="keys-pending",
        ).to_pylist()[0]["found"]
        for table in SEALED
    )


def _empty(central: Central, table: str, org: str, *, before: datetime | None = None) -> None:
    emptied = ", ".join(f"{column} = b''" for column in SEALED[table])
    settled = " AND written_at < @before" if before else ""
    # All versions: an older one opens the secret as well as the current one.
    central.query(
        f"UPDATE {table} SET {emptied}, is_active = FALSE "
        f"WHERE org_slug = @org_slug AND LENGTH(wrapped_key) > 0{settled}",
        {"before": before} if before else {},
        org=org,
        purpose="keys-destroy",
    )

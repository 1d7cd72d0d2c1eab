"""The life of an organisation after it was added: suspended, resumed, removed, and at last purged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from engine.api_keys import ApiKeys
from engine.artifacts import Artifacts
from engine.audit import Audit
from engine.central import Central
from engine.destruction import destroy_keys, pending
from engine.errors import NotFoundError, StateError, UsageError
from engine.export import Exported, export, tables
from engine.history import RunHistory
from engine.ledger import Ledger
from engine.tenants import Org, Tenants
from engine.warehouse import Warehouse

GRACE_DAYS = 30
MOST_GRACE_DAYS = 3650


@dataclass(frozen=True, slots=True)
class Removal:
    """What goes, or went: `pending` rows still hold a data key until a purge may overwrite them."""

    org: str
    status: str
    dataset: str
    purge_after: datetime
    keys: int
    credentials: int
    tables: tuple[str, ...]
    runs: tuple[str, ...]
    pending: int


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge did for one organisation; `waits_for` says what it could not finish yet."""

    org: str
    dataset: str
    due: bool
    dropped: bool
    pending: int
    waits_for: str | None = None


class Life:
    """Decides what an organisation may become; every step of a removal can be made again after a crash."""

    def __init__(
        self,
        tenants: Tenants,
        keys: ApiKeys,
        central: Central,
        *,
        history: RunHistory,
        ledger: Ledger,
        artifacts: Artifacts,
        warehouse_of: Callable[[str], Warehouse],
        end_plan: Callable[[str], object] = lambda org: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tenants = tenants
        self._keys = keys
        self._central = central
        self._history = history
        self._ledger = ledger
        self._artifacts = artifacts
        self._warehouse_of = warehouse_of
        self._end_plan = end_plan
        self._now = now

    def suspend(self, org: str, audit: Audit | None = None) -> Org:
        """Refuse new runs until it is resumed; what runs is finished. Again changes nothing.

        Raises NotFoundError, and StateError for a removed organisation.
        """
        return self._turn(org, "SUSPENDED", audit)

    def resume(self, org: str, audit: Audit | None = None) -> Org:
        """Take runs again. Raises NotFoundError, and StateError for a removed organisation."""
        return self._turn(org, "ACTIVE", audit)

    def plan_removal(self, org: str, *, grace_days: int = GRACE_DAYS) -> Removal:
        """Say what `remove` would do; changes nothing. Raises as `remove` does."""
        there, until = self._removable(org, grace_days)
        return Removal(
            org=org,
            status=there.status,
            dataset=there.dataset,
            purge_after=until,
            keys=sum(one.is_active for one in self._keys.list(org)),
            credentials=sum(one.is_active for one in self._tenants.credentials(org)),
            tables=tables(self._warehouse_of(org)),
            runs=self.active_runs(org),
            pending=pending(self._central, org),
        )

    def remove(
        self,
        org: str,
        *,
        grace_days: int = GRACE_DAYS,
        audit: Audit | None = None,
        cancel: Callable[[str], object] = lambda run_id: None,
    ) -> Removal:
        """Remove an organisation for good; its dataset is kept for `grace_days` days, then `purge` drops it.

        `cancel` is called with the id of each active run. Again finishes what an earlier call left.
        Raises NotFoundError, UsageError for an impossible grace period, StateError when it is purged.
        """
        there, until = self._removable(org, grace_days)
        if there.status != "REMOVED":
            # First of all: from here on no run is accepted, so that the runs found below are the last ones.
            there = self._tenants.mark(org, "REMOVED", purge_after=until, audit=audit)
        keys = self._keys.revoke_all(org, audit=_as(audit, "key.revoke", "api_key"))
        # Before the runs are cancelled: a unit that starts meanwhile finds nothing to ask its provider with,
        # and a cluster that does not answer keeps nothing alive but what it runs.
        credentials = self._tenants.deactivate_all(org, audit=_as(audit, "credential.off", "credential"))
        left = destroy_keys(self._central, org, now=self._now())
        runs = self.active_runs(org)
        for run_id in runs:
            # Ended meanwhile.
            with suppress(StateError, NotFoundError):
                cancel(run_id)
        return Removal(
            org=org,
            status=there.status,
            dataset=there.dataset,
            purge_after=until,
            keys=keys,
            credentials=credentials,
            tables=tables(self._warehouse_of(org)),
            runs=runs,
            pending=left,
        )

    def active_runs(self, org: str) -> tuple[str, ...]:
        """The ids of the organisation's runs that have not ended, in the order they were accepted."""
        return tuple(run.id for run in self._history.active() if run.request.org == org)

    def export(self, org: str, folder: Path) -> tuple[Exported, ...]:
        """Write every table of the organisation to Parquet files in `folder`, which is made.

        Raises NotFoundError, ConfigurationError for a folder that cannot be written.
        """
        self._tenants.get(org)
        return export(self._warehouse_of(org), folder)

    def removed(self) -> tuple[Org, ...]:
        """Organisations that are removed but not purged, by slug."""
        return tuple(org for org in self._tenants.every() if org.purge_after is not None)

    def purge(
        self,
        *,
        now: datetime,
        only: str | None = None,
        audit_of: Callable[[str], Audit | None] = lambda org: None,
        dry_run: bool = False,
    ) -> list[Purged]:
        """Finish removed organisations, or `only` one: their data keys always, their data when it is time.

        One that still has a run is left for the next time, so that nothing is written into what is dropped.
        """
        return [
            self._purge(org, now, audit_of(org.slug), dry_run=dry_run)
            for org in self.removed()
            if only in (None, org.slug)
        ]

    def _purge(self, org: Org, now: datetime, audit: Audit | None, *, dry_run: bool) -> Purged:
        due = org.purge_after is not None and org.purge_after <= now
        count = pending(self._central, org.slug) if dry_run else self._destroy(org.slug, now)
        done = Purged(org.slug, org.dataset, due=due, dropped=False, pending=count)
        if not due:
            return replace(done, waits_for=f"its grace period, until {org.purge_after:%Y-%m-%d %H:%M} UTC")
        if runs := self.active_runs(org.slug):
            return replace(done, waits_for=f"run {runs[0]} to end")
        if dry_run:
            return done
        self._drop(org)
        # A later organisation of that slug begins with the default plan, not with this one's limits.
        self._end_plan(org.slug)
        if count:
            return replace(done, dropped=True, waits_for="data keys that BigQuery does not let go yet")
        self._tenants.mark(org.slug, "REMOVED", purge_after=None, audit=audit)
        return replace(done, dropped=True)

    def _destroy(self, org: str, now: datetime) -> int:
        # What came in beside the removal: a key or a rotation by somebody who had read the status before.
        self._keys.revoke_all(org)
        self._tenants.deactivate_all(org)
        return destroy_keys(self._central, org, now=now)

    def _drop(self, org: Org) -> None:
        self._warehouse_of(org.slug).drop_dataset()
        # The ledger goes on counting: a later organisation of that slug must not reuse a job's id, nor find
        # days that are said to be there.
        self._ledger.empty(org.slug, org.dataset, run_id="org.purge", now=self._now())
        self._artifacts.remove(org.dataset)

    def _turn(self, org: str, status: str, audit: Audit | None) -> Org:
        there = self._tenants.get(org)
        if there.status == "REMOVED":
            raise StateError(
                f"{org} was removed: its keys are gone.",
                fix="Add it again once it is purged: manta org purge",
                field="org_slug",
            )
        if there.status == status:
            return there
        return self._tenants.mark(org, "SUSPENDED" if status == "SUSPENDED" else "ACTIVE", audit=audit)

    def _removable(self, org: str, grace_days: int) -> tuple[Org, datetime]:
        if not 0 <= grace_days <= MOST_GRACE_DAYS:
            raise UsageError(
                f"A grace period of {grace_days} days cannot be.",
                fix=f"Give 0 to {MOST_GRACE_DAYS} days.",
                field="grace_days",
            )
        there = self._tenants.get(org)
        if there.status != "REMOVED":
            return there, self._now() + timedelta(days=grace_days)
        if there.purge_after is None:
            raise StateError(f"{org} is removed and purged.", fix="There is nothing left.", field="org_slug")
        return there, there.purge_after


def _as(audit: Audit | None, action: str, resource_type: str) -> Audit | None:
    """The same request, as the trail of one kind of thing names what it did there."""
    if audit is None:
        return None
    return replace(audit, action=action, resource_type=resource_type, resource_id=None)

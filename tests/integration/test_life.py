"""The life of an organisation on the embedded BigQuery: suspended, removed, exported, purged, added again."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.api_keys import ApiKeys
from engine.artifacts import Artifacts
from engine.audit import Audit
from engine.audit_log import read
from engine.catalog import read_catalog
from engine.central import Central
from engine.clients import Clients
from engine.errors import ConfigurationError, NotFoundError, StateError, UsageError
from engine.history import RunHistory
from engine.key_file import FileKeyWrapper
from engine.ledger import Ledger
from engine.life import Life, Purged
from engine.publish import publish
from engine.runs import Run
from engine.schemas import Schema
from engine.settings import Settings
from engine.tenants import Tenants
from engine.types import Partition, RunRequest, Unit
from engine.vault import Vault
from engine.warehouse import Warehouse

CHECKOUT = Path(__file__).resolve().parents[2]
START = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = "sk-ant-admin01-the-secret"
LIMIT = 2**30
DAYS = (date(2026, 11, 20), date(2026, 11, 21))
COSTS = Schema.model_validate(
    {
        "table": "made_cost_daily",
        "scope": "tenant",
        "description": "Costs of a provider that these tests made up.",
        "partition": "usage_date",
        "key": ["usage_date"],
        "columns": [
            {"name": "usage_date", "type": "DATE", "mode": "REQUIRED", "description": "Day."},
            {"name": "total_cost", "type": "NUMERIC", "mode": "REQUIRED", "description": "Sum."},
        ],
    }
)
EMPTY = COSTS.model_copy(update={"table": "nothing_daily"})


class World:
    """An organisation with the parts of an installation; its clock stands until a test moves it."""

    def __init__(self, clients: Clients, central: Central, org: str, folder: Path) -> None:
        self.org = org
        self.central = central
        self.now = START
        self.folder = folder
        self.clients = clients
        environ = {
            "MANTA_HOME": str(folder),
            "DEFAULT_ADMIN_EMAIL": "ops@acme.example",
        }
        self.settings = Settings.load(environ, root=CHECKOUT)
        catalog = read_catalog(CHECKOUT).catalog
        vault = Vault(FileKeyWrapper(folder / "master.key"))
        self.tenants = Tenants(
            self.central,
            vault,
            settings=self.settings,
            providers=catalog.providers,
            ensure_dataset=lambda org: self.warehouse(org).ensure_dataset(),
            now=self.clock,
        )
        self.keys = ApiKeys(self.central, vault, now=self.clock)
        self.history = RunHistory(self.central)
        self.ledger = Ledger(self.central)
        self.artifacts = Artifacts(str(folder / "artifacts"))
        self.life = Life(
            self.tenants,
            self.keys,
            self.central,
            history=self.history,
            ledger=self.ledger,
            artifacts=self.artifacts,
            warehouse_of=self.warehouse,
            now=self.clock,
        )

    def clock(self) -> datetime:
        """Each look is a little later: no two rows have one time."""
        self.now += timedelta(milliseconds=1)
        return self.now

    def warehouse(self, org: str) -> Warehouse:
        return Warehouse(
            self.clients, org=org, dataset=self.settings.dataset(org), maximum_bytes_billed=LIMIT
        )

    def purge(self, *, now: datetime, dry_run: bool = False, audit: Audit | None = None) -> Purged:
        (done,) = self.life.purge(now=now, only=self.org, dry_run=dry_run, audit_of=lambda org: audit)
        return done

    def publish(self, cost: str = "1.25", run_id: str = "run-1") -> list[str]:
        """Load two days as a unit does; answers how each came about."""
        rows = [{"usage_date": day, "total_cost": Decimal(cost)} for day in DAYS]
        done = publish(
            Unit(self.org, "made/cost/pipeline", DAYS),
            {COSTS.table: pa.Table.from_pylist(rows, schema=COSTS.arrow)},
            schemas={COSTS.table: COSTS},
            checks={},
            run_id=run_id,
            attempt=1,
            provisional=frozenset(),
            warehouse=self.warehouse(self.org),
            ledger=self.ledger,
            artifacts=self.artifacts,
            now=self.clock,
        )
        return [one.how for one in done]

    def published(self) -> int:
        """Days that the planner takes for loaded."""
        view = self.ledger.view(self.org, self.settings.dataset(self.org), [COSTS.table], *DAYS)
        return sum(not found.provisional for found in view.published.values())

    def run(self, run_id: str, status: str, version: int = 1) -> None:
        """Put a run on record."""
        request = RunRequest(self.org, "made/cost/pipeline", *DAYS)
        run = Run(f"{self.org}-{run_id}", request, "key", "pipe", status, 1, version, "cli", "test", START)
        self.history.save(run, now=self.clock())

    def sealed_rows(self) -> int:
        """Rows that still hold a data key or a ciphertext."""
        found = 0
        for table, column in (
            ("org_integration_credentials", "encrypted_credential"),
            ("org_api_keys", "encrypted_hash_key"),
        ):
            sql = f"SELECT wrapped_key, {column} AS sealed FROM {table} WHERE org_slug = @org_slug"
            rows = self.central.query(sql, org=self.org, purpose="test").to_pylist()
            found += sum(bool(row["wrapped_key"] or row["sealed"]) for row in rows)
        return found

    def dataset_is_there(self) -> bool:
        try:
            self.warehouse(self.org).tables()
        except NotFoundError:
            return False
        return True


@pytest.fixture
def world(clients: Clients, central: Central, org: str, tmp_path: Path) -> World:
    made = World(clients, central, org, tmp_path)
    made.tenants.add(org, name="Acme")
    return made


def by(action: str, org: str) -> Audit:
    return Audit(org, action, "cli:tess", "organisation", org, request_id="req-1")


def trail(world: World) -> list[tuple[str, str | None]]:
    return [(entry.action, entry.resource_id) for entry in reversed(read(world.central, world.org))]


def test_suspended_and_resumed(world: World) -> None:
    assert world.life.suspend(world.org, by("org.suspend", world.org)).status == "SUSPENDED"
    assert world.org not in [org.slug for org in world.tenants.active()]
    assert world.life.suspend(world.org, by("org.suspend", world.org)).version == 2
    assert world.life.resume(world.org, by("org.resume", world.org)).status == "ACTIVE"
    assert world.org in [org.slug for org in world.tenants.active()]
    assert trail(world) == [("org.suspend", world.org), ("org.resume", world.org)]
    with pytest.raises(NotFoundError):
        world.life.suspend("nobody")


def test_a_plan_of_removal_names_everything_and_changes_nothing(world: World) -> None:
    world.tenants.add_credential(world.org, "anthropic", KEY)
    world.keys.add(world.org, name="ci", scopes=["run"])
    world.publish()
    world.run("run-1", "RUNNING")
    world.run("run-0", "SUCCESS")

    planned = world.life.plan_removal(world.org, grace_days=7)

    assert (planned.keys, planned.credentials, planned.tables) == (1, 1, (COSTS.table,))
    assert (planned.runs, planned.pending, planned.status) == ((f"{world.org}-run-1",), 2, "ACTIVE")
    assert planned.purge_after == world.now + timedelta(days=7)
    assert world.tenants.get(world.org).status == "ACTIVE"
    assert [key.is_active for key in world.keys.list(world.org)] == [True]


def test_removing_closes_everything_and_destroys_the_keys(world: World) -> None:
    old = world.tenants.add_credential(world.org, "anthropic", KEY)
    world.tenants.deactivate(world.org, old)
    world.tenants.add_credential(world.org, "anthropic", KEY + "-2")
    key, _ = world.keys.add(world.org, name="ci", scopes=["run"])
    other = f"{world.org}_too"
    world.tenants.add(other, name="Another")
    kept = world.tenants.add_credential(other, "anthropic", KEY)
    world.run("run-1", "RUNNING")
    seen: list[tuple[str, str, int]] = []

    def cancel(run_id: str) -> None:
        opened = world.tenants.open_active(world.org, "anthropic")
        seen.append((run_id, world.tenants.get(world.org).status, len(opened)))

    removed = world.life.remove(world.org, audit=by("org.remove", world.org), cancel=cancel)

    assert seen == [(f"{world.org}-run-1", "REMOVED", 0)]
    assert (removed.status, removed.keys, removed.credentials, removed.pending) == ("REMOVED", 1, 1, 0)
    assert world.sealed_rows() == 0
    assert [(k.key_id, k.is_active) for k in world.keys.list(world.org)] == [(key.key_id, False)]
    assert not any(one.is_active for one in world.tenants.credentials(world.org))
    with pytest.raises(ConfigurationError, match="deactivated"):
        world.tenants.open(world.org, old)
    assert world.dataset_is_there()
    assert [action for action, _ in trail(world)] == ["org.remove", "key.revoke", "credential.off"]
    # Nobody else's.
    assert world.tenants.open(other, kept).reveal() == KEY


@pytest.mark.slow
@pytest.mark.slow
def test_removing_again_finishes_and_keeps_the_day_of_the_purge(world: World) -> None:
    first = world.life.remove(world.org, grace_days=3)
    world.now += timedelta(days=1)
    again = world.life.remove(world.org, grace_days=30)
    assert (again.purge_after, again.keys, again.credentials) == (first.purge_after, 0, 0)
    assert world.tenants.get(world.org).version == 2


@pytest.mark.parametrize("days", [-1, 10_000])
def test_a_grace_period_that_cannot_be(world: World, days: int) -> None:
    with pytest.raises(UsageError, match="grace period"):
        world.life.remove(world.org, grace_days=days)
    assert world.tenants.get(world.org).status == "ACTIVE"


@pytest.mark.slow
def test_a_removed_organisation_is_neither_resumed_nor_added_nor_given_keys(world: World) -> None:
    world.life.remove(world.org)
    for refused in (
        lambda: world.life.resume(world.org),
        lambda: world.life.suspend(world.org),
        lambda: world.tenants.add(world.org, name="Acme"),
        lambda: world.tenants.add_credential(world.org, "anthropic", KEY),
    ):
        with pytest.raises(StateError, match="removed"):
            refused()


@pytest.mark.slow
@pytest.mark.slow
def test_a_key_stored_at_the_last_moment_is_destroyed_by_the_purge(world: World) -> None:
    credential = world.tenants.add_credential(world.org, "anthropic", KEY)
    late = world.tenants._row(world.org, credential)
    world.life.remove(world.org)
    # What a rotation appends that had read its rows before.
    world.central.append("org_integration_credentials", [{**late, "version": 2}])
    assert world.sealed_rows() == 1
    assert world.tenants.open_active(world.org, "anthropic") == {}
    done = world.purge(now=world.now)
    assert (done.dropped, done.pending) == (False, 0)
    assert world.sealed_rows() == 0


def test_export_keeps_amounts_exact(world: World) -> None:
    world.publish("0.123456789")
    world.warehouse(world.org).ensure_table(EMPTY)

    files = world.life.export(world.org, world.folder / "out")

    assert [(one.table, one.rows) for one in files] == [(COSTS.table, 2), (EMPTY.table, 0)]
    assert sorted(path.name for path in (world.folder / "out").iterdir()) == [
        f"{COSTS.table}.parquet",
        f"{EMPTY.table}.parquet",
    ]
    held = pq.read_table(files[0].file)
    assert held.schema.field("total_cost").type == pa.decimal128(38, 9)
    assert sorted(held.to_pylist(), key=lambda row: row["usage_date"]) == [
        {"usage_date": day, "total_cost": Decimal("0.123456789")} for day in DAYS
    ]
    assert pq.read_table(files[1].file).schema.names == EMPTY.arrow.names


def test_export_into_a_place_that_is_none(world: World) -> None:
    (world.folder / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        world.life.export(world.org, world.folder / "file")


@pytest.mark.slow
def test_purge_waits_for_the_grace_period(world: World) -> None:
    world.publish()
    removed = world.life.remove(world.org, grace_days=10, audit=by("org.remove", world.org))
    early = world.purge(now=removed.purge_after - timedelta(seconds=1))
    assert (early.dropped, early.waits_for is not None) == (False, True)
    assert world.dataset_is_there()

    planned = world.purge(now=removed.purge_after, dry_run=True)
    assert (planned.dropped, planned.waits_for) == (False, None)
    assert world.dataset_is_there()

    done = world.purge(now=removed.purge_after, audit=by("org.purge", world.org))

    assert (done.org, done.dropped, done.pending, done.waits_for) == (world.org, True, 0, None)
    assert not world.dataset_is_there()
    assert not (world.folder / "artifacts" / world.settings.dataset(world.org)).exists()
    assert world.life.purge(now=removed.purge_after, only=world.org) == []
    assert [action for action, _ in trail(world)] == ["org.remove", "org.purge"]
    with pytest.raises(StateError, match="purged"):
        world.life.remove(world.org)


@pytest.mark.slow
@pytest.mark.slow
def test_purge_leaves_an_organisation_with_a_run(world: World) -> None:
    """A backfill that does not end: what it publishes meanwhile goes into a dataset that is there."""
    world.run("run-1", "RUNNING")
    removed = world.life.remove(world.org, grace_days=0)
    world.run("run-1", "CANCELLING", version=2)
    waits = world.purge(now=removed.purge_after)
    assert (waits.dropped, waits.waits_for) == (False, f"run {world.org}-run-1 to end")
    assert world.publish() == ["loaded", "loaded"]
    world.run("run-1", "CANCELLED", version=3)
    done = world.purge(now=removed.purge_after)
    assert done.dropped
    # A unit that outlived its run brings nothing back.
    with pytest.raises(NotFoundError):
        world.publish("9.99")
    assert not world.dataset_is_there()


@pytest.mark.slow
def test_a_purge_that_broke_off_is_finished_by_the_next(world: World) -> None:
    world.publish()
    removed = world.life.remove(world.org, grace_days=0)
    world.warehouse(world.org).drop_dataset()
    world.ledger.empty(world.org, world.settings.dataset(world.org), run_id="org.purge", now=world.clock())
    done = world.purge(now=removed.purge_after)
    assert (done.dropped, done.waits_for) == (True, None)
    target = world.central.query(
        "SELECT MAX(table_version) AS top FROM org_meta_partitions WHERE org_slug = @org_slug",
        org=world.org,
        purpose="test",
    )
    assert target["top"][0].as_py() == 2


@pytest.mark.slow
def test_after_the_purge_the_slug_is_free_and_begins_empty(world: World) -> None:
    world.publish()
    assert world.published() == len(DAYS)
    removed = world.life.remove(world.org, grace_days=0)
    world.life.purge(now=removed.purge_after)

    added = world.tenants.add(world.org, name="Another Acme", admin_email="new@acme.example")

    assert (added.status, added.name, added.version, added.purge_after) == (
        "ACTIVE",
        "Another Acme",
        4,
        None,
    )
    # The same content: neither the ledger nor a used job id takes it for loaded.
    assert world.published() == 0
    assert world.ledger.view(world.org, added.dataset, [COSTS.table], *DAYS).failed == frozenset()
    assert world.publish(run_id="run-2") == ["loaded", "loaded"]
    held = world.warehouse(world.org).query(f"SELECT COUNT(*) AS n FROM {COSTS.table}", purpose="test")
    assert held["n"][0].as_py() == len(DAYS)
    view = world.ledger.view(world.org, added.dataset, [COSTS.table], *DAYS)
    assert {found.run_id for found in view.published.values()} == {"run-2"}
    assert Partition(world.org, COSTS.table, DAYS[0]) in view.published

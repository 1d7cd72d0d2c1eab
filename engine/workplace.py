"""Everything that settings lead to, each part opened once per process and only when it is used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache
from zoneinfo import ZoneInfo

import polars as pl

from engine.api_keys import ApiKeys
from engine.artifacts import Artifacts
from engine.catalog import Catalog, Pipeline
from engine.central import Central
from engine.clients import Clients, connect, connect_kms, connect_storage
from engine.errors import ConfigurationError
from engine.foreign import Patience
from engine.history import RunHistory
from engine.ledger import Ledger
from engine.life import Life
from engine.marks import Marks
from engine.migrations.apply import NOBODY as CENTRAL
from engine.migrations.apply import Migrations
from engine.migrations.files import read_migrations
from engine.plan import plan
from engine.plans import Subscriptions
from engine.prices.book import PriceBook
from engine.prices.overrides import overrides
from engine.prices.sources import cards
from engine.prices.sync import book_from_rows, pending
from engine.procedures.files import read_procedures
from engine.procedures.sync import Procedures
from engine.saas.table import PLANS, PlanTable
from engine.settings import Settings
from engine.tenants import Tenants
from engine.types import Discovery, Partition, Plan, RunRequest
from engine.vault import Vault, open_vault
from engine.views import ensure_view, views_over
from engine.warehouse import Dataset, Warehouse


@dataclass(frozen=True)
class Workplace:
    """One installation: its configs, its warehouse and what is on record there."""

    settings: Settings

    @cached_property
    def catalog(self) -> Catalog:
        """Pipelines, providers and schemas."""
        return Catalog.load(self.settings.root)

    @cached_property
    def clients(self) -> Clients:
        """Google clients, as the settings say."""
        s = self.settings
        return connect(
            project=s.bigquery_project,
            location=s.bigquery_location,
            rest_host=s.bigquery_emulator_host,
            grpc_host=s.bigquery_storage_emulator_host,
            credentials=s.google_credentials,
            credentials_file=s.google_credentials_file,
            transport=s.transport,
        )

    @cached_property
    def central(self) -> Central:
        """The dataset of all organisations' records."""
        s = self.settings
        return Central(
            self.clients,
            schemas=self.catalog.schemas,
            dataset=s.meta_dataset,
            location=s.bigquery_location,
            maximum_bytes_billed=s.maximum_bytes_billed,
            environment=s.env,
        )

    def warehouse(self, org: str) -> Warehouse:
        """One tenant's dataset."""
        s = self.settings
        return Warehouse(
            self.clients,
            org=org,
            dataset=s.dataset(org),
            location=s.bigquery_location,
            maximum_bytes_billed=s.maximum_bytes_billed,
        )

    @cached_property
    def _views_made(self) -> set[tuple[str, str]]:
        return set()

    def ensure_views(self, org: str, tables: Iterable[str]) -> None:
        """Make the tenant's views over these tables, once per process; their other tables come into being."""
        warehouse = self.warehouse(org)
        for view in views_over(tables, self.catalog.schemas):
            if (org, view.table) in self._views_made:
                continue
            for source in sorted(view.sources):
                warehouse.ensure_table(self.catalog.schemas[source])
            ensure_view(warehouse, view)
            self._views_made.add((org, view.table))

    @cached_property
    def procedures(self) -> Procedures:
        """Stored procedures of the central dataset."""
        return Procedures(self._meta, read=lambda: read_procedures(self.settings.root))

    @cached_property
    def migrations(self) -> Migrations:
        """Migrations of the central dataset and of the tenants'."""
        s = self.settings
        return Migrations(
            self.central,
            read=lambda: read_migrations(s.root),
            orgs=lambda: [org.slug for org in self.tenants.every() if org.status in ("ACTIVE", "SUSPENDED")],
            warehouse_of=self.warehouse,
            central_warehouse=lambda: Warehouse(
                self.clients,
                org=CENTRAL,
                dataset=s.meta_dataset,
                location=s.bigquery_location,
                maximum_bytes_billed=s.maximum_bytes_billed,
            ),
            now=lambda: datetime.now(UTC),
        )

    @cached_property
    def _meta(self) -> Dataset:
        s = self.settings
        return Dataset(
            self.clients,
            dataset=s.meta_dataset,
            location=s.bigquery_location,
            maximum_bytes_billed=s.maximum_bytes_billed,
            labels={"manta-environment": s.env},
            patience=Patience(),
        )

    def saas_plans(self, org: str) -> PlanTable:
        """The SaaS plans of one organisation."""
        return PlanTable(self.warehouse(org), self.catalog.schemas[PLANS])

    @cached_property
    def ledger(self) -> Ledger:
        """What is published."""
        return Ledger(self.central)

    @cached_property
    def history(self) -> RunHistory:
        """Runs."""
        return RunHistory(self.central)

    @cached_property
    def marks(self) -> Marks:
        """How far sources are taken in."""
        return Marks(self.central)

    @cached_property
    def tenants(self) -> Tenants:
        """Organisations and their credentials."""
        return Tenants(
            self.central,
            self.vault,
            settings=self.settings,
            providers=self.catalog.providers,
            ensure_dataset=lambda org: self.warehouse(org).ensure_dataset(),
        )

    @cached_property
    def subscriptions(self) -> Subscriptions:
        """Plans and quotas of organisations."""
        return Subscriptions(self.central, self.catalog.plans)

    @cached_property
    def api_keys(self) -> ApiKeys:
        """API keys of organisations."""
        return ApiKeys(self.central, self.vault)

    @cached_property
    def life(self) -> Life:
        """What becomes of organisations."""
        return Life(
            self.tenants,
            self.api_keys,
            self.central,
            history=self.history,
            ledger=self.ledger,
            artifacts=self.artifacts,
            warehouse_of=self.warehouse,
            end_plan=lambda org: self.subscriptions.set_plan(org, self.catalog.plans.default),
        )

    @cached_property
    def vault(self) -> Vault:
        """Seals and opens credentials."""
        s = self.settings
        return open_vault(
            s,
            connect_kms=lambda: connect_kms(
                host=s.kms_emulator_host,
                credentials=s.google_credentials,
                credentials_file=s.google_credentials_file,
                transport=s.transport,
            ),
        )

    @cached_property
    def artifacts(self) -> Artifacts:
        """Where the Parquet files of partitions are kept."""
        s = self.settings
        return Artifacts(
            s.artifact_root,
            connect=lambda: connect_storage(
                project=s.bigquery_project,
                host=s.storage_emulator_host,
                credentials=s.google_credentials,
                credentials_file=s.google_credentials_file,
                transport=s.transport,
            ),
        )

    def today(self, pipeline: Pipeline, *, now: datetime) -> date:
        """The provider's current day, which has not closed."""
        return now.astimezone(ZoneInfo(self.catalog.providers[pipeline.provider].day_timezone)).date()

    def last_closed_day(self, pipeline_path: str, *, now: datetime) -> date:
        """The default date of a run."""
        return self.today(self.catalog.pipeline(pipeline_path), now=now) - timedelta(days=1)

    def plan(self, request: RunRequest, *, now: datetime, discovered: Discovery | None = None) -> Plan:
        """Plan a request against what the warehouse holds; reads Manta's own tables only.

        `discovered` is the answer of the pipeline's discover step, where it has one. Raises NotFoundError,
        UsageError, and ConfigurationError when no credential is stored.
        """
        pipeline = self.catalog.pipeline(request.pipeline)
        provider = self.catalog.providers[pipeline.provider]
        self.tenants.get(request.org)
        today = self.today(pipeline, now=now)
        credentials = self.tenants.active_credentials(request.org, provider.name)
        if provider.needs_credential and not credentials:
            raise ConfigurationError(
                f"{request.org} has no active credential for {provider.display_name}.",
                fix=f"Store one: manta credential add {request.org} {provider.name}",
            )
        tables = [output.table for output in pipeline.outputs]
        touched = discovered.days if discovered else frozenset()
        first, last = min(request.start, *touched, request.start), max(request.end, *touched, request.end)
        view = self.ledger.view(request.org, self.settings.dataset(request.org), tables, first, last)
        if request.policy == "failed":
            days = self.history.failed_days(request.org, pipeline.path, request.start, request.end)
            view = replace(
                view, failed=frozenset(Partition(request.org, table, day) for table in tables for day in days)
            )
        return plan(
            request,
            pipeline,
            view,
            provider=provider,
            today=today,
            credentials=len(credentials) or 1,
            discovered=discovered,
        )

    def prices(self, org: str, provider: str, first: date, last: date) -> PriceBook:
        """The provider's rate cards as the organisation pays them, read from the warehouse.

        `first` and `last` bound the usage days. Raises ConfigurationError while the book is empty.
        """
        sql = (
            "SELECT * FROM model_prices WHERE provider = @provider "
            "AND (org_slug IS NULL OR org_slug = @org_slug) "
            "AND (valid_to IS NULL OR valid_to > @first) AND (valid_from IS NULL OR valid_from <= @last)"
        )
        parameters = {"provider": provider, "first": first, "last": last}
        rows = self.central.query(sql, parameters, org=org, purpose="prices")
        if rows.num_rows == 0:
            raise ConfigurationError(
                f"The price book has no card for {provider}.", fix="Run `manta prices sync`."
            )
        return book_from_rows(rows, provider, org=org, as_of=datetime.now(UTC))

    def sync_prices(self, *, now: datetime, dry_run: bool = False) -> int:
        """Append what changed in the price sources since the last sync; returns the number of rows."""
        listed = cards(self.settings.root)
        orgs = [org.slug for org in self.tenants.active()]
        own = [card for org in orgs for card in overrides(self.settings.root, org, listed)]
        existing = self.central.query("SELECT * FROM model_prices", org=None, purpose="prices-read")
        rows = pending([*listed, *own], pl.DataFrame(existing), known_from=now, scopes={None, *orgs})
        if not dry_run:
            self.central.append("model_prices", rows)
        return len(rows)


@lru_cache(maxsize=4)
def open_workplace(settings: Settings) -> Workplace:
    """The workplace of these settings; one per process, so that clients and catalogs are made once."""
    return Workplace(settings)

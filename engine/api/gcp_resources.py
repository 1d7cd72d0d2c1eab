"""Google Cloud's APIs as `engine.api` describes them: one description for each resource Manta reads."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.api.config import ApiConfig
from engine.http import MAX_CONNECTIONS
from engine.located import wrong

type Resource = Literal["billing_accounts", "skus", "instances"]
#: Name, path, type and what else a column says.
type Columns = tuple[tuple[str, str, str, dict[str, Any]], ...]

TABLES: dict[str, str] = {
    "billing_accounts": "gcp_billing_accounts_daily",
    "skus": "gcp_sku_prices_daily",
    "instances": "gcp_compute_instances_daily",
}
DAY = {"column": "snapshot_date", "source": "snapshot"}
_TIER, _SKU = "^1/pricingExpression", "^2"
_BILLING_ACCOUNTS: Columns = (
    ("billing_account_name", "name", "STRING", {"required": True}),
    ("display_name", "displayName", "STRING", {}),
    ("is_open", "open", "BOOL", {"default": False}),
    ("currency", "currencyCode", "STRING", {}),
    ("master_billing_account", "masterBillingAccount", "STRING", {}),
    ("parent", "parent", "STRING", {}),
)
_SKUS: Columns = (
    ("sku_id", f"{_SKU}/skuId", "STRING", {"required": True}),
    ("sku_name", f"{_SKU}/name", "STRING", {}),
    ("description", f"{_SKU}/description", "STRING", {}),
    ("service_name", f"{_SKU}/category/serviceDisplayName", "STRING", {}),
    ("resource_family", f"{_SKU}/category/resourceFamily", "STRING", {}),
    ("resource_group", f"{_SKU}/category/resourceGroup", "STRING", {}),
    ("usage_type", f"{_SKU}/category/usageType", "STRING", {}),
    ("service_regions", f"{_SKU}/serviceRegions", "JSON", {}),
    ("effective_time", "^1/effectiveTime", "TIMESTAMP", {"required": True}),
    ("usage_unit", f"{_TIER}/usageUnit", "STRING", {}),
    ("base_unit", f"{_TIER}/baseUnit", "STRING", {}),
    ("base_unit_conversion_factor", f"{_TIER}/baseUnitConversionFactor", "NUMERIC", {"round": True}),
    ("tier", "@", "INT64", {"required": True}),
    ("start_usage_amount", "startUsageAmount", "NUMERIC", {"default": 0, "round": True}),
    ("currency", "/unitPrice/currencyCode", "STRING", {"required": True}),
    # proto3's JSON leaves zeros out; int64 is sent in quotes.
    ("price_units", "/unitPrice/units", "INT64", {"sent_as": "text"}),
    ("price_nanos", "/unitPrice/nanos", "INT64", {}),
)
_INSTANCES: Columns = (
    ("instance_id", "id", "STRING", {"required": True}),
    ("instance_name", "name", "STRING", {"required": True}),
    ("zone", "^1@", "STRING", {}),
    ("machine_type", "machineType", "STRING", {}),
    ("status", "status", "STRING", {}),
    ("creation_time", "creationTimestamp", "TIMESTAMP", {}),
    ("provisioning_model", "/scheduling/provisioningModel", "STRING", {}),
    ("is_preemptible", "/scheduling/preemptible", "BOOL", {"default": False}),
    ("labels", "labels", "JSON", {}),
)


class GcpApiConfig(BaseModel):
    """Keys of a `gcp.api_extractor` step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: `billing_accounts`, `skus` or `instances`.
    resource: Resource
    #: Of the SKUs: ids of services, as the Cloud Billing Catalog names them.
    services: tuple[str, ...] = ()
    #: Of `skus`: currency of the prices.
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")
    #: Of instances; without any, the project that the service account belongs to.
    projects: tuple[str, ...] = ()
    #: The project whose quota is used, where it is not the service account's own.
    quota_project: str | None = None
    #: What becomes of zones that do not answer.
    unreachable: Literal["fail", "finding"] = "fail"
    #: Entries a page; without it the most that the API gives.
    page_size: int | None = Field(default=None, ge=1, le=5000)
    #: Requests at once.
    concurrency: int = Field(default=4, ge=1, le=MAX_CONNECTIONS)

    @model_validator(mode="after")
    def _fits_the_resource(self) -> GcpApiConfig:
        for names, resource in (
            (("services", "currency"), "skus"),
            (("projects", "unreachable"), "instances"),
        ):
            for name in names:
                if name in self.model_fields_set and self.resource != resource:
                    raise wrong((name,), f"does not go with {self.resource}", f"it is for {resource}")
        if self.resource == "skus" and not self.services:
            raise wrong(("services",), "is empty", "name the services whose prices are wanted")
        return self

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"x-goog-user-project": self.quota_project} if self.quota_project else {}


def described(config: GcpApiConfig, *, project: str) -> list[ApiConfig]:
    """The requests of a resource; `project` is the service account's own."""
    match config.resource:
        case "billing_accounts":
            return [_api(config, "/v1/billingAccounts", "/billingAccounts", _BILLING_ACCOUNTS, size=100)]
        case "skus":
            params = {"currencyCode": config.currency}
            items = "/skus/*/pricingInfo/*/pricingExpression/tieredRates"
            return [
                _api(config, f"/v1/services/{service}/skus", items, _SKUS, size=5000, params=params)
                for service in config.services
            ]
        case "instances":
            params = {"returnPartialSuccess": "true"}
            path = "/compute/v1/projects/{}/aggregated/instances"
            return [
                _api(config, path.format(name), "/items/*/instances", _INSTANCES, size=500, params=params)
                for name in config.projects or (project,)
            ]


def _api(
    config: GcpApiConfig,
    path: str,
    items: str,
    columns: Columns,
    *,
    size: int,
    params: dict[str, str] | None = None,
) -> ApiConfig:
    return ApiConfig.model_validate(
        {
            "table": TABLES[config.resource],
            "request": {"path": path, "params": params or {}, "headers": config.headers},
            "paging": {
                "kind": "cursor",
                "cursor_path": "nextPageToken",
                "cursor_param": "pageToken",
                "limit_param": "maxResults" if config.resource == "instances" else "pageSize",
                "limit": min(config.page_size or size, size),
                # Zones without instances fill pages of their own.
                "max_empty_pages": 500,
            },
            "response": {
                "items": items,
                "columns": [{"name": n, "path": p, "type": t, **more} for n, p, t, more in columns],
                "unknown_fields": "ignore",
                "missing_items": "empty",
            },
            "day": DAY,
            "concurrency": config.concurrency,
        }
    )


def finished(resource: Resource, table: pa.Table, *, path: str) -> pa.Table:
    """The rows as their table has them; `path` is what was asked, which names their service or project."""
    parts = path.split("/")
    if resource == "skus":
        return _priced(table, service=parts[3])
    if resource == "instances":
        table = table.append_column("project_id", pa.repeat(pa.scalar(parts[4]), table.num_rows))
        for column in ("zone", "machine_type"):
            last = pc.replace_substring_regex(table[column], r"^.*/", "")
            table = table.set_column(table.schema.get_field_index(column), column, last)
    return table


def _priced(table: pa.Table, *, service: str) -> pa.Table:
    """Units and nanos as one exact price per usage unit, of each SKU's newest pricing only."""
    newest: dict[str, Any] = {}
    skus, times = table["sku_id"].to_pylist(), table["effective_time"].to_pylist()
    for sku, time in zip(skus, times, strict=True):
        newest[sku] = max(time, newest.get(sku, time))
    table = table.filter(
        pa.array([newest[sku] == time for sku, time in zip(skus, times, strict=True)], pa.bool_())
    )
    prices = [
        Decimal(units or 0) + Decimal(nanos or 0).scaleb(-9)
        for units, nanos in zip(
            table["price_units"].to_pylist(), table["price_nanos"].to_pylist(), strict=True
        )
    ]
    table = table.drop_columns(["price_units", "price_nanos"])
    table = table.append_column("unit_price", pa.array(prices, pa.decimal128(38, 9)))
    return table.append_column("service_id", pa.repeat(pa.scalar(service), table.num_rows))

"""What Manta takes from a billing export, by name: where it lies in the export and what it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "time", "amount", "pairs", "credits", "tags", "ancestors"]

#: BigQuery's types that a kind can be made of.
TAKEN: Mapping[Kind, frozenset[str]] = {
    "text": frozenset({"STRING"}),
    "time": frozenset({"TIMESTAMP"}),
    "amount": frozenset({"FLOAT64", "FLOAT", "NUMERIC", "BIGNUMERIC", "INT64", "INTEGER"}),
    "pairs": frozenset({"RECORD", "STRUCT"}),
    "credits": frozenset({"RECORD", "STRUCT"}),
    "tags": frozenset({"RECORD", "STRUCT"}),
    "ancestors": frozenset({"RECORD", "STRUCT"}),
}
#: Kinds that are lists in the export, and the fields that are taken of each entry.
ENTRIES: Mapping[Kind, tuple[str, ...]] = {
    "pairs": ("key", "value"),
    "credits": ("amount", "full_name", "id", "name", "type"),
    "tags": ("inherited", "key", "namespace", "value"),
    "ancestors": ("display_name", "resource_name"),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One column of ours; `path` is where the export has it, with dots into records."""

    name: str
    path: str
    kind: Kind
    required: bool = False

    @property
    def repeated(self) -> bool:
        """True where the export has a list."""
        return self.kind in ENTRIES


def _same(kind: Kind, *names: str) -> tuple[Field, ...]:
    return tuple(Field(name, name, kind) for name in names)


#: In the order of docs/gcp-billing.md. Both exports have these but for `resource` and `subscription`.
FIELDS: tuple[Field, ...] = (
    *_same("text", "billing_account_id"),
    Field("invoice_month", "invoice.month", "text"),
    Field("publisher_type", "invoice.publisher_type", "text"),
    *_same("text", "cost_type"),
    Field("service_id", "service.id", "text"),
    Field("service_description", "service.description", "text"),
    Field("sku_id", "sku.id", "text"),
    Field("sku_description", "sku.description", "text"),
    Field("usage_start_time", "usage_start_time", "time", required=True),
    *_same("time", "usage_end_time"),
    Field("project_id", "project.id", "text"),
    Field("project_number", "project.number", "text"),
    Field("project_name", "project.name", "text"),
    Field("project_ancestry_numbers", "project.ancestry_numbers", "text"),
    Field("project_ancestors", "project.ancestors", "ancestors"),
    Field("project_labels", "project.labels", "pairs"),
    *_same("pairs", "labels", "system_labels"),
    *_same("tags", "tags"),
    Field("location", "location.location", "text"),
    Field("country", "location.country", "text"),
    Field("region", "location.region", "text"),
    Field("zone", "location.zone", "text"),
    Field("resource_name", "resource.name", "text"),
    Field("resource_global_name", "resource.global_name", "text"),
    Field("cost", "cost", "amount", required=True),
    *_same("credits", "credits"),
    Field("currency", "currency", "text", required=True),
    *_same("amount", "currency_conversion_rate"),
    Field("usage_amount", "usage.amount", "amount"),
    Field("usage_unit", "usage.unit", "text"),
    Field("usage_amount_in_pricing_units", "usage.amount_in_pricing_units", "amount"),
    Field("usage_pricing_unit", "usage.pricing_unit", "text"),
    Field("adjustment_id", "adjustment_info.id", "text"),
    Field("adjustment_description", "adjustment_info.description", "text"),
    Field("adjustment_mode", "adjustment_info.mode", "text"),
    Field("adjustment_type", "adjustment_info.type", "text"),
    Field("export_time", "export_time", "time", required=True),
    *_same("amount", "cost_at_list", "cost_at_effective_price_default", "cost_at_list_consumption_model"),
    *_same("text", "transaction_type", "seller_name"),
    Field("price_effective", "price.effective_price", "amount"),
    Field("price_tier_start_amount", "price.tier_start_amount", "amount"),
    Field("price_unit", "price.unit", "text"),
    Field("price_pricing_unit_quantity", "price.pricing_unit_quantity", "amount"),
    Field("price_list", "price.list_price", "amount"),
    Field("price_effective_default", "price.effective_price_default", "amount"),
    Field("price_list_consumption_model", "price.list_price_consumption_model", "amount"),
    Field("consumption_model_id", "consumption_model.id", "text"),
    Field("consumption_model_description", "consumption_model.description", "text"),
    Field("subscription_instance_id", "subscription.instance_id", "text"),
)

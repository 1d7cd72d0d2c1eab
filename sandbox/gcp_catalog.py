"""What a Cloud Billing export is drawn from: services, prices, projects, places, labels and credits."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass(frozen=True)
class Sku:
    """One SKU; `price` is in US dollars for one pricing unit."""

    service_id: str
    service: str
    sku_id: str
    sku: str
    unit: str
    pricing_unit: str
    price: Decimal


SKUS = tuple(
    Sku(service_id, service, sku_id, sku, unit, pricing_unit, Decimal(price))
    for service_id, service, sku_id, sku, unit, pricing_unit, price in (
        (
            "6F81-5844-456A",
            "Compute Engine",
            "0C5C-D8E4-38C1",
            "E2 Instance Core",
            "seconds",
            "hour",
            "0.021811",
        ),
        (
            "6F81-5844-456A",
            "Compute Engine",
            "8E10-BDC2-1A3F",
            "E2 Instance Ram",
            "byte-seconds",
            "gibibyte hour",
            "0.002923",
        ),
        (
            "6F81-5844-456A",
            "Compute Engine",
            "D973-5D65-BAB2",
            "Storage PD Capacity",
            "byte-seconds",
            "gibibyte month",
            "0.04",
        ),
        (
            "95FF-2EF5-5EA1",
            "Cloud Storage",
            "E5F0-6A5D-7BAD",
            "Standard Storage US Multi-region",
            "byte-seconds",
            "gibibyte month",
            "0.026",
        ),
        (
            "95FF-2EF5-5EA1",
            "Cloud Storage",
            "4DBF-185F-A415",
            "Regional Standard Class A Operations",
            "requests",
            "count",
            "0.000005",
        ),
        ("24E6-581D-38E5", "BigQuery", "3362-E469-6BEF", "Analysis", "bytes", "tebibyte", "6.25"),
        (
            "24E6-581D-38E5",
            "BigQuery",
            "947D-3B46-7781",
            "Active Logical Storage",
            "byte-seconds",
            "gibibyte month",
            "0.02",
        ),
        (
            "9662-B51E-5089",
            "Cloud SQL",
            "1E2F-9B44-0A11",
            "Cloud SQL for PostgreSQL: Zonal - vCPU",
            "seconds",
            "hour",
            "0.0413",
        ),
        (
            "152E-C115-5142",
            "Cloud Run",
            "AB12-4C2F-77D0",
            "CPU Allocation Time",
            "seconds",
            "second",
            "0.000024",
        ),
        (
            "C7E2-9256-1C43",
            "Vertex AI",
            "5A90-11C2-77AE",
            "Gemini Text Input",
            "count",
            "count",
            "0.00000125",
        ),
    )
)

PROJECTS = tuple(
    {
        "id": f"acme-{name}",
        "number": str(100_000_000_000 + number),
        "name": f"Acme {name}",
        "ancestry_numbers": f"/900/{800 + number % 3}/",
        "labels": [{"key": "stage", "value": name}] if number % 2 else [],
        "ancestors": [
            {"resource_name": f"folders/{800 + number % 3}", "display_name": f"folder {number % 3}"},
            {"resource_name": "organizations/900", "display_name": "acme.example"},
        ],
    }
    for number, name in enumerate(("prod", "stage", "data", "web", "ml", "tools"))
)
REGIONS = (
    {"location": "us-central1", "country": "US", "region": "us-central1", "zone": None},
    {"location": "us-central1-a", "country": "US", "region": "us-central1", "zone": "us-central1-a"},
    {"location": "europe-west3", "country": "DE", "region": "europe-west3", "zone": None},
    {"location": "eu", "country": None, "region": None, "zone": None},
    {"location": "global", "country": None, "region": None, "zone": None},
)
LABELS: tuple[list[dict[str, str]], ...] = (
    [],
    [],
    [{"key": "team", "value": "search"}, {"key": "env", "value": "prod"}],
    [{"key": "env", "value": "stage"}],
    [{"key": "owner", "value": 'zoë "z" o\\'}, {"key": "cost-center", "value": ""}],
)
TAGS: tuple[list[dict[str, Any]], ...] = (
    [],
    [],
    [{"key": "environment", "value": "production", "inherited": True, "namespace": "900"}],
    [
        {"key": "environment", "value": "test", "inherited": False, "namespace": "900"},
        {"key": "team", "value": "core", "inherited": True, "namespace": "acme-prod"},
    ],
)
CREDITS = (
    {
        "name": "Committed Usage Discount: CPU",
        "full_name": "Committed Usage Discount: CPU",
        "id": "Committed Usage Discount: CPU",
        "type": "COMMITTED_USAGE_DISCOUNT",
    },
    {
        "name": "Sustained Usage Discount",
        "full_name": "Sustained Usage Discount",
        "id": "Sustained Usage Discount",
        "type": "SUSTAINED_USAGE_DISCOUNT",
    },
    {"name": "Free tier", "full_name": "Free tier", "id": "free-tier", "type": "FREE_TIER"},
    {
        "name": "Migration promotion",
        "full_name": "Migration promotion",
        "id": "promo-77",
        "type": "PROMOTION",
    },
)

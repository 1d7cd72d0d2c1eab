"""`python -m sandbox.customer`: what an organisation of the demo has of its own, made in its BigQuery.

A Cloud Billing export of the last closed days, the service account that may read it, and a list of SaaS
plans. One line of JSON an organisation; an export that is there stays as it is.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta

from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from sandbox import gcp_export
from sandbox.gcp_keys import service_account_key

EXPORT_DATASET = "billing_export"
#: Vendor, plan, category, cycle, price per seat, seats, currency: the first two of the list are everybody's.
PLANS = (
    ("Slack", "Business+", "communication", "monthly", "15.00", 40, "USD"),
    ("GitHub", "Enterprise", "development", "annual", "252.00", 25, "USD"),
    ("Figma", "Organization", "design", "annual", "540.00", 8, "USD"),
    ("Notion", "Business", "productivity", "monthly", "18.00", 30, "EUR"),
    ("Datadog", "Pro", "observability", "quarterly", "45.00", 12, "USD"),
    ("1Password", "Business", "security", "monthly", "7.99", 55, "USD"),
)
HEADER = (
    "subscription_id",
    "vendor",
    "plan_name",
    "category",
    "start_date",
    "billing_cycle",
    "unit_price",
    "seats",
    "currency",
    "discount_type",
    "discount_value",
)


def seed_of(org: str) -> int:
    """The same for an organisation on every machine."""
    return zlib.crc32(org.encode())


def saas_plans(org: str, *, today: date) -> str:
    """The organisation's plans as CSV: three to six vendors, some with a discount."""
    seed = seed_of(org)
    chosen = [*PLANS[:2], *(plan for n, plan in enumerate(PLANS[2:]) if seed >> n & 1), PLANS[2 + seed % 4]]
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(HEADER)
    for vendor, plan, category, cycle, price, seats, currency in dict.fromkeys(chosen):
        start = date(today.year - 1, 1 + (seed + seats) % 12, 1 + (seed + len(vendor)) % 28)
        discount = ("percent", "10") if (seed + seats) % 3 == 0 else ("", "")
        row = (vendor.lower(), vendor, plan, category, start, cycle, price, seats + seed % 7, currency)
        table.writerow((*row, *discount))
    return out.getvalue()


def billing_export(client: bigquery.Client, org: str, *, days: int, rows_per_day: int, today: date) -> str:
    """Write the export of the last closed days into the customer's project and answer its dataset."""
    dataset = f"{client.project}.{EXPORT_DATASET}"
    start = today - timedelta(days=days)
    client.create_dataset(dataset, exists_ok=True)
    if not list(client.list_tables(dataset)):
        rows = gcp_export.draw(start, days, rows_per_day=rows_per_day, seed=seed_of(org))
        # What is loaded later than today is not there yet.
        gcp_export.write(client, rows.between(None, today), dataset=dataset)
    return dataset


def customers(
    orgs: list[str], *, rest: str, days: int, rows_per_day: int, today: date
) -> Iterator[Mapping[str, str]]:
    """Make what each organisation has, one after the other."""
    for org in orgs:
        client = bigquery.Client(
            project=f"{org.replace('_', '-')}-cloud",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options=ClientOptions(api_endpoint=rest),
        )
        dataset = billing_export(client, org, days=days, rows_per_day=rows_per_day, today=today)
        key = json.loads(service_account_key(org, project=client.project))
        yield {
            "org_slug": org,
            "gcp": json.dumps({**key, "manta": {"billing_dataset": dataset}}),
            "saas_plans": saas_plans(org, today=today),
        }


def main() -> int:
    """Make it, and say what became of it."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.customer", description=__doc__)
    parser.add_argument("--rest", required=True, help="REST address of the embedded BigQuery")
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--rows-per-day", type=int, default=120)
    parser.add_argument("--today", type=date.fromisoformat, default=datetime.now(UTC).date())
    parser.add_argument("org", nargs="+")
    given = parser.parse_args()
    for one in customers(
        given.org, rest=given.rest, days=given.days, rows_per_day=given.rows_per_day, today=given.today
    ):
        print(json.dumps(one), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

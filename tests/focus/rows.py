"""Generated rows of every source, from a seed: with cache, tiers, credits, corrections, trials and gaps."""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.catalog import Catalog
from engine.prices.book import PriceBook
from engine.prices.costs import CostModel, costs
from engine.prices.sources import cards

ROOT = Path(__file__).parents[2]
FIRST = date(2026, 10, 12)
NANO = Decimal("0.000000001")
OPENAI = ("gpt-4.1", "gpt-4o-mini", "gpt-audio", "gpt-99", "o3")
ANTHROPIC = ("claude-opus-5", "claude-haiku-5-5", "claude-sonnet-4-6", "claude-unknown")
SERVICES = (
    ("6F81-5844-456A", "Compute Engine", "N2 Instance Core", "hour"),
    ("95FF-2EF5-5EA1", "Cloud Storage", "Standard Storage", "gibibyte month"),
    ("0000-0000-0000", "A Service Nobody Filed", "Calls", "count"),
)
TAG = {"inherited": False, "key": "cc", "namespace": "123", "value": "7"}
DISKS = "//compute.googleapis.com/projects/shop/zones/z/disks"
CREDITS = ("COMMITTED_USAGE_DISCOUNT", "SUSTAINED_USAGE_DISCOUNT", "PROMOTION", "FREE_TIER")


@cache
def catalog() -> Catalog:
    """The shipped configs."""
    return Catalog.load(ROOT)


@cache
def book(provider: str) -> PriceBook:
    """The list prices that ship."""
    return PriceBook(provider, [card for card in cards(ROOT) if card.provider == provider])


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows in a schema's columns, as a step hands them on: without the lineage that the engine sets."""
    lineage = {"x_org_slug", "x_pipeline_id", "x_pipeline_run_date", "x_run_id", "x_ingested_at"}
    fields = [field for field in catalog().schemas[name].arrow if field.name not in lineage]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def ai(model: CostModel, count: int, *, seed: int, days: int = 3) -> tuple[pa.Table, pa.Table]:
    """Usage rows of a provider, and what they cost."""
    draw = random.Random(seed)
    make = _openai if model.provider == "openai" else _anthropic
    rows = [
        {
            "usage_date": FIRST + timedelta(days=draw.randrange(days)),
            "x_credential_id": f"c{n % 2}",
            **make(draw, n),
        }
        for n in range(count)
    ]
    usage = table(model.usage_table, rows)
    return usage, costs(model, usage, book(model.provider))[0]


def _openai(draw: random.Random, n: int) -> dict[str, Any]:
    who = {"project_id": draw.choice(["p1", "p2", None]), "api_key_id": f"key{n}"}
    if n % 10 == 8:
        return {**who, "endpoint": "web_search_calls", "model": "gpt-5", "num_requests": draw.randrange(50)}
    if n % 10 == 9:
        store = {"vector_store_id": f"vs{n}", "num_requests": draw.randrange(50)}
        return {**who, "endpoint": "file_search_calls", **store}
    tokens = draw.randrange(3_000_000)
    cached = draw.randrange(tokens + 1)
    return {
        **who,
        "endpoint": "completions",
        "model": draw.choice(OPENAI),
        "batch": draw.choice([True, False]),
        "service_tier": "default",
        "user_id": draw.choice([None, "u1"]),
        "input_tokens": tokens,
        "input_cached_tokens": cached,
        "output_tokens": draw.randrange(100_000),
        "num_model_requests": 1,
    }


def _anthropic(draw: random.Random, n: int) -> dict[str, Any]:
    return {
        "model": draw.choice(ANTHROPIC),
        "workspace_id": draw.choice(["w1", "w2", None]),
        "api_key_id": f"key{n}",
        "service_tier": draw.choice(["standard", "batch"]),
        "context_window": "0-200k",
        "inference_geo": draw.choice(["global", "us", "not_available"]),
        "uncached_input_tokens": draw.randrange(1_000_000),
        "cache_read_input_tokens": draw.choice([0, draw.randrange(5_000_000)]),
        "cache_creation_5m_input_tokens": draw.randrange(10_000),
        "cache_creation_1h_input_tokens": draw.randrange(10_000),
        "output_tokens": draw.randrange(100_000),
        "web_search_requests": draw.choice([0, None, 7]),
    }


def gcp(count: int, *, seed: int, days: int = 3) -> pa.Table:
    """Billing rows, every kind: usage, credits, tax, rounding, corrections of last month, marketplace."""
    draw = random.Random(seed)
    return table("gcp_billing_daily_raw", [_gcp(draw, n, days) for n in range(count)])


def _gcp(draw: random.Random, n: int, days: int) -> dict[str, Any]:
    day = FIRST + timedelta(days=draw.randrange(days))
    start = datetime(day.year, day.month, day.day, draw.randrange(24), tzinfo=UTC)
    service, name, sku, unit = SERVICES[n % len(SERVICES)]
    quantity, price = NANO * draw.randrange(10**12), Decimal(draw.randrange(1, 900)) / 1000
    cost = (quantity * price).quantize(NANO)
    kind = ("tax", "rounding_error", "adjustment")[n // 3 % 3] if n % 7 == 6 else "regular"
    corrects = n % 11 == 10
    given = [
        {"amount": str(-(cost / draw.randrange(2, 9)).quantize(NANO)), "full_name": None, "id": f"id{m}",
         "name": f"{draw.choice(CREDITS)} {m}", "type": draw.choice(CREDITS)}
        for m in range(draw.choice([0, 0, 1, 2]))
    ]  # fmt: skip
    total = sum((Decimal(credit["amount"]) for credit in given), Decimal(0))
    project = draw.choice(["shop", None])
    return {
        "usage_date": day,
        "row_id": f"{n:032x}",
        "billing_account_id": "0124FF-8C7296-9F0D41",
        "invoice_month": "202611" if corrects else "202610",
        "cost_type": kind,
        "service_id": service,
        "service_description": name,
        "sku_id": f"SKU-{n % len(SERVICES)}",
        "sku_description": sku,
        "usage_start_time": start,
        "usage_end_time": start + timedelta(hours=1),
        "project_id": project,
        "project_name": project and "The shop",
        "labels": draw.choice([None, json.dumps({"team": "a", "env": ""})]),
        "project_labels": draw.choice([None, json.dumps({"team": "b"})]),
        "tags": json.dumps([TAG]) if n % 2 else None,
        "region": draw.choice(["us-central1", None]),
        "resource_name": "disk-1" if n % 4 == 0 else None,
        "resource_global_name": f"{DISKS}/{n}" if n % 4 == 0 else None,
        "cost": -cost if corrects else cost,
        "credits": json.dumps(given) if given else None,
        "credits_total": total,
        "net_cost": (-cost if corrects else cost) + total,
        "currency": draw.choice(["EUR", "USD"]),
        "usage_amount": quantity * 3600,
        "usage_unit": "seconds",
        "usage_amount_in_pricing_units": quantity,
        "usage_pricing_unit": unit,
        "adjustment_type": "PRICE_CORRECTION" if corrects else None,
        "cost_at_list": None if n % 5 else (cost * 2).quantize(NANO),
        "transaction_type": "GOOGLE",
        "seller_name": "A Vendor" if n % 13 == 12 else None,
        "price_effective": price,
        "price_tier_start_amount": Decimal(0),
        "price_pricing_unit_quantity": Decimal(1),
        "x_credential_id": "c1",
    }  # fmt: skip


def saas(count: int, *, seed: int, days: int = 40) -> pa.Table:
    """Days of monthly terms from the first of October: free plans, discounts, flat fees, an early end."""
    draw = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for n in range(count):
        seats, flat = draw.randrange(1, 50), n % 3 == 2
        price = Decimal(0) if n % 5 == 4 else Decimal(draw.randrange(1, 9999)) / 100
        listed = price if flat else price * seats
        cost = (listed * draw.choice([100, 100, 85]) / 100).quantize(NANO)
        until = date(2026, 10, 20) if n % 4 == 3 else date.max
        plan = {
            "subscription_id": f"s{n}",
            "plan_version": 1,
            "vendor": f"Vendor {n % 4}",
            "plan_name": draw.choice(["Team", "Business"]),
            "category": draw.choice([None, "Collaboration", "design", "something else"]),
            "pricing_model": "FLAT_FEE" if flat else "PER_SEAT",
            "seats": seats,
            "billing_cycle": "monthly",
            "unit_price": price,
            "list_cycle_cost": listed,
            "cycle_cost": cost,
            "currency": draw.choice(["EUR", "USD"]),
            "team": draw.choice(["core", None]),
            "fiscal_year": 2026,
            "fiscal_half": 2,
            "fiscal_quarter": 4,
        }
        rows += [{**plan, **_term(plan, date(2026, 10, 1) + timedelta(days=d), until)} for d in range(days)
                 if date(2026, 10, 1) + timedelta(days=d) < until]  # fmt: skip
    return table("saas_subscription_plan_costs_daily", rows)


def _term(plan: dict[str, Any], day: date, until: date) -> dict[str, Any]:
    start = day.replace(day=1)
    end = (start + timedelta(days=32)).replace(day=1)
    length = (end - start).days
    share = _part(plan["cycle_cost"], (day - start).days + 1, length) - _part(
        plan["cycle_cost"], (day - start).days, length
    )
    due = _part(plan["cycle_cost"], (min(end, until) - start).days, length) if day == start else Decimal(0)
    return {
        "usage_date": day,
        "status": "ACTIVE" if plan["cycle_cost"] else "FREE",
        "term_start": start,
        "term_end": end,
        "term_days": length,
        "charge_day": day == start,
        "charge_amount": due,
        "daily_cost": share,
        "total_cost": share,
    }


def _part(cost: Decimal, days: int, length: int) -> Decimal:
    return NANO * ((2 * int(cost / NANO) * days + length) // (2 * length))

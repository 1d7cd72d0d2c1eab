"""A Cloud Billing export in the real schema, with what makes real ones hard: credits, taxes, exact copies,
rows that are loaded days after the usage, and corrections that come with a later invoice.

It is written through a BigQuery client that it is given, into tables cut by load day as Google's are.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from google.cloud import bigquery

from sandbox.gcp_catalog import CREDITS, LABELS, PROJECTS, REGIONS, SKUS, TAGS
from sandbox.gcp_schema import DETAILED_ONLY, PAIRS, SCHEMA, STRINGS, sql_type

Detail = Literal["detailed", "standard"]
ACCOUNT = "0124FF-8C7296-9F0D41"
PLACES = Decimal(1).scaleb(-9)


@dataclass(frozen=True)
class Rows:
    """Rows of an export, and the day on which each was loaded."""

    table: pa.Table
    loaded: pa.Array

    def between(self, after: date | None, until: date | None) -> Rows:
        """Those loaded after one day, up to and with another."""
        keep = pa.array(np.ones(len(self.loaded), bool))
        if after is not None:
            keep = pc.and_(keep, pc.greater(self.loaded, pa.scalar(after)))
        if until is not None:
            keep = pc.and_(keep, pc.less_equal(self.loaded, pa.scalar(until)))
        return Rows(self.table.filter(keep), self.loaded.filter(keep))


def table_name(detail: Detail, account: str = ACCOUNT) -> str:
    """What Google calls an account's export."""
    middle = "resource_" if detail == "detailed" else ""
    return f"gcp_billing_export_{middle}v1_{account.replace('-', '_')}"


def draw(
    start: date,
    days: int,
    *,
    rows_per_day: int = 200,
    seed: int = 1,
    account: str = ACCOUNT,
    currency: str = "USD",
    rate: float = 1.0,
) -> Rows:
    """Draw the rows of some usage days, reproducibly.

    One row in ten is loaded up to five days late, one in fifty is corrected on the next invoice by its
    negation and a smaller charge, one in a hundred comes twice; each day has a tax row and, at the end of a
    month, a rounding row.
    """
    rng = np.random.default_rng([seed, start.toordinal(), days, rows_per_day])
    usage = _usage(rng, start, days, rows_per_day, account, currency, rate)
    parts = [
        usage,
        _corrections(rng, usage),
        _copies(rng, usage),
        _taxes(start, days, account, currency, rate),
    ]
    return Rows(
        pa.concat_tables([part.table for part in parts]),
        pa.concat_arrays([part.loaded for part in parts]),
    )


def write(
    client: bigquery.Client, rows: Rows, *, dataset: str, detail: Detail = "detailed", account: str = ACCOUNT
) -> str:
    """Append rows to an account's export table, which is made if it is missing; answers its address.

    The dataset (project.dataset) must be there.
    """
    names = [name for name in SCHEMA.names if detail == "detailed" or name not in DETAILED_ONLY]
    address = f"{dataset}.{table_name(detail, account)}"
    columns = ",\n  ".join(f"`{name}` {sql_type(SCHEMA.field(name).type)}" for name in names)
    _run(client, f"CREATE TABLE IF NOT EXISTS `{address}` (\n  {columns}\n)\nPARTITION BY _PARTITIONDATE")
    if not rows.table.num_rows:
        return address
    staging = f"{dataset}.loading_{table_name(detail, account)}"
    _load(client, rows.table.select(names).append_column("load_day", rows.loaded), staging)
    listed = ", ".join(f"`{name}`" for name in names)
    _run(
        client,
        f"INSERT INTO `{address}` (_PARTITIONTIME, {listed})\n"
        f"SELECT TIMESTAMP(load_day), {listed} FROM `{staging}`",
    )
    client.delete_table(staging)
    return address


def net_by_day(table: pa.Table) -> dict[date, Decimal]:
    """What each usage day costs after credits, added up one decimal at a time."""
    sums: dict[date, Decimal] = {}
    for row in table.select(["usage_start_time", "cost", "credits"]).to_pylist():
        day = row["usage_start_time"].date()
        amounts = [row["cost"], *(credit["amount"] for credit in row["credits"] or ())]
        sums[day] = sums.get(day, Decimal(0)) + sum(map(_exact, amounts), Decimal(0))
    return sums


def _exact(amount: float) -> Decimal:
    return Decimal(repr(amount)).quantize(PLACES, ROUND_HALF_EVEN)


def _usage(
    rng: Any, start: date, days: int, rows_per_day: int, account: str, currency: str, rate: float
) -> Rows:
    count = days * rows_per_day
    sku = rng.integers(len(SKUS), size=count)
    project = rng.integers(len(PROJECTS), size=count)
    region = rng.integers(len(REGIONS), size=count)
    hour = np.repeat(np.arange(days) * 24, rows_per_day) + rng.integers(24, size=count)
    begins = _moments(start, hour)
    late = np.where(rng.random(count) < 0.1, rng.integers(1, 6, size=count), 0)
    loaded = _days(start, hour // 24 + 1 + late)
    # Nobody scans tebibytes as others burn hours.
    most = np.array([0.002 if entry.pricing_unit == "tebibyte" else 1.0 for entry in SKUS])[sku]
    amount = np.round(rng.random(count) * 10.0 ** rng.integers(-3, 4, size=count) * most, 6)
    price = np.array([float(entry.price) for entry in SKUS])[sku] * rate
    cost = amount * price
    granted, offsets = _credits(rng, sku, cost)
    catalog = {
        name: pa.array([getattr(entry, name) for entry in SKUS]).take(pa.array(sku))
        for name in ("service_id", "service", "sku_id", "sku", "unit", "pricing_unit")
    }
    number = np.arange(count)
    names = pc.binary_join_element_wise("instance-", pa.array(number % 997).cast(pa.string()), "")
    quantity = pa.array([Decimal(1)] * len(SKUS), pa.decimal128(38, 9)).take(pa.array(sku))
    prices = pa.array([entry.price for entry in SKUS], pa.decimal128(38, 9)).take(pa.array(sku))
    zeros = pa.array([Decimal(0)] * len(SKUS), pa.decimal128(38, 9)).take(pa.array(sku))
    columns = {
        "billing_account_id": _constant(account, count),
        "invoice": _struct(
            "invoice", month=pc.strftime(begins, "%Y%m"), publisher_type=_constant("GOOGLE", count)
        ),
        "cost_type": _constant("regular", count),
        "service": _struct("service", id=catalog["service_id"], description=catalog["service"]),
        "sku": _struct("sku", id=catalog["sku_id"], description=catalog["sku"]),
        "usage_start_time": begins,
        "usage_end_time": _moments(start, hour + 1),
        "project": pa.array(PROJECTS, SCHEMA.field("project").type).take(pa.array(project)),
        "labels": pa.array(LABELS, PAIRS).take(pa.array(rng.integers(len(LABELS), size=count))),
        "system_labels": pa.array(
            [[{"key": "compute.googleapis.com/cores", "value": str(n)}] if n else [] for n in range(4)], PAIRS
        ).take(pa.array(rng.integers(4, size=count))),
        "location": pa.array(REGIONS, SCHEMA.field("location").type).take(pa.array(region)),
        "resource": _struct(
            "resource",
            name=names,
            global_name=pc.binary_join_element_wise(
                "//compute.googleapis.com/projects/p/instances/", names, ""
            ),
        ),
        "tags": pa.array(TAGS, SCHEMA.field("tags").type).take(pa.array(rng.integers(len(TAGS), size=count))),
        "cost": pa.array(cost),
        "currency": _constant(currency, count),
        "currency_conversion_rate": pa.array(np.full(count, rate)),
        "usage": _struct(
            "usage",
            amount=pa.array(amount * 3600),
            unit=catalog["unit"],
            amount_in_pricing_units=pa.array(amount),
            pricing_unit=catalog["pricing_unit"],
        ),
        "credits": pa.ListArray.from_arrays(offsets, granted),
        "adjustment_info": _struct("adjustment_info", **{n: pa.nulls(count, pa.string()) for n in STRINGS}),
        "export_time": pc.add(
            loaded.cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC")), pa.scalar(timedelta(hours=5))
        ),
        "cost_at_list": pa.array(cost * 1.25),
        "transaction_type": _constant("GOOGLE", count),
        "seller_name": pa.nulls(count, pa.string()),
        "price": _struct(
            "price",
            effective_price=prices,
            tier_start_amount=zeros,
            unit=catalog["pricing_unit"],
            pricing_unit_quantity=quantity,
        ),
        "subscription": _struct("subscription", instance_id=pa.nulls(count, pa.string())),
    }
    return Rows(pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA), loaded)


def _credits(rng: Any, sku: Any, cost: Any) -> tuple[pa.Array, pa.Array]:
    """None, one or two credits a row: a part of its cost each."""
    counts = np.where(rng.random(len(cost)) < 0.35, rng.integers(1, 3, size=len(cost)), 0)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    of = np.repeat(np.arange(len(cost)), counts)
    amounts = -cost[of] * rng.random(len(of)) * 0.5
    kinds = pa.array(rng.integers(len(CREDITS), size=len(of)))
    fields = [
        pa.array([entry[name] for entry in CREDITS]).take(kinds)
        for name in ("name", "full_name", "id", "type")
    ]
    entries = pa.StructArray.from_arrays(
        [fields[0], pa.array(amounts), *fields[1:]], fields=list(SCHEMA.field("credits").type.value_type)
    )
    return entries, pa.array(offsets)


def _corrections(rng: Any, usage: Rows) -> Rows:
    """The negation of a row and its smaller charge, loaded on the third of the next month."""
    chosen = _some(rng, len(usage.loaded), 50)
    rows = usage.table.take(pa.array(chosen))
    again: list[dict[str, Any]] = []
    loaded: list[date] = []
    for number, row in enumerate(rows.to_pylist()):
        first = (row["usage_start_time"].date().replace(day=1) + timedelta(days=32)).replace(day=1)
        when = datetime.combine(first, time(6), UTC) + timedelta(days=2)
        info = {
            "id": f"correction-{number}",
            "description": "Usage was counted too high",
            "mode": "COMPLETE_NEGATION_WITH_REMONETIZATION",
            "type": "USAGE_CORRECTION",
        }
        for share in (-1.0, 0.5):
            granted = [{**credit, "amount": credit["amount"] * share} for credit in row["credits"]]
            usage_of = {**row["usage"], "amount": row["usage"]["amount"] * share}
            changed = {
                "cost": row["cost"] * share,
                "credits": granted,
                "usage": usage_of,
                "export_time": when,
            }
            invoice = {"month": f"{first:%Y%m}", "publisher_type": "GOOGLE"}
            again.append({**row, **changed, "invoice": invoice, "adjustment_info": info})
            loaded.append(when.date())
    return Rows(pa.Table.from_pylist(again, schema=SCHEMA), pa.array(loaded, pa.date32()))


def _copies(rng: Any, usage: Rows) -> Rows:
    """Rows that come once more, the same in everything: two machines of one kind and hour."""
    chosen = pa.array(_some(rng, len(usage.loaded), 100))
    return Rows(usage.table.take(chosen), usage.loaded.take(chosen))


def _taxes(start: date, days: int, account: str, currency: str, rate: float) -> Rows:
    """A tax row a day, of no project, and a rounding row at the end of a month."""
    rows, loaded = [], []
    for day in (start + timedelta(days=n) for n in range(days)):
        begins = datetime.combine(day, time(), UTC)
        kinds = [("tax", 1.9 * rate)]
        if (day + timedelta(days=1)).day == 1:
            kinds.append(("rounding_error", -0.004 * rate))
        for kind, cost in kinds:
            rows.append(
                {
                    "billing_account_id": account,
                    "invoice": {"month": f"{day:%Y%m}", "publisher_type": "GOOGLE"},
                    "cost_type": kind,
                    "service": {"id": "FFFF-0000-0001", "description": "Invoice"},
                    "sku": {"id": "TAX-0001", "description": kind.replace("_", " ").capitalize()},
                    "usage_start_time": begins,
                    "usage_end_time": begins + timedelta(days=1),
                    "labels": [],
                    "system_labels": [],
                    "tags": [],
                    "credits": [],
                    "cost": cost,
                    "cost_at_list": cost,
                    "currency": currency,
                    "currency_conversion_rate": rate,
                    "export_time": begins + timedelta(hours=29),
                }
            )
            loaded.append(day + timedelta(days=1))
    return Rows(pa.Table.from_pylist(rows, schema=SCHEMA), pa.array(loaded, pa.date32()))


def _some(rng: Any, count: int, one_in: int) -> Any:
    """The places of one in so many rows, of one at least."""
    return np.sort(rng.choice(count, size=max(1, count // one_in), replace=False))


def _struct(column: str, **values: pa.Array) -> pa.StructArray:
    kind = SCHEMA.field(column).type
    return pa.StructArray.from_arrays(
        [values[field.name].cast(field.type) for field in kind], fields=list(kind)
    )


def _constant(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text), count)


def _moments(start: date, hours: Any) -> pa.Array:
    first = int(datetime.combine(start, time(), UTC).timestamp())
    return pa.array((first + hours * 3600) * 1_000_000, pa.timestamp("us", tz="UTC"))


def _days(start: date, offsets: Any) -> pa.Array:
    epoch = (start - date(1970, 1, 1)).days
    return pa.array((epoch + offsets).astype(np.int32), pa.int32()).cast(pa.date32())


def _load(client: bigquery.Client, table: pa.Table, address: str) -> None:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    options: Any = bigquery.format_options
    parquet = options.ParquetOptions()
    parquet.enable_list_inference = True
    config = bigquery.LoadJobConfig(source_format="PARQUET", write_disposition="WRITE_TRUNCATE")
    config.parquet_options = parquet
    sink.seek(0)
    client.load_table_from_file(sink, address, job_config=config).result()


def _run(client: bigquery.Client, sql: str) -> None:
    client.query(sql).result()

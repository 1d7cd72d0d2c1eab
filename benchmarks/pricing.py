"""Pricing 10 million usage rows: exact decimals against the same plan in float64 and against pandas.

    python benchmarks/pricing.py [--rows 10000000] [--repeat 3]

Each engine runs in a child process of its own (two Polars threads, `ru_maxrss` as peak memory), reads the
same Parquet file and does the same work: the dated join of every row to its rate card, six components,
five group amounts and the total, then the sum of the totals.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
THREADS = "2"
CHUNK_ROWS = 500_000
DAYS = 365
FIRST_DAY = date(2025, 11, 1)
MODELS = (
    "claude-opus-5", "claude-opus-5-5", "claude-sonnet-5", "claude-sonnet-5-5", "claude-haiku-5-5",
    "claude-fable-5-2", "claude-opus-4-8", "claude-opus-4-7", "claude-opus-4-6", "claude-sonnet-4-6",
    "claude-opus-4-5-20251101", "claude-haiku-4-5-20251001",
)  # fmt: skip
COUNTS = {
    "uncached_input_tokens": 5_000_000,
    "cache_read_input_tokens": 50_000_000,
    "cache_creation_5m_input_tokens": 500_000,
    "cache_creation_1h_input_tokens": 100_000,
    "output_tokens": 1_000_000,
    "web_search_requests": 100,
}


def generate(path: Path, rows: int) -> None:
    """Write a year of usage rows, in day order as a warehouse stores them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(7)
    names = pa.array(MODELS)
    tiers, windows, geos = pa.array(["standard", "batch"]), pa.array(["0-200k"]), pa.array(["global"])
    writer: pq.ParquetWriter | None = None
    for start in range(0, rows, CHUNK_ROWS):
        count = min(CHUNK_ROWS, rows - start)
        day = (np.arange(start, start + count) * DAYS // rows).astype(np.int32)
        first = (FIRST_DAY - date(1970, 1, 1)).days
        columns: dict[str, Any] = {
            "usage_date": pa.array(day + first, pa.int32()).cast(pa.date32()),
            "workspace_id": pa.array([f"w{n}" for n in range(200)]).take(rng.integers(0, 200, count)),
            "model": names.take(rng.integers(0, len(MODELS), count)),
            "service_tier": tiers.take(rng.integers(0, 2, count)),
            "context_window": windows.take(np.zeros(count, dtype=np.int8)),
            "inference_geo": geos.take(np.zeros(count, dtype=np.int8)),
            "speed": pa.nulls(count, pa.string()),
        }
        columns |= {name: rng.integers(0, most, count) for name, most in COUNTS.items()}
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=CHUNK_ROWS)
    if writer:
        writer.close()


def _chunks(path: Path) -> Iterator[Any]:
    import polars as pl

    rows = pl.scan_parquet(path)
    start = 0
    while (chunk := rows.slice(start, CHUNK_ROWS).collect()).height:
        yield chunk
        start += CHUNK_ROWS


def _book() -> Any:
    from engine.prices.book import PriceBook
    from engine.prices.sources import cards

    return PriceBook("anthropic", [card for card in cards(ROOT) if card.provider == "anthropic"])


def decimals(path: Path, book: Any) -> tuple[str, int]:
    """The product's own path, chunk by chunk."""
    from engine.prices.money import price_usage
    from processors.anthropic.cost import COMPONENTS, mapped

    total, rows = Fraction(0), 0
    for chunk in _chunks(path):
        priced = price_usage(mapped(chunk), book, COMPONENTS, table="t", identity=("workspace_id",)).rows
        total += Fraction(priced["total_cost"].sum())
        rows += priced.height - priced["total_cost"].null_count()
    return f"{float(total):.6f}", rows


def floats(path: Path, book: Any) -> tuple[str, int]:
    """The same plan with float64 rates and amounts."""
    from functools import reduce
    from operator import add

    import polars as pl

    from engine.prices.book import KEYS
    from engine.prices.money import GROUPS, _key, refuse_negative
    from processors.anthropic.cost import COMPONENTS, mapped

    total, rows = 0.0, 0
    rates = [f"{part.meter}_rate" for part in COMPONENTS]
    missing = [
        (pl.col(p.quantity).fill_null(0) != 0) & pl.col(f"{p.meter}_rate").is_null() for p in COMPONENTS
    ]
    lacking = reduce(add, [flag.cast(pl.Int32) * (1 << bit) for bit, flag in enumerate(missing)])
    priced = pl.col("lacking") == 0
    amounts = [
        pl.when(priced)
        .then((pl.col(part.quantity).fill_null(0) * pl.col(f"{part.meter}_rate").fill_null(0)).round(9))
        .alias(part.amount)
        for part in COMPONENTS
    ]
    groups = [
        reduce(add, [pl.col(part.amount) for part in COMPONENTS if part.group == group]).alias(group)
        for group in GROUPS
    ]
    for chunk in _chunks(path):
        usage = mapped(chunk)
        refuse_negative(usage, list(COUNTS), identity=("workspace_id",))
        keyed = usage.with_columns(_key(usage))
        wanted = keyed.unique("price_key", keep="any").select("price_key", *KEYS)
        resolved = wanted.join(
            book.resolve(wanted, [part.meter for part in COMPONENTS]), on=KEYS, nulls_equal=True
        )
        found = (
            keyed.lazy()
            .join(
                resolved.drop(KEYS).with_columns(pl.col(rates).cast(pl.Float64)).lazy(),
                on="price_key",
                how="left",
                maintain_order="left",
            )
            .with_columns(pl.when(pl.col("price_id").is_null()).then(-1).otherwise(lacking).alias("lacking"))
            .with_columns(amounts)
            .with_columns(groups)
            .with_columns(
                reduce(add, [pl.col(group) for group in GROUPS]).alias("total_cost"),
                pl.lit("USD").alias("currency"),
                pl.when(priced).then(pl.lit("PRICED")).otherwise(pl.lit("UNPRICED")).alias("pricing_status"),
                pl.when(priced).then(pl.col("price_id")).alias("price_id"),
            )
            .drop(rates)
            .collect()
        )
        total += found["total_cost"].sum()
        rows += found.height - found["total_cost"].null_count()
    return f"{total:.6f}", rows


def pandas(path: Path, book: Any) -> tuple[str, int]:
    """merge_asof by model and dimensions on the day, then the components in float64."""
    import pandas as pd

    from processors.anthropic.cost import COMPONENTS

    by = ["price_model", "service_tier", "context_window", "price_geo", "price_speed"]
    meters = [part.meter for part in COMPONENTS]
    usage = pd.read_parquet(path)
    usage["usage_date"] = pd.to_datetime(usage["usage_date"])
    # The dated snapshots of two models, resolved as the book does before the join.
    names = {name: name.rsplit("-20", 1)[0] for name in usage["model"].unique()}
    usage["price_model"] = usage["model"].map(names)
    usage["price_geo"] = usage["inference_geo"]
    usage["price_speed"] = usage["speed"].fillna("standard").astype("str")
    cards = pd.DataFrame(
        {
            "valid_from": pd.to_datetime([card.valid_from or date(1970, 1, 1) for card in book.cards]),
            "valid_to": pd.to_datetime([card.valid_to or date(2200, 1, 1) for card in book.cards]),
            "price_model": [card.model for card in book.cards],
            "service_tier": [card.tier for card in book.cards],
            "context_window": [card.context_window for card in book.cards],
            "price_geo": [card.inference_geo for card in book.cards],
            "price_speed": [card.speed for card in book.cards],
            "price_id": [card.price_id for card in book.cards],
            **{f"{m}_rate": [float(card.rates.get(m, "nan")) for card in book.cards] for m in meters},
        }
    ).sort_values("valid_from")
    usage["usage_date"] = usage["usage_date"].astype(cards["valid_from"].dtype)
    found = pd.merge_asof(usage, cards, left_on="usage_date", right_on="valid_from", by=by)
    priced = found["price_id"].notna() & (found["usage_date"] < found["valid_to"])
    for part in COMPONENTS:
        amount = (found[part.quantity].fillna(0) * found[f"{part.meter}_rate"]).round(9)
        found[part.amount] = amount.where(priced)
    found["cache_write_cost"] = found["cache_write_5m_cost"] + found["cache_write_1h_cost"]
    found["tool_cost"] = found["web_search_cost"]
    found["total_cost"] = (
        found["input_cost"]
        + found["cached_input_cost"]
        + found["cache_write_cost"]
        + found["output_cost"]
        + found["tool_cost"]
    )
    found["pricing_status"] = priced.map({True: "PRICED", False: "UNPRICED"})
    return f"{found['total_cost'].sum():.6f}", int(found["total_cost"].notna().sum())


ENGINES: dict[str, Callable[[Path, Any], tuple[str, int]]] = {
    "decimals": decimals,
    "floats": floats,
    "pandas": pandas,
}


def child(engine: str, path: Path) -> None:
    """Run one engine and print what it took as a JSON line; building the book is not measured."""
    import polars as pl  # noqa: F401  (imports are not what is measured)

    import processors.anthropic.cost  # noqa: F401

    book = _book()
    start = time.perf_counter()
    total, rows = ENGINES[engine](path, book)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    taken = {"seconds": seconds, "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}
    print(json.dumps({**taken, "total": total, "rows": rows}))


def _run(*arguments: str) -> str:
    environment = {**os.environ, "POLARS_MAX_THREADS": THREADS, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Generate the rows, run every engine and print seconds, memory and ratios."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--rows", type=int, default=10_000_000)
    options.add_argument("--repeat", type=int, default=1)
    options.add_argument("--child", choices=[*ENGINES, "generate"], help=argparse.SUPPRESS)
    options.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child == "generate":
        generate(given.data, given.rows)
    elif given.child:
        child(given.child, given.data)
    else:
        _compare(given.rows, given.repeat)


def _compare(rows: int, repeat: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "usage.parquet"
        _run("--child", "generate", "--data", str(path), "--rows", str(rows))
        found = {
            engine: [json.loads(_run("--child", engine, "--data", str(path))) for _ in range(repeat)]
            for engine in ENGINES
        }
    seconds = {engine: median(run["seconds"] for run in runs) for engine, runs in found.items()}
    print(f"{rows:,} rows, {THREADS} Polars threads, {os.cpu_count()} cores, median of {repeat}")
    print(
        f"{'engine':<10}{'seconds':>9}{'CPU s':>8}{'rows/s':>13}{'peak MB':>9}{'priced rows':>13}  total USD"
    )
    for engine, runs in found.items():
        peak = max(run["peak_mb"] for run in runs)
        cpu_s = median(run["cpu_s"] for run in runs)
        line = (
            f"{engine:<10}{seconds[engine]:>9.2f}{cpu_s:>8.1f}{rows / seconds[engine]:>13,.0f}{peak:>9,.0f}"
        )
        print(f"{line}{runs[0]['rows']:>13,}  {runs[0]['total']}")
    print(f"decimals / floats: {seconds['decimals'] / seconds['floats']:.2f} (goal: at most 3)")
    print(f"pandas / decimals: {seconds['pandas'] / seconds['decimals']:.2f} (goal: at least 5)")


if __name__ == "__main__":
    main()

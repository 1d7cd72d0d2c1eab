"""How fast 50 MB of completions usage pages become an Arrow table, beside bare decoding of the same bytes.

    python benchmarks/pages.py

Every way runs in turn in each round, in CPU time of the process, and its best round counts: other work on the
machine only ever adds time. `ours` is the product's own decoder: it checks every field, keeps unknown ones,
hashes the page and fills all 40 columns; the alternatives do less.
"""

from __future__ import annotations

import gc
import io
import json
import random
import time
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.json

from engine.pages.openai import ENDPOINTS, METRICS, page_decoder

PAGES = 118
BUCKETS = 31
ROWS = 19
ROUNDS = 5
FIRST_S = 1_764_547_200
COMPLETIONS = ENDPOINTS["completions"]
COUNTERS = (*METRICS[:5], *METRICS[7:17])
TEXTS = ("project_id", "user_id", "api_key_id", "model", "service_tier")
MODELS = ("gpt-5.5-2026-04-23", "gpt-4o-mini-2024-07-18", "gpt-4.1-2025-04-14", "o3-2025-04-16")


def row(draw: random.Random) -> dict[str, Any]:
    """Make one fully grouped row with every documented counter."""
    return {
        "object": "organization.usage.completions.result",
        **{name: draw.randrange(10 ** draw.randrange(1, 9)) for name in COUNTERS},
        "project_id": f"proj_{draw.randrange(40):024x}",
        "user_id": f"user-{draw.randrange(200):024x}",
        "api_key_id": f"key_{draw.randrange(80):016x}",
        "model": draw.choice(MODELS),
        "batch": draw.random() < 0.2,
        "service_tier": draw.choice(("default", "flex", "priority")),
    }


def page(draw: random.Random, *, novel: bool = False) -> bytes:
    """Make a page of 31 days; with `novel` each row has a field that nobody documented."""
    extra = {"organization_id": "org-1"} if novel else {}
    data = [
        {
            "object": "bucket",
            "start_time": start,
            "end_time": start + 86400,
            "results": [row(draw) | extra for _ in range(ROWS)],
        }
        for start in range(FIRST_S, FIRST_S + BUCKETS * 86400, 86400)
    ]
    return json.dumps({"object": "page", "data": data, "has_more": True, "next_page": "page_x"}).encode()


ROW_ARROW = pa.struct(
    [
        ("object", pa.string()),
        *((name, pa.int64()) for name in COUNTERS),
        *((name, pa.string()) for name in TEXTS),
        ("batch", pa.bool_()),
    ]
)
PAGE_ARROW = pa.schema(
    [
        ("object", pa.string()),
        (
            "data",
            pa.list_(
                pa.struct(
                    [
                        ("object", pa.string()),
                        ("start_time", pa.int64()),
                        ("end_time", pa.int64()),
                        ("results", pa.list_(ROW_ARROW)),
                    ]
                )
            ),
        ),
        ("has_more", pa.bool_()),
        ("next_page", pa.string()),
    ]
)
_ROW_POLARS = pl.Struct(
    {
        "object": pl.String,
        **dict.fromkeys(COUNTERS, pl.Int64),
        **dict.fromkeys(TEXTS, pl.String),
        "batch": pl.Boolean,
    }
)
PAGE_POLARS = pl.Struct(
    {"data": pl.List(pl.Struct({"start_time": pl.Int64, "results": pl.List(_ROW_POLARS)}))}
)


def untyped_struct_array(body: bytes) -> pa.Table:
    """Decode to dictionaries and hand the rows to Arrow as one struct array."""
    rows = list(chain.from_iterable(bucket["results"] for bucket in msgspec.json.decode(body)["data"]))
    return pa.Table.from_struct_array(pa.array(rows, ROW_ARROW))


def untyped_column_lists(body: bytes) -> pa.Table:
    """Decode to dictionaries and take each column by a list comprehension."""
    rows = list(chain.from_iterable(bucket["results"] for bucket in msgspec.json.decode(body)["data"]))
    return pa.table({f.name: pa.array([row.get(f.name) for row in rows], f.type) for f in ROW_ARROW})


def arrow_json(body: bytes) -> pa.Table:
    """Let Arrow's own reader parse the page by schema, and flatten the two lists."""
    options = pyarrow.json.ParseOptions(explicit_schema=PAGE_ARROW, unexpected_field_behavior="error")
    reading = pyarrow.json.ReadOptions(use_threads=False, block_size=max(len(body) + 1, 1 << 20))
    read = pyarrow.json.read_json(io.BytesIO(body), read_options=reading, parse_options=options)
    buckets = read["data"].combine_chunks().flatten()
    return pa.Table.from_struct_array(buckets.field("results").flatten())


def polars_json(body: bytes) -> pa.Table:
    """Let Polars decode the page by type, explode twice and unnest."""
    frame = pl.DataFrame({"page": [body.decode()]}).select(pl.col("page").str.json_decode(PAGE_POLARS))
    buckets = frame.unnest("page").explode("data").unnest("data").explode("results")
    return buckets.drop("start_time").unnest("results").to_arrow()


_ours = page_decoder(COMPLETIONS, credential_id="cred_1")
_typed = COMPLETIONS.decoder

WAYS: dict[str, Callable[[bytes], Any]] = {
    "msgspec untyped, decode only": msgspec.json.decode,
    "msgspec Structs, decode only": _typed.decode,
    "ours (Structs, columns, sha256)": _ours,
    "msgspec dicts + pa.array(struct)": untyped_struct_array,
    "msgspec dicts + column lists": untyped_column_lists,
    "pyarrow.json by schema + flatten": arrow_json,
    "polars json_decode by schema": polars_json,
}


def timed(way: Callable[[bytes], Any], pages: Iterable[bytes]) -> float:
    """Return CPU seconds for all pages."""
    gc.collect()
    start = time.process_time()
    for body in pages:
        way(body)
    return time.process_time() - start


def main() -> None:
    """Print a table of each way's best round, in the form that benchmarks/README.md shows."""
    draw = random.Random(1)
    pages = [page(draw) for _ in range(PAGES)]
    novel = [page(draw, novel=True) for _ in range(PAGES // 4)]
    size, rows = sum(map(len, pages)), PAGES * BUCKETS * ROWS
    assert sum(_ours(body).content.num_rows for body in pages) == rows
    seconds: dict[str, list[float]] = {name: [] for name in [*WAYS, "ours, every row with an unknown field"]}
    for _ in range(ROUNDS):
        for name, way in WAYS.items():
            seconds[name].append(timed(way, pages) / size)
        seconds["ours, every row with an unknown field"].append(timed(_ours, novel) / sum(map(len, novel)))
    best = {name: min(found) for name, found in seconds.items()}
    bare, typed, *_ = best.values()
    print(f"{size / 1e6:.1f} MB, {PAGES} pages, {rows} rows, best of {ROUNDS} rounds, CPU time\n")
    print("| way | MB per CPU second | of untyped decode | of typed decode |\n|---|---|---|---|")
    for name, found in best.items():
        print(f"| {name} | {1 / found / 1e6:.0f} | {bare / found:.2f} | {typed / found:.2f} |")
    ratio = bare / best["ours (Structs, columns, sha256)"]
    print(f"\nours runs at {ratio:.2f} of bare decoding; the goal is 0.25")


if __name__ == "__main__":
    main()

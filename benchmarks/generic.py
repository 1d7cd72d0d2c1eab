"""How much of the rate that its concurrency allows `generic.api_extractor` reaches, against a slow API.

python -m benchmarks.generic [--pages 500] [--latency-ms 50] [--concurrency 8]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx

from engine.api.config import ApiConfig
from engine.api.extract import Extract, extract
from engine.http import Http, open_client
from engine.limits import LocalPermits, Pace
from engine.log import JsonLog
from engine.request_auth import RequestAuth
from engine.retry import RetryPolicy

ROWS_A_PAGE = 100
#: Chains of pages that a cursor leads through, one for each day.
DAYS = 24
LEAST = 0.8


@contextmanager
def sandbox() -> Iterator[str]:
    """A sandbox in a process of its own; its REST address."""
    command = [sys.executable, "-m", "sandbox"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["rest"]
        finally:
            process.terminate()


def described(kind: str, *, rows: int, latency_ms: int, concurrency: int) -> ApiConfig:
    """The API of the sandbox with pages by number, or by cursor with a chain for each day."""
    paging = {"kind": "page", "page_param": "page", "total_pages_path": "pages", "total_path": "total"}
    if kind == "cursor":
        paging = {"kind": "cursor", "cursor_path": "next", "cursor_param": "cursor"}
    return ApiConfig.model_validate(
        {
            "table": "rows",
            "request": {
                "path": f"/styles/{kind}",
                "params": {"rows": rows, "limit": ROWS_A_PAGE, "latency_ms": latency_ms},
                "window": {"per": "day", "start": "day"} if kind == "cursor" else {},
            },
            "paging": paging,
            "response": {
                "items": "/items",
                "columns": [
                    {"name": "id", "path": "id", "type": "INT64", "required": True},
                    {"name": "day", "path": "day", "type": "DATE", "required": True},
                    {"name": "name", "path": "name", "type": "STRING"},
                    {"name": "amount", "path": "amount", "type": "NUMERIC"},
                    {"name": "deep", "path": "/nested/deep", "type": "STRING"},
                ],
            },
            "day": {"column": "day"},
            "row_id": ["day", "id"],
            "concurrency": concurrency,
        }
    )


async def read(config: ApiConfig, url: str, days: list[date]) -> tuple[Extract, int]:
    """Read it once; also how many requests that took."""

    def now() -> datetime:
        return datetime.now(UTC)

    async with open_client() as client:
        http = Http(
            client,
            provider="sandbox",
            base_url=url,
            auth=RequestAuth({}),
            permits=LocalPermits(Pace(1e9, 10_000), clock=time.monotonic, now=now, sleep=asyncio.sleep),
            policy=RetryPolicy(),
            rand=lambda: 0.5,
            sleep=asyncio.sleep,
            now=now,
            log=JsonLog(lambda _: None, now=now),
        )
        return await extract(config, {"none": http}, days, now=now), http.calls


async def bare(url: str, *, pages: int, latency_ms: int, concurrency: int) -> float:
    """The seconds that httpx alone takes for as many pages, so many at once, thrown away."""
    shape = {"rows": pages * ROWS_A_PAGE, "limit": ROWS_A_PAGE, "latency_ms": latency_ms}
    numbers = iter(range(1, pages + 1))

    async def worker(client: httpx.AsyncClient) -> None:
        for number in numbers:
            (await client.get(f"{url}/styles/page", params={**shape, "page": number})).raise_for_status()

    began = time.perf_counter()
    async with open_client() as client, asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker(client))
    return time.perf_counter() - began


def main() -> int:
    """Measure; the answer is 1 when a kind of paging stays under what is asked for."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.generic", description=__doc__)
    options.add_argument("--pages", type=int, default=500)
    options.add_argument("--latency-ms", type=int, default=50)
    options.add_argument("--concurrency", type=int, default=8)
    given = options.parse_args()
    first = date(2025, 12, 8)
    failed = False
    with sandbox() as url:
        shape: dict[str, Any] = {"latency_ms": given.latency_ms, "concurrency": given.concurrency}
        allowed = given.concurrency / (given.latency_ms / 1000)
        alone = given.pages / asyncio.run(bare(url, pages=given.pages, **shape))
        print(f"bare   {given.pages} pages by httpx alone: {alone:.0f} pages/s, {alone / allowed:.0%}")
        for kind, days in (("page", 1), ("cursor", DAYS)):
            each = -(-given.pages // days)
            pages = each * days
            config = described(kind, rows=each * ROWS_A_PAGE, **shape)
            began, cpu_s = time.perf_counter(), time.process_time()
            found, calls = asyncio.run(read(config, url, [first + timedelta(days=n) for n in range(days)]))
            took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
            assert found.table.num_rows == pages * ROWS_A_PAGE
            reached = pages / took_s / allowed
            failed |= reached < LEAST
            print(
                f"{kind:6} {pages} pages, {found.table.num_rows:,} rows, {calls} calls in {took_s:.2f} s: "
                f"{pages / took_s:.0f} pages/s of {allowed:.0f} allowed by {given.concurrency} at once, "
                f"{reached:.0%} ({pages / took_s / alone:.0%} of bare); {cpu_s:.2f} s of CPU"
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

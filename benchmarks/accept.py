"""What it costs to accept a run: the API beside bare Ray Serve with FastAPI and one append to the ledger.

    python -m benchmarks.accept [--requests 300] [--clients 1 32] [--quick]

A local stack of its own: embedded BigQuery, Ray (2 CPUs) and the API, with limits out of the way. In turns,
at each number of clients: *bare*, a FastAPI route under the same Ray Serve that validates a body and answers
202; *append*, one row of `org_meta_pipeline_runs` by `Central.append`, each client a thread of its own;
*accept*, POST /api/v1/pipelines/run/..., an organisation's key, each a new run, answered 202 when
it is on record. The supervisor is held (SIGSTOP): carrying runs out is not accepting them. Goal: p50
and p99 of *accept* within 1.5 x (*bare* + *append*). Manta's own share is what lies above that sum.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlsplit

from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict
from ray import serve as ray_serve

from benchmarks.stack import stack, supervisor_pid
from cluster.connect import connect
from engine.plan import request_key
from engine.runs import Origin, Run
from engine.settings import Settings
from engine.types import RunRequest
from engine.workplace import Workplace, open_workplace
from sandbox.state import admin_key

ORGS = [f"bench_{n:02}" for n in range(20)]
PIPELINE = "anthropic/usage_cost"
FIRST_DAY = date(2025, 1, 1)
LIMITS = {
    "API_REQUESTS_PER_MINUTE": "10000000",
    "API_RUNS_PER_MINUTE": "10000000",
    "MAX_ACTIVE_RUNS": "1000000",
}
ACCEPTED = 202

bare_app = FastAPI()


class Body(BaseModel):
    """What the bare route takes."""

    model_config = ConfigDict(extra="forbid")

    start_date: date
    end_date: date


@bare_app.post("/run", status_code=ACCEPTED)
async def run(body: Body, response: Response) -> dict[str, str]:
    """Validate and answer."""
    response.headers["Location"] = "/runs/1"
    return {"pipeline_logging_id": "1", "status": "PENDING", "day": body.start_date.isoformat()}


@ray_serve.deployment(max_ongoing_requests=200, ray_actor_options={"num_cpus": 0})
@ray_serve.ingress(bare_app)
class Bare:
    """FastAPI under Ray Serve and nothing else."""


async def post(address: tuple[str, int], jobs: asyncio.Queue[bytes], seconds: list[float]) -> None:
    """One client on one connection: send, wait for the answer, send the next."""
    reader, writer = await asyncio.open_connection(*address)
    while not jobs.empty():
        raw = jobs.get_nowait()
        began = time.perf_counter()
        writer.write(raw)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = next(
            int(line.split(":")[1])
            for line in head.split("\r\n")
            if line.lower().startswith("content-length")
        )
        body = await reader.readexactly(length)
        seconds.append(time.perf_counter() - began)
        if f" {ACCEPTED} " not in head.split("\r\n", 1)[0]:
            raise SystemExit(f"not accepted: {head}{body.decode()}")
    writer.close()


def http(address: tuple[str, int], requests: Sequence[bytes], clients: int) -> list[float]:
    """Seconds of each request, `clients` at once."""

    async def drive() -> list[float]:
        jobs: asyncio.Queue[bytes] = asyncio.Queue()
        for raw in requests:
            jobs.put_nowait(raw)
        seconds: list[float] = []
        await asyncio.gather(*(post(address, jobs, seconds) for _ in range(clients)))
        return seconds

    return asyncio.run(drive())


def raw_request(path: str, host: str, body: dict[str, str], **headers: str) -> bytes:
    """A POST as it goes over the wire."""
    content = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + content


def appends(work: Workplace, count: int, clients: int) -> list[float]:
    """Seconds of each append of one run's row, `clients` at once."""

    def one(number: int) -> float:
        request = RunRequest("bench_append", PIPELINE, FIRST_DAY, FIRST_DAY)
        now = datetime.now(UTC)
        key = request_key(request)
        run = Run(f"{key[:16]}-{number}", request, key, "x", "SUCCESS", number, 1, "api", "bench", now)
        began = time.perf_counter()
        work.history.accept([(replace(run, end_time=now), Origin("api", "bench"))], now=now)
        return time.perf_counter() - began

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(one, range(1, count + 1)))


def at(seconds: Sequence[float], share: float) -> float:
    """A percentile in milliseconds."""
    return sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))] * 1000


class Bench:
    """A running stack with organisations, keys and the bare app beside the API."""

    def __init__(self, settings: Settings) -> None:
        self.work = open_workplace(settings)
        url = urlsplit(settings.manta_api_url or "")
        self.address = (url.hostname or "", url.port or 0)
        self.host = url.netloc
        self.keys: dict[str, str] = {}
        self._day = 0
        for org in ORGS:
            self.work.tenants.add(org, name=org, admin_email="bench@example.com")
            self.work.tenants.add_credential(org, "anthropic", admin_key("anthropic", org))
            self.work.subscriptions.set_quota(org, daily=None, monthly=None, concurrent=None)
            self.keys[org] = self.work.api_keys.add(org, name="bench", scopes=("run",))[1]
        connect(settings)
        ray_serve.run(Bare.bind(), name="bare", route_prefix="/bare")  # type: ignore[attr-defined]

    def accepts(self, count: int) -> list[bytes]:
        """Requests for as many new runs."""
        found = []
        for number in range(count):
            org = ORGS[number % len(ORGS)]
            self._day += number % len(ORGS) == 0
            day = (FIRST_DAY + timedelta(days=self._day % 600)).isoformat()
            end = (FIRST_DAY + timedelta(days=self._day % 600 + self._day // 600)).isoformat()
            body = {"start_date": day, "end_date": end}
            path = f"/api/v1/pipelines/run/{org}/{PIPELINE}"
            found.append(raw_request(path, self.host, body, X_API_Key=self.keys[org]))
        return found

    def bares(self, count: int) -> list[bytes]:
        """As many requests of the bare route."""
        body = {"start_date": "2026-01-01", "end_date": "2026-01-02"}
        return [raw_request("/bare/run", self.host, body)] * count

    def compare(self, count: int, clients: int) -> None:
        """Measure all three in turns and print them."""
        sides: dict[str, Callable[[int], list[float]]] = {
            "bare": lambda n: http(self.address, self.bares(n), clients),
            "append": lambda n: appends(self.work, n, clients),
            "accept": lambda n: http(self.address, self.accepts(n), clients),
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(4):
            for name, side in sides.items():
                found = side(max(clients, count // 3))
                # The first turn opens connections, starts threads and fills caches.
                seconds[name] += found if turn else []
        print(f"\n{clients} client(s), {len(seconds['accept'])} requests each, load {os.getloadavg()[0]:.1f}")
        print(f"{'':<10}{'p50 ms':>10}{'p99 ms':>10}")
        for name, found in seconds.items():
            print(f"{name:<10}{at(found, 0.5):>10.1f}{at(found, 0.99):>10.1f}")
        for share in (0.5, 0.99):
            whole = at(seconds["bare"], share) + at(seconds["append"], share)
            accept = at(seconds["accept"], share)
            own = accept - whole
            print(
                f"p{share * 100:.0f}: accept / (bare + append) = {accept / whole:.2f} (goal: at most 1.5), "
                f"Manta's own share {own:+.1f} ms"
            )


def main() -> None:
    """Start a stack, measure, stop it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--requests", type=int, default=300)
    options.add_argument("--clients", type=int, nargs="+", default=[1, 32])
    options.add_argument("--quick", action="store_true", help="60 requests")
    given = options.parse_args()
    with stack(**LIMITS) as home:
        bench = Bench(Settings.load())
        held = supervisor_pid(home)
        os.kill(held, signal.SIGSTOP)
        try:
            for clients in given.clients:
                bench.compare(60 if given.quick else given.requests, clients)
        finally:
            os.kill(held, signal.SIGKILL)
        print("Again: python -m benchmarks accept")


if __name__ == "__main__":
    main()

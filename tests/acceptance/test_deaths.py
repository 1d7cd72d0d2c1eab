"""Whatever dies in the middle of a run, the run ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster import coordinator as coordinators
from cluster import services
from cluster import supervisor as supervisors
from cluster.connect import connect
from engine.runs import Run
from engine.types import RunRequest
from serve.cli.desk import RunDoor
from serve.cli.http_runs import HttpRuns, headers_of
from tests.acceptance.conftest import ANTHROPIC, OPENAI, Stack, closed_days

SLOW_S = 8.0


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[RunDoor]:
    settings = stack.workplace().settings
    # Actors are killed by their handles.
    connect(settings)
    yield HttpRuns(str(settings.manta_api_url), headers=headers_of(settings, org_key=None), endpoints={})
    ray.shutdown()


def _request(org: str, pipeline: str = ANTHROPIC, days: int = 3, policy: Any = "missing") -> RunRequest:
    start, end = closed_days(days)
    return RunRequest(org, pipeline, date.fromisoformat(start), date.fromisoformat(end), policy=policy)


def _until[T](what: str, look: Callable[[], T | None], *, seconds: float = 90) -> T:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} did not come within {seconds} s")


def _ended(client: RunDoor, stack: Stack, run: Run, *, seconds: float = 120) -> Run:
    def look() -> Run | None:
        found = stack.workplace().history.get(run.request.org, run.id)
        return found if found is not None and found.terminal else None

    return _until(f"the end of {run.id}", look, seconds=seconds)


def _hold(stack: Stack, org: str, *, seconds: float = SLOW_S) -> None:
    """Make the unit's first call take long, so that something can die meanwhile."""
    stack.sandbox.state.faults.put("timeout", org=org, seconds=seconds, count=1)


def _asked(stack: Stack, org: str) -> bool:
    return bool(stack.sandbox.state.seen.all(org=org))


def _content(stack: Stack, org: str) -> list[dict[str, Any]]:
    sql = (
        "SELECT usage_date, COUNT(*) AS n, SUM(output_tokens) AS tokens, SUM(total_cost) AS usd "
        "FROM anthropic_cost_daily GROUP BY usage_date ORDER BY usage_date"
    )
    rows: list[dict[str, Any]] = stack.workplace().warehouse(org).query(sql, purpose="test").to_pylist()
    return rows


def _worker_of(unit_prefix: str) -> int | None:
    """The process that runs a unit: Ray names a worker after its task."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if title.startswith("ray::") and unit_prefix in title:
                return int(entry.name)
    return None


def test_a_killed_worker_costs_one_attempt(stack: Stack, client: RunDoor) -> None:
    org = stack.org("tyrell", providers=("anthropic",))
    _hold(stack, org)
    run, _ = client.submit(_request(org), trigger_by="test")
    _until("the first call", lambda: _asked(stack, org))

    os.kill(_until("the worker", lambda: _worker_of(f"{ANTHROPIC} {org}")), signal.SIGKILL)
    ended = _ended(client, stack, run)

    assert ended.status == "SUCCESS"
    attempts = [row["attempt"] for row in stack.workplace().history.transitions(org, run.id)]
    assert max(attempts) == 2
    assert len(_content(stack, org)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(supervisors.NAME, marks=pytest.mark.slow), coordinators.NAME])
def test_a_killed_actor_comes_back_and_the_run_goes_on(stack: Stack, client: RunDoor, name: str) -> None:
    org = stack.org(f"weyland_{name.removeprefix('manta-')}", providers=("anthropic",))
    _hold(stack, org)
    run, _ = client.submit(_request(org), trigger_by="test")
    _until("the first call", lambda: _asked(stack, org))

    ray.kill(ray.get_actor(name, namespace="manta"), no_restart=False)
    ended = _ended(client, stack, run)

    assert (ended.id, ended.status) == (run.id, "SUCCESS")
    assert len(_content(stack, org)) == 3
    assert client.submit(_request(org), trigger_by="test")[0].sequence == ended.sequence + 1


@pytest.mark.slow
def test_cancel_stops_within_seconds_and_publishes_nothing_by_halves(stack: Stack, client: RunDoor) -> None:
    org = stack.org("cyberdyne", providers=("anthropic",))
    _hold(stack, org, seconds=60)
    run, _ = client.submit(_request(org), trigger_by="test")
    _until("the first call", lambda: _asked(stack, org))

    answer = stack.manta("cancel", run.id)
    ended = _ended(client, stack, run, seconds=30)
    stack.sandbox.state.faults.clear()
    again, created = client.submit(_request(org), trigger_by="test")

    assert answer.code == 0, answer.err
    assert ended.status == "CANCELLED", ended.error_message
    assert created
    assert again.id != run.id
    assert _ended(client, stack, again).status == "SUCCESS"
    assert len(_content(stack, org)) == 3


@pytest.mark.slow
def test_the_same_request_twice_at_once_is_one_run(stack: Stack, client: RunDoor) -> None:
    org = stack.org("aperture", providers=("anthropic",))
    _hold(stack, org, seconds=3)

    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: client.submit(_request(org), trigger_by="test"), range(8), timeout=120)
        )

    assert len({run.id for run, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    assert _ended(client, stack, answers[0][0]).status == "SUCCESS"


@pytest.mark.slow
def test_the_warehouse_may_be_away_for_half_a_minute(stack: Stack, client: RunDoor) -> None:
    org = stack.org("oscorp", providers=("anthropic",))
    _hold(stack, org, seconds=2)
    run, _ = client.submit(_request(org), trigger_by="test")
    _until("the first call", lambda: _asked(stack, org))
    warehouse = services.running(stack.home)["warehouse"]
    ports = [int(warehouse.endpoints[name].rsplit(":", 1)[1]) for name in ("rest", "grpc")]

    os.kill(warehouse.pid, signal.SIGKILL)
    back = threading.Timer(
        30, lambda: services.start_warehouse(stack.home, project="local", port=ports[0], grpc_port=ports[1])
    )
    back.start()
    back.join()
    ended = _ended(client, stack, run)

    assert ended.status == "SUCCESS"
    assert len(_content(stack, org)) == 3


@pytest.mark.slow
def test_one_tenants_long_run_does_not_hold_up_another(stack: Stack, client: RunDoor) -> None:
    long, short = (
        stack.org("monolith", providers=("anthropic",)),
        stack.org("sprite", providers=("anthropic",)),
    )
    stack.sandbox.state.faults.put("timeout", org=long, seconds=2, count=1000)
    slow, _ = client.submit(_request(long, days=400), trigger_by="test")
    _until("the first call", lambda: _asked(stack, long))

    quick, _ = client.submit(_request(short, days=1), trigger_by="test")
    ended = _ended(client, stack, quick)
    still = stack.workplace().history.get(long, slow.id)
    client.cancel(long, slow.id)

    assert ended.status == "SUCCESS"
    assert still is not None
    assert not still.terminal
    assert _ended(client, stack, slow, seconds=60).status == "CANCELLED"


@pytest.mark.slow
def test_units_bear_readable_names(stack: Stack, client: RunDoor) -> None:
    org = stack.org("vault_tec")
    run, _ = client.submit(_request(org, OPENAI, days=2), trigger_by="test")

    _ended(client, stack, run)

    start, end = closed_days(2)
    named = {row["entity_name"] for row in stack.workplace().history.transitions(org, run.id)}
    assert named == {f"{OPENAI} {org} {start}..{end}"}

"""An accepted run outlives its replica, its supervisor, and a restart of all of Ray and the API."""

from __future__ import annotations

import os
import signal

import httpx
import pytest

from cluster import processes, services
from tests.acceptance.api_client import Api, until
from tests.acceptance.conftest import ANTHROPIC, Stack

TABLES = ["anthropic_cost_daily", "anthropic_usage_daily_raw", "focus_anthropic_daily"]


def _processes(stack: Stack, title: str) -> list[int]:
    """The pids of this stack's Ray processes of that title."""
    ray = services.running(stack.home)["ray"]
    family = processes.belonging(processes.look(ray.pid), "")
    found = []
    for process in family:
        try:
            name = (processes.PROC / str(process.pid) / "cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(f"ray::{title}".encode()):
            found.append(process.pid)
    return found


def _held_run(api: Api, org: str, *, seconds: float) -> str:
    """A run whose first call is under way for so long."""
    api.stack.org(org, providers=("anthropic",))
    api.stack.sandbox.state.faults.put("timeout", org=org, seconds=seconds, count=1)
    answer = api.run(org, ANTHROPIC)
    assert answer.status_code == 202, answer.text
    until("the first call", lambda: api.stack.sandbox.state.seen.all(org=org))
    return str(answer.json()["pipeline_logging_id"])


def _published(stack: Stack, org: str) -> list[str]:
    """The partitions on record as published, one entry each time."""
    sql = (
        "SELECT table_name, day FROM org_meta_partitions "
        "WHERE org_slug = @org_slug AND state = 'COMMITTED' ORDER BY table_name"
    )
    found = stack.workplace().central.query(sql, {}, org=org, purpose="test-ledger")
    return [str(row["table_name"]) for row in found.to_pylist()]


@pytest.mark.slow
def test_a_killed_replica_loses_no_accepted_run(stack: Stack) -> None:
    api = Api(stack)
    run_id = _held_run(api, "durmstrang", seconds=5)
    replicas = _processes(stack, "ServeReplica:")
    assert replicas

    for pid in replicas:
        os.kill(pid, signal.SIGKILL)

    assert api.ended(run_id)["status"] == "SUCCESS"
    assert _published(stack, "durmstrang") == TABLES
    assert set(_processes(stack, "ServeReplica:")).isdisjoint(replicas)


@pytest.mark.slow
def test_a_run_of_a_killed_supervisor_goes_on(stack: Stack) -> None:
    api = Api(stack)
    run_id = _held_run(api, "beauxbatons", seconds=8)
    calls = len(stack.sandbox.state.seen.all(org="beauxbatons"))
    (supervisor,) = _processes(stack, "Supervisor")

    os.kill(supervisor, signal.SIGKILL)

    until("the next call", lambda: len(stack.sandbox.state.seen.all(org="beauxbatons")) > calls)
    assert api.ended(run_id)["status"] == "SUCCESS"
    assert _published(stack, "beauxbatons") == TABLES


@pytest.mark.slow
def test_a_cancel_that_was_accepted_survives_the_supervisor(stack: Stack) -> None:
    api = Api(stack)
    run_id = _held_run(api, "castelobruxo", seconds=30)
    (supervisor,) = _processes(stack, "Supervisor")

    assert api.call("DELETE", f"/api/v1/pipelines/runs/{run_id}").status_code == 202
    os.kill(supervisor, signal.SIGKILL)

    assert api.ended(run_id)["status"] == "CANCELLED"


@pytest.mark.slow
def test_a_run_outlives_a_restart_of_ray_and_the_api(stack: Stack) -> None:
    api = Api(stack)
    run_id = _held_run(api, "ilvermorny", seconds=20)
    ray = services.running(stack.home)["ray"]

    os.kill(ray.pid, signal.SIGKILL)
    up = stack.manta("up", "--cpus", "2", "--ports", "free")

    assert up.code == 0, up.err + up.out
    again = Api(stack, httpx.Client(timeout=60, trust_env=False))
    assert again.ended(run_id)["status"] == "SUCCESS"
    assert _published(stack, "ilvermorny") == TABLES

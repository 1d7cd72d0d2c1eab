"""How long accepted runs stand still when the supervisor is killed, or Ray and the API altogether.

    python -m benchmarks.recovery [--orgs 5]

A local stack of its own with the provider sandbox. Runs of several organisations are under way (each first
call is held for a minute); then the supervisor's process is killed, later Ray's head node with everything on
it, and `manta up` is called. Read from the supervisor's own log: seconds from `supervisor_started` of the new
incarnation to `run_started` of each run. Goal: at most 15 s for the last one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from benchmarks.stack import stack, supervisor_pid, up
from cluster import ray_node, services
from engine.root_keys import read_root_keys
from engine.settings import Settings
from engine.workplace import open_workplace
from sandbox.server import running
from sandbox.state import admin_key

PIPELINE = "anthropic/usage_cost"
WITHIN_S = 120.0


def events(home: Path) -> list[dict[str, Any]]:
    """What the supervisors of the present Ray session have logged."""
    logs = (ray_node.folder(home) / "r" / "session_latest" / "logs").glob("worker-*.out")
    lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
    found = [json.loads(line) for line in lines if line.startswith('{"at"')]
    return sorted((one for one in found if one["event"] in ("supervisor_started", "run_started")), key=at)


def at(event: dict[str, Any]) -> datetime:
    """When it was."""
    return datetime.fromisoformat(event["at"])


def seconds(home: Path, runs: int, since: datetime) -> list[float]:
    """From the new supervisor's start to the start of each run."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        new = [event for event in events(home) if at(event) > since]
        starts = [event for event in new if event["event"] == "supervisor_started"]
        going = {event["run_id"]: at(event) for event in new if event["event"] == "run_started"}
        if starts and len(going) == runs:
            return sorted((moment - at(starts[-1])).total_seconds() for moment in going.values())
        time.sleep(0.5)
    raise SystemExit(f"not all runs went on within {WITHIN_S:.0f} s: {events(home)}")


def begin(orgs: int, sandbox: Any) -> None:
    """Start a run for each organisation, each with its first call held."""
    settings = Settings.load()
    work = open_workplace(settings)
    root = {"X-CA-Root-Key": read_root_keys(settings)[0]}
    day = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()
    for number in range(orgs):
        org = f"bench_{number:02}"
        work.tenants.add(org, name=org, admin_email="bench@example.com")
        work.tenants.add_credential(org, "anthropic", admin_key("anthropic", org))
        sandbox.state.faults.put("timeout", org=org, seconds=60, count=10)
        url = f"{settings.manta_api_url}/api/v1/pipelines/run/{org}/{PIPELINE}"
        body = {"date": day}
        httpx.post(url, headers=root, json=body, timeout=60, trust_env=False).raise_for_status()


def told(what: str, found: list[float]) -> None:
    """Print one line."""
    print(f"{what:<28}{len(found)} runs, first {found[0]:.1f} s, last {found[-1]:.1f} s (goal: at most 15)")


def main() -> None:
    """Start a stack, kill, measure, stop."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--orgs", type=int, default=5)
    given = options.parse_args()
    with running(seed=1) as sandbox:
        urls = {"OPENAI_BASE_URL": sandbox.openai_url, "ANTHROPIC_BASE_URL": sandbox.anthropic_url}
        with stack(**urls) as home:
            begin(given.orgs, sandbox)
            seconds(home, given.orgs, datetime(2000, 1, 1, tzinfo=UTC))
            killed = datetime.now(UTC)
            os.kill(supervisor_pid(home), signal.SIGKILL)
            told("supervisor killed", seconds(home, given.orgs, killed))
            killed = datetime.now(UTC)
            os.kill(services.running(home)["ray"].pid, signal.SIGKILL)
            up()
            told("Ray and the API restarted", seconds(home, given.orgs, killed))
            print(f"load {os.getloadavg()[0]:.1f}. Again: python -m benchmarks recovery")


if __name__ == "__main__":
    main()

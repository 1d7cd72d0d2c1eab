"""The run API on a real stack: durable runs, the readme's curl, cancel, quotas, keys, and who may what."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from datetime import date
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from cluster import processes, services
from engine.saas.plans import SaasPlan
from tests.acceptance.api_client import Api, until
from tests.acceptance.conftest import ANTHROPIC, OPENAI, Stack, closed_days
from tests.acceptance.listeners import listening_elsewhere

#: The original readme, word for word.
README_CURL = """\
curl -X POST "http://localhost:8001/api/v1/pipelines/run/{org}/openai/cost/usage_cost" \\
  -H "X-API-Key: $ORG_API_KEY" -d '{"start_date":"2025-12-01","end_date":"2025-12-08"}'
"""
README_EMPTY = """\
curl -X POST "http://localhost:8001/api/v1/pipelines/run/{org}/saas_subscription/costs/saas_cost" \\
  -H "X-API-Key: $ORG_API_KEY" -d '{}'
"""
A_PLAN = SaasPlan(
    subscription_id="slack",
    vendor="Slack",
    plan_name="Pro",
    effective_from=date(2026, 1, 15),
    start_date=date(2026, 1, 15),
    billing_cycle="monthly",
    unit_price=Decimal("8.75"),
    seats=10,
    currency="USD",
)


@pytest.fixture(scope="module")
def api(stack: Stack) -> Api:
    return Api(stack)


def _shell(api: Api, tmp_path: Path, command: str, **environ: str) -> tuple[int, str]:
    """Run a command of the readme as it stands; only where its port leads to is told to curl from outside."""
    host = urlsplit(api.url)
    options = ["silent", 'write-out = "\\n%{http_code}"', f'connect-to = "localhost:8001:{host.netloc}"']
    (tmp_path / ".curlrc").write_text("\n".join(options) + "\n")
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], "CURL_HOME": str(tmp_path), **environ},
        check=True,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def test_the_readmes_curl_starts_a_run(api: Api, stack: Stack, tmp_path: Path) -> None:
    org = stack.org("gringotts", providers=("openai",))
    start, end = closed_days(2)
    command = README_CURL.replace("{org}", org).replace("2025-12-01", start).replace("2025-12-08", end)

    status, body = _shell(api, tmp_path, command, ORG_API_KEY=api.key(org))

    answer = httpx.Response(200, text=body).json()
    assert status == 202, body
    assert answer["org_slug"] == org
    assert answer["pipeline_id"] == f"{org}-openai-cost-usage-cost"
    assert api.ended(answer["pipeline_logging_id"])["status"] == "SUCCESS"


def test_the_readmes_empty_body_runs_the_last_closed_day(api: Api, stack: Stack, tmp_path: Path) -> None:
    org = stack.org("quirinus", providers=())
    stack.workplace().saas_plans(org).change(lambda _: (A_PLAN,), by="test")

    status, body = _shell(api, tmp_path, README_EMPTY.replace("{org}", org), ORG_API_KEY=api.key(org))

    assert status == 202
    assert api.ended(json.loads(body)["pipeline_logging_id"])["status"] == "SUCCESS"
    charged = stack.manta("cost", org, "--json")
    assert [row["provider"] for row in charged.lines] == ["saas_subscription"]


async def _at_once(url: str, key: str, org: str, number: int) -> list[httpx.Response]:
    async with httpx.AsyncClient(
        timeout=120, trust_env=False, limits=httpx.Limits(max_connections=32)
    ) as http:
        return await asyncio.gather(
            *(
                http.post(
                    f"{url}/api/v1/pipelines/run/{org}/{ANTHROPIC}", headers={"X-API-Key": key}, content="{}"
                )
                for _ in range(number)
            )
        )


def test_a_hundred_identical_posts_at_once_are_one_run(api: Api, stack: Stack) -> None:
    org = stack.org("ollivander", providers=("anthropic",))

    answers = asyncio.run(_at_once(api.url, api.key(org), org, 100))

    wrong = [answer.text for answer in answers if answer.status_code not in (200, 202)]
    assert wrong == []
    assert len({answer.json()["pipeline_logging_id"] for answer in answers}) == 1
    assert sum(answer.status_code == 202 for answer in answers) == 1
    run_id = answers[0].json()["pipeline_logging_id"]
    assert api.ended(run_id)["status"] == "SUCCESS"
    assert len(stack.workplace().history.latest(org)) == 1


@pytest.mark.slow
def test_a_run_can_be_followed_event_by_event(api: Api, stack: Stack) -> None:
    org = stack.org("flourish")
    key = api.key(org)
    started = api.run(org, OPENAI, key=key)
    assert started.status_code == 202, started.text
    run_id = started.json()["pipeline_logging_id"]
    api.ended(run_id)

    first = api.call("GET", f"/api/v1/pipelines/runs/{run_id}/events", key=key).json()
    rest = api.call(
        "GET", f"/api/v1/pipelines/runs/{run_id}/events?after={first['next_after']}", key=key
    ).json()
    full = api.call("GET", f"/api/v1/pipelines/runs/{run_id}", key=key).json()
    page = api.call("GET", "/api/v1/pipelines/runs?limit=1", key=key).json()

    assert [event["to_state"] for event in first["events"]] == ["RUNNING", "PUBLISHED"]
    assert rest["events"] == []
    assert full["status"] == "SUCCESS"
    assert full["units"]
    assert [run["pipeline_logging_id"] for run in page["runs"]] == [run_id]


def test_cancel_stops_within_seconds_and_says_so_afterwards(api: Api, stack: Stack) -> None:
    org = stack.org("borgin", providers=("anthropic",))
    key = api.key(org)
    stack.sandbox.state.faults.put("timeout", org=org, seconds=60, count=1)
    run_id = api.run(org, ANTHROPIC, key=key).json()["pipeline_logging_id"]
    until("the first call", lambda: stack.sandbox.state.seen.all(org=org))

    cancelled = api.call("DELETE", f"/api/v1/pipelines/runs/{run_id}", key=key)
    ended = api.ended(run_id, seconds=30)
    again = api.call("DELETE", f"/api/v1/pipelines/runs/{run_id}", key=key)

    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "CANCELLING")
    assert ended["status"] == "CANCELLED"
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


@pytest.mark.slow
def test_what_failed_can_be_tried_again(api: Api, stack: Stack) -> None:
    org = stack.org("scrivenshaft", providers=("anthropic",))
    key = api.key(org)
    stack.sandbox.state.faults.put("negative_count", org=org, count=1)
    failed = api.run(org, ANTHROPIC, key=key).json()["pipeline_logging_id"]
    assert api.ended(failed)["status"] == "FAILED"
    stack.sandbox.state.faults.clear()

    retried = api.call("POST", f"/api/v1/pipelines/runs/{failed}/retry", key=key)

    assert retried.status_code == 202, retried.text
    assert api.ended(retried.json()["pipeline_logging_id"])["status"] == "SUCCESS"
    costs = api.call("GET", f"/api/v1/costs/{org}?by=provider", key=key).json()
    told = stack.manta("cost", org, "--by", "provider", "--json")
    assert [row["cost"] for row in costs["rows"]] == [row["cost"] for row in told.lines]


@pytest.mark.slow
def test_another_organisations_key_gets_nothing_and_is_on_record(api: Api, stack: Stack) -> None:
    mine, theirs = stack.org("malkin", providers=()), stack.org("twilfitt", providers=())
    key = api.key(mine, "admin")

    answers = [
        api.run(theirs, OPENAI, key=key),
        api.call("GET", f"/api/v1/costs/{theirs}", key=key),
        api.call("GET", f"/api/v1/organizations/{theirs}/keys", key=key),
        api.call("GET", f"/api/v1/pipelines/runs?org={theirs}", key=key),
    ]

    assert {answer.status_code for answer in answers} == {403}
    assert all(answer.headers["content-type"] == "application/problem+json" for answer in answers)

    def refused() -> bool:
        found = api.call("GET", f"/api/v1/organizations/{mine}/audit").json()["entries"]
        return any(entry["status"] == "REFUSED" for entry in found)

    until("the refusal on record", refused, seconds=15)


@pytest.mark.slow
def test_a_revoked_key_is_refused_within_the_stated_time(api: Api, stack: Stack) -> None:
    org = stack.org("zonko", providers=())
    made = stack.manta("key", "add", org, "--name", "ci", "--json")
    key, key_id = made.lines[0]["key"], made.lines[0]["org_api_key_id"]
    assert api.call("GET", "/api/v1/pipelines/runs", key=key).status_code == 200

    revoked = stack.manta("key", "revoke", org, key_id)

    assert revoked.code == 0, revoked.err
    until(
        "the refusal",
        lambda: api.call("GET", "/api/v1/pipelines/runs", key=key).status_code == 401,
        seconds=stack.workplace().settings.directory_refresh_seconds + 5,
    )


@pytest.mark.slow
def test_a_quota_holds_and_says_until_when(api: Api, stack: Stack) -> None:
    org = stack.org("eeylops", providers=("anthropic",))
    assert stack.manta("quota", "set", org, "--daily", "1").code == 0
    key = api.key(org)
    api.call("PUT", f"/api/v1/organizations/{org}/quota", json={"daily": 1})
    days = closed_days(2)
    first = api.run(org, ANTHROPIC, {"date": days[0]}, key=key)

    second = api.run(org, ANTHROPIC, {"date": days[1]}, key=key)

    assert first.status_code == 202, first.text
    assert (second.status_code, second.json()["code"]) == (429, "daily_quota")
    assert int(second.headers["Retry-After"]) <= 86_400
    api.ended(first.json()["pipeline_logging_id"])


@pytest.mark.slow
def test_an_idempotency_key_answers_with_the_same_run(api: Api, stack: Stack) -> None:
    org = stack.org("dervish", providers=("anthropic",))
    key, once = api.key(org), {"Idempotency-Key": "monday-1"}
    first = api.run(org, ANTHROPIC, key=key, headers=once)
    api.ended(first.json()["pipeline_logging_id"])

    again = api.run(org, ANTHROPIC, key=key, headers=once)
    other = api.run(org, ANTHROPIC, {"policy": "all"}, key=key, headers=once)

    assert (first.status_code, again.status_code, other.status_code) == (202, 200, 422)
    assert again.json()["pipeline_logging_id"] == first.json()["pipeline_logging_id"]


@pytest.mark.slow
def test_a_tenant_is_suspended_and_removed_with_a_backfill_in_progress(api: Api, stack: Stack) -> None:
    org = stack.org("knockturn", providers=("anthropic",))
    key = api.key(org)
    stack.sandbox.state.faults.put("timeout", org=org, seconds=60, count=1)
    start, end = closed_days(30)
    run_id = api.run(org, ANTHROPIC, {"start_date": start, "end_date": end}, key=key).json()[
        "pipeline_logging_id"
    ]
    until("the first call", lambda: stack.sandbox.state.seen.all(org=org))

    assert api.call("POST", f"/api/v1/organizations/{org}/suspend").status_code == 200
    refused = api.run(org, ANTHROPIC, {"date": start}, key=key)
    removed = stack.manta("org", "remove", org, "--yes", "--grace-days", "0")
    ended = api.ended(run_id, seconds=60)

    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert removed.code == 0, removed.err
    assert ended["status"] == "CANCELLED"
    until("the end of the key", lambda: api.call("GET", "/api/v1/pipelines/runs", key=key).status_code == 401)
    assert stack.manta("org", "purge").code == 0
    assert stack.manta("org", "add", org).code == 0


def test_everything_listens_on_loopback_only(stack: Stack) -> None:
    ray = services.running(stack.home)["ray"]
    family = {process.pid for process in processes.belonging(processes.look(ray.pid), "")}

    assert listening_elsewhere(family) == set()

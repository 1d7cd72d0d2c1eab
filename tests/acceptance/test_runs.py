"""Runs from the command line to the warehouse: what they publish, what they skip, how they fail."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sandbox.server import running
from tests.acceptance.conftest import ANTHROPIC, OPENAI, STARTED, Stack, closed_days

EMPTY = "SELECT COUNT(*) AS n FROM org_meta_partitions WHERE org_slug = @org_slug AND state = 'COMMITTED'"


def _ledger_rows(stack: Stack, org: str) -> int:
    found = stack.workplace().central.query(EMPTY, {}, org=org, purpose="test-ledger")
    return int(found["n"][0].as_py())


def test_what_the_provider_reported_is_in_the_warehouse_and_again_changes_nothing(
    stack: Stack, tmp_path: Path
) -> None:
    org = stack.org("umbrella")
    start, end = closed_days(9)

    first = stack.manta("run", org, OPENAI, "--start", start, "--end", end, "--json")
    again = stack.manta("run", org, OPENAI, "--start", start, "--end", end, "--json")

    assert (first.code, again.code) == (0, 0), first.err + again.err
    assert first.lines[-1]["status"] == again.lines[-1]["status"] == "SUCCESS"
    assert first.lines[-1]["tally"]["load_jobs"] == 3
    assert again.lines[-1]["tally"]["load_jobs"] == 0
    asked = stack.manta(
        "query",
        org,
        "SELECT SUM(input_tokens) AS tokens, (SELECT SUM(total_cost) FROM openai_cost_daily) AS usd "
        "FROM openai_usage_daily_raw WHERE endpoint = 'completions'",
        "--json",
    )
    known = stack.sandbox.state.known_totals(org, *_span(start, end), "openai", now=STARTED)
    assert asked.lines[0]["tokens"] == known["counts"]["completions"]["input_tokens"]
    assert Decimal(asked.lines[0]["usd"]) > 0
    file = tmp_path / "focus.parquet"
    exported = stack.manta(
        "export", org, "--focus", "--start", start, "--end", end, "-o", str(file), "--json"
    )
    assert exported.code == 0, exported.err
    charges = pq.read_table(file)
    assert exported.lines[0]["rows"] == charges.num_rows
    assert sum(charges["BilledCost"].to_pylist()) == Decimal(asked.lines[0]["usd"])


def _span(start: str, end: str) -> tuple[date, date]:
    return date.fromisoformat(start), date.fromisoformat(end) + timedelta(days=1)


@pytest.mark.slow
def test_an_unknown_model_is_unpriced_and_said(stack: Stack) -> None:
    org = stack.org("initech")
    start, end = closed_days(31)

    ran = stack.manta("run", org, OPENAI, "--start", start, "--end", end)

    assert ran.code == 0, ran.err
    assert "gpt-9-nova-preview" in ran.out
    found = stack.manta(
        "query",
        org,
        "SELECT pricing_status, COUNT(total_cost) AS priced, COUNT(*) AS n FROM openai_cost_daily "
        "WHERE model = 'gpt-9-nova-preview' GROUP BY pricing_status",
        "--json",
    )
    assert [(row["pricing_status"], row["priced"]) for row in found.lines] == [("UNPRICED", 0)]


@pytest.mark.slow
def test_a_unit_that_fails_does_not_stop_the_others(stack: Stack) -> None:
    org = stack.org("hooli", providers=("anthropic",))
    # One day more than a unit holds.
    start, end = closed_days(32)
    stack.sandbox.state.faults.put("negative_count", org=org, count=1)

    ran = stack.manta("run", org, ANTHROPIC, "--start", start, "--end", end, "--json")
    retried = stack.manta(
        "run", org, ANTHROPIC, "--start", start, "--end", end, "--policy", "failed", "--json"
    )

    assert ran.code == 1
    assert ran.lines[-1]["status"] == "PARTIAL"
    assert ">= 0" in ran.lines[-1]["error_message"]
    assert "$.data[" in ran.lines[-1]["error_message"]
    assert ran.lines[-1]["tally"]["units_failed"] == 1
    assert retried.code == 0, retried.err
    assert retried.lines[-1]["status"] == "SUCCESS"
    assert retried.lines[-1]["tally"]["units_total"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"name": "revoked_key", "after": 3}, "HTTP 401"),
        ({"name": "string_count"}, "Expected `int`"),
    ],
)
def test_what_only_the_tenant_can_mend_fails_once_and_publishes_nothing(
    stack: Stack, fault: dict[str, object], said: str
) -> None:
    org = stack.org(f"vandelay_{fault['name']}", providers=("openai",))
    stack.sandbox.state.faults.put(**fault, org=org)

    ran = stack.manta("run", org, OPENAI, "--json")

    assert ran.code == 1
    assert ran.lines[-1]["status"] == "FAILED"
    assert said in ran.lines[-1]["error_message"]
    assert _ledger_rows(stack, org) == 0
    shown = stack.manta("show", ran.lines[-1]["run_id"], "--json")
    assert '"attempt":2' not in shown.out.replace(" ", "")


@pytest.mark.slow
def test_a_wrong_key_is_named_with_the_fix(stack: Stack) -> None:
    org = stack.org("pied_piper", providers=())
    added = stack.manta("credential", "add", org, "openai", stdin="sk-admin-nobody-knows-this-one-0000\n")

    ran = stack.manta("run", org, OPENAI)

    assert added.code == 0, added.err
    assert ran.code == 1
    assert "401" in ran.out + ran.err
    assert "Store a valid openai key" in ran.out + ran.err
    assert "nobody-knows-this-one" not in ran.out + ran.err + added.out


@pytest.mark.slow
def test_a_page_that_is_never_json_is_tried_again_then_quarantined(stack: Stack) -> None:
    org = stack.org("massive_dynamic", providers=("anthropic",))
    stack.sandbox.state.faults.put("html", org=org, count=10_000)

    ran = stack.manta("run", org, ANTHROPIC, "--json")

    assert ran.code == 1
    assert ran.lines[-1]["status"] == "FAILED"
    assert "not JSON" in ran.lines[-1]["error_message"]
    assert _ledger_rows(stack, org) == 0


@pytest.mark.slow
def test_faults_that_pass_leave_no_trace(stack: Stack) -> None:
    org = stack.org("soylent", providers=("anthropic",))
    start, end = closed_days(5)
    for fault in ("rate_limited", "server_error", "cut", "truncated_json", "bucket_repeated"):
        stack.sandbox.state.faults.put(fault, org=org, count=1)

    ran = stack.manta("run", org, ANTHROPIC, "--start", start, "--end", end, "--json")

    assert ran.code == 0, ran.err
    known = stack.sandbox.state.known_totals(org, *_span(start, end), "anthropic", now=STARTED)
    asked = stack.manta(
        "query", org, "SELECT SUM(output_tokens) AS tokens FROM anthropic_usage_daily_raw", "--json"
    )
    assert asked.lines[0]["tokens"] == known["counts"]["messages"]["output_tokens"]


@pytest.mark.slow
def test_a_run_asks_the_server_its_own_environment_names(stack: Stack) -> None:
    """Any server that speaks the documented API will do, also one that answers in another style."""
    org = stack.org("globodyne", providers=("anthropic",))
    with running(seed=99, style="nulls") as other:
        ran = stack.manta("run", org, ANTHROPIC, "--json", ANTHROPIC_BASE_URL=other.anthropic_url)
        asked = other.state.seen.all(org=org)

    assert ran.code == 0, ran.err
    assert len(asked) == ran.lines[-1]["tally"]["api_calls"] > 0
    assert not stack.sandbox.state.seen.all(org=org)


def test_services_that_are_not_there_are_said_at_once(stack: Stack) -> None:
    org = stack.org("umbrella")

    for variable in ("BIGQUERY_EMULATOR_HOST", "RAY_ADDRESS"):
        dead = "http://127.0.0.1:9" if variable.startswith("BIG") else "127.0.0.1:9"
        answer = stack.manta("run", org, ANTHROPIC, timeout_s=30, **{variable: dead})
        assert answer.code == 1
        assert "127.0.0.1:9 does not answer" in answer.err
        assert "manta up" in answer.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "umbrella", "openai/cost/usage_cots"), "openai/cost/usage_cost"),
        (("run", "nobody_here", OPENAI), "manta org add"),
        (("run", "umbrella", OPENAI, "--date", "2025-02-30"), "28"),
        pytest.param(
            ("run", "umbrella", OPENAI, "--start", "2025-02-03", "--end", "2025-02-01"),
            "before",
            marks=pytest.mark.slow,
        ),
        pytest.param(("run", "umbrella", OPENAI, "--date", "2199-01-01"), "future", marks=pytest.mark.slow),
        pytest.param(
            ("run", "umbrella", OPENAI, "--start", "2015-01-01", "--end", "2025-01-01"),
            "5 years",
            marks=pytest.mark.slow,
        ),
        pytest.param(("run", "umbrella", OPENAI, "--var", "nosuch=1"), "nosuch", marks=pytest.mark.slow),
        (("query", "umbrella", "DROP TABLE openai_cost_daily"), "SELECT"),
        (("show", "0000000000000000-1"), "0000000000000000-1"),
    ],
)
def test_bad_requests_are_refused_with_exit_code_2(
    stack: Stack, arguments: tuple[str, ...], said: str
) -> None:
    stack.org("umbrella")

    answer = stack.manta(*arguments)

    assert answer.code == 2, answer.out + answer.err
    assert said in answer.err
    assert "fix:" in answer.err
    assert "Traceback" not in answer.err

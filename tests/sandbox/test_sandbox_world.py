"""The sandbox's data, clock, styles, HTTP control and its start as a process."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from sandbox.data import day_rows, known_totals
from sandbox.rows import Late, day_start_s
from sandbox.server import running
from sandbox.state import admin_key
from sandbox.styles import STYLES, dump
from sandbox.usage_anthropic import anthropic_rows
from sandbox.usage_openai import openai_rows

NOW = datetime(2026, 11, 20, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[2]
START, END = date(2026, 10, 1), date(2026, 10, 15)
SPAN = [("start_time", day_start_s(START)), ("end_time", day_start_s(END))]
USAGE = "/usage/completions"
MOMENTS = [("starting_at", "2026-10-01T00:00:00Z"), ("ending_at", "2026-10-15T00:00:00Z")]


@pytest.mark.parametrize("make", [openai_rows, anthropic_rows])
def test_the_same_key_draws_the_same_day(make):
    assert make(1, "acme", START) == make(1, "acme", START)
    assert make(1, "acme", START) != make(2, "acme", START)
    assert make(1, "acme", START) != make(1, "globex", START)
    assert make(1, "acme", START) != make(1, "acme", START + timedelta(days=1))


def test_draws_do_not_depend_on_the_process():
    code = (
        "from datetime import date; from sandbox.data import known_totals;"
        "print(known_totals('acme', date(2026, 10, 1), date(2026, 10, 3), 'openai')['billed_usd'])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    known = known_totals("acme", START, START + timedelta(days=2), "openai")
    assert Decimal(out.stdout.strip()) == known["billed_usd"]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_days_are_of_the_promised_size(provider):
    days = [START + timedelta(days=n) for n in range(120)]
    sizes = {day: len(day_rows(provider, 1, "acme", day, 1.0)) for day in days}
    work = [size for day, size in sizes.items() if day.weekday() < 5 and size]
    rest = [size for day, size in sizes.items() if day.weekday() >= 5 and size]
    assert min(work) >= 60
    assert max(work) <= 200
    assert sum(rest) / len(rest) < 0.7 * sum(work) / len(work)
    assert 1 <= sum(not size for size in sizes.values()) <= 15, "some days are empty"
    bigger = day_rows(provider, 1, "acme", max(work_days(sizes)), 3.0)
    assert len(bigger) > 2 * sizes[max(work_days(sizes))]


def work_days(sizes):
    return [day for day, size in sizes.items() if day.weekday() < 5 and size]


def test_totals_of_parts_are_the_totals_of_the_whole():
    middle = date(2026, 10, 8)
    for provider in ("openai", "anthropic"):
        whole = known_totals("acme", START, END, provider)
        parts = known_totals("acme", START, middle, provider), known_totals("acme", middle, END, provider)
        assert sum(part["billed_usd"] for part in parts) == whole["billed_usd"]
        assert sum(model["billed_usd"] for model in whole["models"].values()) == whole["billed_usd"]
        assert sum(whole["days"].values()) == whole["billed_usd"] == sum(whole["labels"].values())


def visible(sandbox, day, provider="openai"):
    after = day + timedelta(days=1)
    return sandbox.state.known_totals("acme", day, after, provider, now=sandbox.state.now())["rows"]


def test_usage_arrives_late_and_never_shrinks(openai, sandbox):
    day = date(2026, 10, 6)
    query = [("start_time", day_start_s(day)), ("end_time", day_start_s(day) + 86_400)]
    grown = []
    for hours in (12, 24, 30, 48, 60, 72, 200):
        sandbox.state.set_clock(datetime(2026, 10, 6, tzinfo=UTC) + timedelta(hours=hours))
        rows = openai.rows(USAGE, query)
        grown.append(sum(row["input_tokens"] for row in rows))
    assert grown == sorted(grown)
    assert grown[0] < grown[1] < grown[2] < grown[3] < grown[5]
    whole = sandbox.state.known_totals("acme", day, day + timedelta(days=1), "openai")
    assert grown[-1] == whole["counts"]["completions"]["input_tokens"]


def test_known_totals_at_a_time_are_what_the_api_shows_then(openai, sandbox):
    now = datetime(2026, 10, 10, 6, tzinfo=UTC)
    sandbox.state.set_clock(now)
    known = sandbox.state.known_totals("acme", START, END, "openai", now=now)
    rows = openai.rows(USAGE, SPAN)
    assert sum(row["input_tokens"] for row in rows) == known["counts"]["completions"]["input_tokens"]
    buckets = openai.buckets(USAGE, SPAN)
    assert all(not bucket["results"] for bucket in buckets if bucket["start_time"] > now.timestamp())


def test_some_organisations_are_corrected_after_three_days(sandbox):
    found = 0
    for org in ("acme", "globex", "initech", "umbrella", "hooli"):
        for day in (START + timedelta(days=n) for n in range(14)):
            args = (org, day, day + timedelta(days=1), "anthropic")
            end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
            before = known_totals(*args, now=end + timedelta(hours=71))
            after = known_totals(*args, now=end + timedelta(hours=73))
            found += before["rows"] + 1 == after["rows"]
            assert before["rows"] <= after["rows"] <= before["rows"] + 1
            assert after["rows"] == known_totals(*args)["rows"]
    assert found


def test_the_late_rule_can_be_set(sandbox):
    sandbox.state.set_clock(datetime(2026, 10, 7, tzinfo=UTC))
    held_back = visible(sandbox, date(2026, 10, 6))
    sandbox.state.late = Late(share=0.0)
    assert visible(sandbox, date(2026, 10, 6)) > held_back


@pytest.mark.parametrize("style", STYLES)
def test_every_style_has_the_same_required_totals(openai, anthropic, sandbox, style):
    sandbox.state.set_style(style)
    known = sandbox.state.known_totals("acme", START, END, "openai")
    rows = openai.rows(USAGE, [*SPAN, ("group_by", "model")])
    for name in ("input_tokens", "output_tokens", "num_model_requests"):
        assert sum(row[name] for row in rows) == known["counts"]["completions"][name]
    assert all(row["model"] for row in rows)
    costs = openai.pages("/costs", [*SPAN, ("limit", 180), ("group_by", "line_item")])
    amounts = [
        row["amount"]["value"] for page in costs for bucket in page["data"] for row in bucket["results"]
    ]
    assert {type(amount) for amount in amounts} == ({str} if style == "strings" else {float})
    known = sandbox.state.known_totals("acme", START, END, "anthropic")
    rows = anthropic.rows("/usage_report/messages", MOMENTS)
    output = sum(row["output_tokens"] for row in rows)
    assert output == known["counts"]["messages"]["output_tokens"]
    billed = sum(Decimal(row["amount"]) for row in anthropic.rows("/cost_report", MOMENTS))
    assert billed / 100 == known["billed_usd"]


def test_money_is_written_with_all_its_digits():
    amounts = [Decimal("0.12345678901234567890123"), Decimal("1E-9"), Decimal("1E+3"), Decimal("2.50")]
    assert dump(amounts) == b"[0.12345678901234567890123,0.000000001,1000,2.5]"


def test_what_each_style_changes(openai, sandbox):
    def first(style):
        sandbox.state.set_style(style)
        page = openai.get(USAGE, [*SPAN, ("group_by", "model")]).json()
        return page, next(bucket for bucket in page["data"] if bucket["results"])

    full, bucket = first("full")
    names = list(bucket["results"][0])
    minimal, bucket = first("minimal")
    required = {"object", "input_tokens", "output_tokens", "num_model_requests", "model"}
    assert set(bucket["results"][0]) == required
    assert len(minimal["data"]) < len(full["data"]), "a page may hold fewer buckets than asked"
    _, bucket = first("nulls")
    assert bucket["results"][0]["input_cached_tokens"] is None
    assert list(bucket["results"][0]) == names[::-1]
    _, bucket = first("extra")
    assert bucket["start_time_iso"].endswith("T00:00:00Z")
    assert set(bucket["results"][0]) > set(names)


def test_a_style_can_be_one_organisations(openai, sandbox):
    sandbox.state.set_style("minimal", org="globex")
    globex = f"Bearer {admin_key('openai', 'globex')}"
    assert len(openai.get(USAGE, SPAN, authorization=globex).json()["data"]) == 4
    assert len(openai.get(USAGE, SPAN).json()["data"]) == 7


def test_the_http_control(openai, sandbox, http):
    control = sandbox.control_url
    about = http.get(f"{control}/state").json()
    assert set(about) == {"seed", "scale", "style", "now", "late", "fault_names", "styles"}
    put = http.post(f"{control}/faults", json={"name": "server_error", "path": "/costs", "count": 2})
    assert put.json()["faults"][0]["count"] == 2
    many = {"faults": [{"name": "html"}, {"name": "timeout", "seconds": 0.1}]}
    assert len(http.post(f"{control}/faults", json=many).json()["faults"]) == 3
    assert openai.get("/costs", SPAN).status_code == 500
    assert http.delete(f"{control}/faults").json() == {"faults": []}
    assert http.get(f"{control}/seen", params={"path": "/costs"}).json()["requests"][0]["status"] == 500
    assert http.delete(f"{control}/seen").json() == {"requests": []}
    key = admin_key("openai", "acme")
    assert http.put(f"{control}/keys", json={"key": key}).json() == {"revoked": 1}
    assert openai.get("/costs", SPAN).status_code == 401
    http.put(f"{control}/keys", json={"key": key, "revoked": False})
    assert openai.get("/costs", SPAN).status_code == 200
    assert http.put(f"{control}/late", json={"share": 0.9}).json()["share"] == 0.9
    assert http.put(f"{control}/style", json={"style": "nulls"}).json()["style"] == "nulls"
    set_to = http.put(f"{control}/clock", json={"now": "2026-10-03T00:00:00Z"}).json()
    assert set_to == {"now": "2026-10-03T00:00:00+00:00"}
    moved = http.put(f"{control}/clock", json={"advance_s": 60}).json()
    assert moved == {"now": "2026-10-03T00:01:00+00:00"}
    totals = http.get(
        f"{control}/totals",
        params={"org": "acme", "start": str(START), "end": str(END), "provider": "openai"},
    ).json()
    known = sandbox.state.known_totals("acme", START, END, "openai")
    assert Decimal(totals["billed_usd"]) == known["billed_usd"]
    assert http.post(f"{control}/reset").json()["style"] == "full"
    other = sandbox.anthropic_url + "/_sandbox/state"
    assert http.get(other).json()["seed"] == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/faults", {"name": "flood"}),
        ("POST", "/faults", {"nome": "html"}),
        ("PUT", "/clock", {"now": "2026-10-03T00:00:00"}),
        ("PUT", "/clock", {}),
        ("PUT", "/style", {"style": "baroque"}),
        ("PUT", "/late", {"half": 1}),
        ("GET", "/totals", None),
    ],
)
def test_the_control_refuses_what_it_does_not_know(sandbox, http, method, path, body):
    answer = http.request(method, sandbox.control_url + path, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_control_requests_are_not_seen(sandbox, http):
    http.get(f"{sandbox.control_url}/state")
    assert sandbox.state.seen.all() == []


def test_it_listens_on_loopback_only():
    with pytest.raises(ValueError, match="loopback"), running(host="0.0.0.0"):
        pass


def test_two_sandboxes_do_not_share_anything(sandbox):
    with running(seed=2, now=NOW) as other:
        other.state.faults.put("html")
        assert sandbox.state.faults.as_json() == []
        assert other.openai_url != sandbox.openai_url


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_says_where_it_listens_and_stops_when_asked(number):
    command = [sys.executable, "-m", "sandbox", "--seed", "3", "--now", "2026-11-20T00:00:00+00:00"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], 20)
            assert ready, "it says nothing"
            urls = json.loads(process.stdout.readline())
            assert set(urls) == {"openai", "anthropic", "control", "gcp", "rest"}
            assert httpx.get(urls["control"] + "/state").json()["seed"] == 3
            bare = httpx.get(urls["openai"] + "/organization/costs")
            assert bare.status_code == 401
            assert httpx.get(urls["anthropic"] + "/v1/organizations/cost_report").status_code == 401
            began = time.monotonic()
            process.send_signal(number)
            assert process.wait(timeout=5) == 0
            assert time.monotonic() - began < 3
            assert process.stdout.read() == b""
            assert process.stderr.read() == b""
        finally:
            process.kill()

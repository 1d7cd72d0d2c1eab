"""Each scripted fault, as a client meets it on a real socket; and what the sandbox remembers."""

from __future__ import annotations

import json
import time
from datetime import UTC, date, datetime
from pathlib import Path

import httpx
import pytest

from sandbox.faults import NAMES
from sandbox.rows import day_start_s
from sandbox.seen import MOST, Request, Seen
from sandbox.state import admin_key

START, END = date(2026, 10, 1), date(2026, 10, 15)
SPAN = [("start_time", day_start_s(START)), ("end_time", day_start_s(END)), ("limit", 3)]
USAGE = "/usage/completions"
MESSAGES = "/usage_report/messages"
ANTHROPIC_SPAN = [("starting_at", "2026-10-01T00:00:00Z"), ("ending_at", "2026-10-15T00:00:00Z")]


def walk(client, path, params, *, most=20):
    """Walk as a careless client does: follow next_page while has_more, look at nothing else."""
    pages, cursor = [], []
    for _ in range(most):
        pages.append(client.get(path, [*params, *cursor]).json())
        if not pages[-1]["has_more"] or pages[-1]["next_page"] is None:
            break
        cursor = [("page", pages[-1]["next_page"])]
    return pages


def starts(pages):
    return [bucket["start_time"] for page in pages for bucket in page["data"]]


def test_rate_limited_names_whole_seconds_and_is_bounded(openai, sandbox):
    sandbox.state.faults.put("rate_limited", count=2, seconds=3)
    for _ in range(2):
        answer = openai.get(USAGE, SPAN)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "3"
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert openai.get(USAGE, SPAN).status_code == 200


def test_rate_limited_by_reset_time_only(anthropic, sandbox):
    sandbox.state.faults.put("rate_limited_reset", seconds=2)
    answer = anthropic.get(MESSAGES, ANTHROPIC_SPAN)
    assert answer.status_code == 429
    assert "retry-after" not in answer.headers
    reset = datetime.fromisoformat(answer.headers["anthropic-ratelimit-requests-reset"])
    assert abs((reset - datetime.now(UTC)).total_seconds()) < 4
    assert answer.json()["error"]["type"] == "rate_limit_error"


def test_rate_limited_bare_says_nothing_about_waiting(anthropic, sandbox):
    sandbox.state.faults.put("rate_limited_bare")
    answer = anthropic.get(MESSAGES, ANTHROPIC_SPAN)
    assert answer.status_code == 429
    assert not {"retry-after", "anthropic-ratelimit-requests-reset"} & set(answer.headers)


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [("server_error", 500, "api_error"), ("overloaded", 529, "overloaded_error")],
)
def test_server_errors(anthropic, sandbox, name, status, kind):
    sandbox.state.faults.put(name)
    answer = anthropic.get(MESSAGES, ANTHROPIC_SPAN)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)


def test_timeout_holds_the_answer_back_and_is_seen_at_once(openai, sandbox):
    sandbox.state.faults.put("timeout", seconds=0.6)
    began = time.monotonic()
    with pytest.raises(httpx.ReadTimeout):
        openai.http.get(openai.base + USAGE, params=SPAN, headers=openai.headers, timeout=0.2)
    assert time.monotonic() - began < 0.6
    assert [(request.status, request.fault) for request in sandbox.state.seen.all()] == [(0, "timeout")]
    assert openai.get(USAGE, SPAN).status_code == 200


def test_cut_promises_more_than_it_sends(openai, sandbox):
    sandbox.state.faults.put("cut")
    with pytest.raises(httpx.RemoteProtocolError):
        openai.get(USAGE, SPAN)
    assert openai.get(USAGE, SPAN).status_code == 200


def test_truncated_json_has_a_right_length(openai, sandbox):
    sandbox.state.faults.put("truncated_json")
    answer = openai.get(USAGE, SPAN)
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(answer.content)
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_html_with_200(openai, sandbox):
    sandbox.state.faults.put("html")
    answer = openai.get(USAGE, SPAN)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")


def test_redirect_to_another_host(openai, sandbox):
    sandbox.state.faults.put("redirect")
    answer = openai.get(USAGE, SPAN)
    assert (answer.status_code, answer.headers["location"]) == (307, "http://elsewhere.invalid/")


def test_repeated_cursor_comes_back_as_asked(openai, sandbox):
    sandbox.state.faults.put("repeated_cursor", count=100)
    pages = walk(openai, USAGE, SPAN, most=6)
    assert len(pages) == 6
    assert pages[1]["next_page"] == pages[0]["next_page"]
    assert pages[1] == pages[2]


def test_null_cursor_says_there_is_more_and_not_where(openai, sandbox):
    sandbox.state.faults.put("null_cursor", page=2)
    pages = walk(openai, USAGE, SPAN)
    assert len(pages) == 2
    assert (pages[1]["has_more"], pages[1]["next_page"]) == (True, None)


@pytest.mark.parametrize(("name", "count"), [("bucket_repeated", 15), ("bucket_skipped", 13)])
def test_a_page_that_shifts(openai, sandbox, name, count):
    sandbox.state.faults.put(name, page=2)
    held = starts(walk(openai, USAGE, SPAN))
    assert len(held) == count
    assert len(set(held)) == min(count, 14)
    assert held == sorted(held)


def test_a_shift_waits_for_a_page_that_has_a_next_one(openai, sandbox):
    fault = sandbox.state.faults.put("bucket_skipped", page=5)
    assert len(starts(walk(openai, USAGE, SPAN))) == 14
    assert (fault.count, fault.hits) == (1, 0)


@pytest.mark.parametrize("path", [USAGE, "/costs"])
def test_negative_count(openai, sandbox, path):
    whole = openai.get(path, SPAN).json()
    sandbox.state.faults.put("negative_count")
    spoiled = openai.get(path, SPAN).json()
    assert "-" in json.dumps(first_difference(whole, spoiled)[1])
    assert openai.get(path, SPAN).json() == whole


def test_string_count(openai, sandbox):
    whole = openai.get(USAGE, SPAN).json()
    sandbox.state.faults.put("string_count")
    old, new = first_difference(whole, openai.get(USAGE, SPAN).json())
    assert new == str(old)


def test_string_count_on_a_cost_is_no_number(anthropic, sandbox):
    whole = anthropic.get("/cost_report", ANTHROPIC_SPAN).json()
    sandbox.state.faults.put("string_count")
    assert first_difference(whole, anthropic.get("/cost_report", ANTHROPIC_SPAN).json())[1] == "twelve"


def test_missing_field(openai, sandbox):
    sandbox.state.faults.put("missing_field")
    rows = [row for page in walk(openai, USAGE, SPAN) for bucket in page["data"] for row in bucket["results"]]
    assert sum("input_tokens" not in row for row in rows) == 1


def first_difference(one, two):
    """Give the first pair of leaves in which two JSON values differ."""
    if isinstance(one, dict):
        return next(first_difference(one[k], two[k]) for k in one if one[k] != two[k])
    if isinstance(one, list):
        return next(first_difference(a, b) for a, b in zip(one, two, strict=True) if a != b)
    return one, two


def test_a_key_is_revoked_in_mid_run(openai, sandbox):
    sandbox.state.faults.put("revoked_key", after=2)
    statuses = [openai.get(USAGE, SPAN).status_code for _ in range(5)]
    assert statuses == [200, 200, 401, 401, 401]
    sandbox.state.revoked.clear()
    assert openai.get(USAGE, SPAN).status_code == 200


def test_a_fault_hits_only_whom_it_names(openai, anthropic, sandbox):
    put = sandbox.state.faults.put
    put("server_error", path="/costs", count=9)
    put("server_error", org="globex", count=9)
    put("server_error", provider="anthropic", count=9)
    put("server_error", page=2, count=9)
    first = openai.get(USAGE, SPAN)
    assert first.status_code == 200
    assert openai.get("/costs", SPAN).status_code == 500
    assert anthropic.get(MESSAGES, ANTHROPIC_SPAN).status_code == 500
    globex = f"Bearer {admin_key('openai', 'globex')}"
    assert openai.get(USAGE, SPAN, authorization=globex).status_code == 500
    second = [*SPAN, ("page", first.json()["next_page"])]
    assert openai.get(USAGE, second).status_code == 500


def test_a_refused_query_uses_no_fault_up(openai, sandbox):
    sandbox.state.faults.put("truncated_json")
    assert openai.get(USAGE, [*SPAN, ("group_by", "nothing")]).status_code == 400
    with pytest.raises(json.JSONDecodeError):
        openai.get(USAGE, SPAN).json()


def test_an_unknown_fault_is_refused(sandbox):
    with pytest.raises(ValueError, match="unknown fault 'flood'"):
        sandbox.state.faults.put("flood")


def test_seen_records_everything_but_secrets(openai, sandbox):
    openai.get(USAGE, [*SPAN, ("group_by[]", "model"), ("group_by", "batch")])
    openai.get(USAGE, SPAN, authorization="Bearer sk-proj-secretsecret")
    openai.get("/nothing")
    seen = sandbox.state.seen.all(provider="openai")
    assert [request.status for request in seen] == [200, 403, 404]
    assert seen[0].values("group_by") == ["model", "batch"]
    assert (seen[0].org, seen[0].method, seen[0].page) == ("acme", "GET", 1)
    assert seen[1].key_last4 == "cret"
    text = json.dumps(sandbox.state.seen.as_json())
    assert "secretsecret" not in text
    assert "sk-admin-sandbox" not in text
    assert sandbox.state.seen.all(path="/nothing")[0].status == 404


def test_seen_is_bounded(sandbox):
    seen = Seen()
    for n in range(MOST + 10):
        seen.add(Request("", "openai", None, "GET", str(n), (), {}, None, 1))
    assert len(seen.all()) == MOST
    assert seen.all()[-1].path == str(MOST + 9)


def test_every_fault_name_has_a_test():
    source = Path(__file__).read_text()
    assert [name for name in NAMES if f'"{name}"' not in source] == []

"""Anthropic's usage and cost reports as documented (facts section 2), over real sockets."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest

from sandbox.anthropic import FAST_BETA, USAGE_GROUPS
from sandbox.prices import charges
from sandbox.rows import Row, day_start_s

START, END = date(2026, 10, 1), date(2026, 10, 15)
SPAN = [("starting_at", f"{START}T00:00:00Z"), ("ending_at", f"{END}T00:00:00Z")]
PRICED = ("model", "service_tier", "context_window", "inference_geo", "speed")
USAGE, COST, CODE = "/usage_report/messages", "/cost_report", "/usage_report/claude_code"
ROW = {
    "account_id", "api_key_id", "cache_creation", "cache_read_input_tokens", "context_window",
    "inference_geo", "model", "output_tokens", "server_tool_use", "service_account_id", "service_tier",
    "uncached_input_tokens", "workspace_id",
}  # fmt: skip


def groups(*names):
    return [("group_by[]", name) for name in names]


def error(answer):
    body = answer.json()
    assert set(body) == {"type", "error"}
    assert body["type"] == "error"
    assert set(body["error"]) == {"type", "message"}
    return body["error"]["type"], body["error"]["message"]


def flat(row):
    return {
        "uncached_input_tokens": row["uncached_input_tokens"],
        "cache_read_input_tokens": row["cache_read_input_tokens"],
        "output_tokens": row["output_tokens"],
        **row["cache_creation"],
        **row["server_tool_use"],
    }


def test_usage_rows_have_the_documented_shape(anthropic):
    page = anthropic.get(USAGE, SPAN).json()
    assert set(page) == {"data", "has_more", "next_page"}
    assert page["data"][0]["starting_at"] == "2026-10-01T00:00:00Z"
    assert page["data"][0]["ending_at"] == "2026-10-02T00:00:00Z"
    rows = anthropic.rows(USAGE, SPAN)
    assert all(set(row) == ROW for row in rows)
    dims = set(USAGE_GROUPS) - {"speed"}
    assert all(row[name] is None for row in rows for name in dims)
    assert set(rows[0]["cache_creation"]) == {"ephemeral_1h_input_tokens", "ephemeral_5m_input_tokens"}
    assert set(rows[0]["server_tool_use"]) == {"web_search_requests"}


@pytest.mark.parametrize(
    "group_by", [(), ("model",), ("workspace_id", "api_key_id", "model"), ("service_tier", "inference_geo")]
)
def test_grouping_conserves_totals(anthropic, sandbox, group_by):
    known = sandbox.state.known_totals("acme", START, END, "anthropic")["counts"]["messages"]
    sums = dict.fromkeys(known, 0)
    for row in anthropic.rows(USAGE, [*SPAN, *groups(*group_by)]):
        for name, value in flat(row).items():
            sums[name] += value
    assert sums == known


def test_at_most_five_groupings(anthropic):
    six = [name for name in USAGE_GROUPS if name != "speed"][:6]
    refused = anthropic.get(USAGE, [*SPAN, *groups(*six)])
    assert refused.status_code == 400
    assert error(refused) == (
        "invalid_request_error",
        "Cannot specify more than 5 group_by[] dimensions.",
    )
    assert anthropic.get(USAGE, [*SPAN, *groups(*six[:5])]).status_code == 200


def test_speed_needs_the_beta_header(anthropic):
    assert anthropic.get(USAGE, [*SPAN, *groups("speed")]).status_code == 400
    assert anthropic.get(USAGE, [*SPAN, ("speeds[]", "fast")]).status_code == 400
    betas = f"something-else-2026-01-01, {FAST_BETA}"
    rows = anthropic.rows(USAGE, [*SPAN, *groups(*PRICED)], anthropic_beta=betas)
    assert {row["speed"] for row in rows} == {"fast", "standard"}
    assert {row["service_tier"] for row in rows} == {"standard", "batch", "priority"}
    assert "us" in {row["inference_geo"] for row in rows}
    assert "not_available" in {row["inference_geo"] for row in rows}


def test_data_has_the_variety_a_client_must_survive(anthropic):
    rows = anthropic.rows(USAGE, [*SPAN, *groups("workspace_id", "api_key_id", "model", "context_window")])
    assert None in {row["workspace_id"] for row in rows}
    assert None in {row["api_key_id"] for row in rows}
    assert "claude-unknown-9" in {row["model"] for row in rows}
    assert {row["context_window"] for row in rows} == {"0-200k", "200k-1M"}
    assert any(flat(row)["ephemeral_1h_input_tokens"] for row in rows)
    assert any(flat(row)["web_search_requests"] for row in rows)


@pytest.mark.parametrize("limit", [1, 3, 14, 31])
@pytest.mark.parametrize("path", [USAGE, COST])
def test_any_limit_gives_the_same_buckets(anthropic, path, limit):
    buckets = anthropic.buckets(path, [*SPAN, ("limit", limit)])
    assert buckets == anthropic.buckets(path, SPAN)
    assert len(buckets) == (END - START).days, "empty days are there too"


def test_both_array_spellings_mean_the_same(anthropic):
    bracketed = anthropic.rows(USAGE, [*SPAN, *groups("model", "service_tier")])
    plain = anthropic.rows(USAGE, [*SPAN, ("group_by", "model"), ("group_by", "service_tier")])
    assert plain == bracketed


def test_start_snaps_and_only_buckets_that_end_in_time_are_given(anthropic):
    span = [("starting_at", "2026-10-01T15:30:00+02:00"), ("ending_at", "2026-10-03T12:00:00Z")]
    buckets = anthropic.buckets(USAGE, span)
    assert [bucket["starting_at"] for bucket in buckets] == ["2026-10-01T00:00:00Z", "2026-10-02T00:00:00Z"]


@pytest.mark.parametrize(("width", "default", "most"), [("1d", 7, 31), ("1h", 24, 168), ("1m", 60, 1440)])
def test_limits_of_usage(anthropic, width, default, most):
    query = [("starting_at", f"{START}T00:00:00Z"), ("bucket_width", width)]
    assert len(anthropic.get(USAGE, query).json()["data"]) == default
    assert anthropic.get(USAGE, [*query, ("limit", most)]).status_code == 200
    refused = anthropic.get(USAGE, [*query, ("limit", most + 1)])
    assert refused.status_code == 400
    assert str(most) in error(refused)[1]


@pytest.mark.parametrize(
    ("path", "params"),
    [
        (USAGE, []),
        (USAGE, [("starting_at", "2026-10-01")]),
        (USAGE, [("starting_at", "1790000000")]),
        (USAGE, [("starting_at", "0001-01-01T00:00:00+14:00")]),
        (USAGE, [*SPAN[:1], ("ending_at", "2026-09-01T00:00:00Z")]),
        (USAGE, [*SPAN, ("bucket_width", "1w")]),
        (USAGE, [*SPAN, *groups("description")]),
        (USAGE, [*SPAN, ("context_window[]", "1M")]),
        (USAGE, [*SPAN, ("service_tiers[]", "gold")]),
        (USAGE, [*SPAN, ("limit", "")]),
        (USAGE, [*SPAN, ("page", "page_nonsense")]),
        (USAGE, [*SPAN, ("context_windows[]", "0-200k")]),
        (COST, [*SPAN, ("bucket_width", "1h")]),
        (COST, [*SPAN, ("limit", "32")]),
        (COST, [*SPAN, *groups("api_key_id")]),
        (COST, [*SPAN, ("models[]", "claude-opus-5")]),
        (CODE, [("starting_at", "2026-10-01T00:00:00Z")]),
        (CODE, [("starting_at", "2026-10-01"), ("limit", "1001")]),
        (CODE, [("starting_at", "2026-10-01"), ("ending_at", "2026-10-02")]),
    ],
)
def test_what_is_not_documented_is_refused(anthropic, path, params):
    refused = anthropic.get(path, params)
    assert refused.status_code == 400
    assert error(refused)[0] == "invalid_request_error"


def test_a_cursor_is_bound_to_its_query(anthropic):
    page = anthropic.get(USAGE, SPAN).json()["next_page"]
    assert anthropic.get(USAGE, [*SPAN, ("page", page)]).status_code == 200
    assert anthropic.get(USAGE, [*SPAN, *groups("model"), ("page", page)]).status_code == 400
    stranger = {"x_api_key": "sk-ant-admin-sandbox-globex"}
    assert anthropic.get(USAGE, [*SPAN, ("page", page)], **stranger).status_code == 400


@pytest.mark.parametrize(
    ("header", "value", "status", "kind"),
    [
        ("x_api_key", "", 401, "authentication_error"),
        ("x_api_key", "sk-ant-api03-abc", 403, "permission_error"),
        ("x_api_key", "sk-ant-admin-other", 401, "authentication_error"),
        ("x_api_key", "sk-admin-sandbox-acme", 401, "authentication_error"),
        ("anthropic_version", "2020-01-01", 400, "invalid_request_error"),
    ],
)
def test_headers_are_required(anthropic, header, value, status, kind):
    refused = anthropic.get(USAGE, SPAN, **{header: value})
    assert (refused.status_code, error(refused)[0]) == (status, kind)


def test_the_version_header_is_required(anthropic):
    del anthropic.headers["anthropic-version"]
    assert error(anthropic.get(USAGE, SPAN))[1] == "anthropic-version: header is required"


def test_unknown_paths_answer_in_the_vendors_body(anthropic):
    assert error(anthropic.get("/usage_report/nothing"))[0] == "not_found_error"


def test_costs_are_cents_in_strings_and_add_up(anthropic, sandbox):
    known = sandbox.state.known_totals("acme", START, END, "anthropic")
    for names in ((), ("workspace_id",), ("workspace_id", "description")):
        rows = anthropic.rows(COST, [*SPAN, *groups(*names)])
        assert all(isinstance(row["amount"], str) and row["currency"] == "USD" for row in rows)
        assert sum(Decimal(row["amount"]) for row in rows) / 100 == known["billed_usd"]


def test_cost_rows_are_described_only_when_grouped(anthropic):
    described = ("cost_type", "token_type", "model", "service_tier", "context_window", "description")
    assert all(row[name] is None for row in anthropic.rows(COST, SPAN) for name in described)
    rows = anthropic.rows(COST, [*SPAN, *groups("description")])
    assert {row["cost_type"] for row in rows} == {"tokens", "web_search", "code_execution"}
    assert {row["service_tier"] for row in rows} == {"standard", "batch", None}, "never priority"
    for row in rows:
        if row["cost_type"] == "tokens":
            assert row["description"].startswith("Claude ")
            assert row["model"]
            assert row["token_type"]
        else:
            assert row["model"] is row["service_tier"] is row["token_type"] is row["context_window"] is None


def test_the_documented_row_costs_what_the_vendor_shows():
    counts = {
        "uncached_input_tokens": 1500,
        "cache_read_input_tokens": 200,
        "ephemeral_1h_input_tokens": 1000,
        "ephemeral_5m_input_tokens": 500,
        "output_tokens": 500,
        "web_search_requests": 10,
    }
    dims = dict(zip(PRICED, ("claude-opus-5", "standard", "0-200k", "global", "standard"), strict=True))
    row = Row("messages", day_start_s(date(2026, 10, 15)), dims, counts)
    assert sum(charge.usd for charge in charges(row)) == Decimal("0.133225")


@pytest.mark.parametrize("limit", [1, 7, 20, 1000])
def test_claude_code_pages_by_records(anthropic, limit):
    query = [("starting_at", str(START + timedelta(days=1)))]
    pages = anthropic.pages(CODE, [*query, ("limit", limit)])
    records = [record for page in pages for record in page["data"]]
    assert records == [record for page in anthropic.pages(CODE, query) for record in page["data"]]
    assert records
    assert all(len(page["data"]) <= limit for page in pages)
    for record in records:
        assert record["actor"]["type"] in ("user_actor", "api_actor")
        assert record["customer_type"] in ("api", "subscription")
        assert isinstance(record["model_breakdown"][0]["estimated_cost"]["amount"], float | int)


WORKED = [  # facts 3.4: model, day, dimensions, (uncached, read, output), dollars
    ("claude-opus-4-5-20251101", date(2026, 2, 1), {"service_tier": "batch"}, (8, 0, 1), "32.5"),
    ("claude-opus-5-5", date(2026, 10, 15), {}, (1, 9, Decimal("0.2")), "9.8"),
    ("claude-opus-5", date(2026, 10, 15), {"inference_geo": "us"}, (1, 0, Decimal("0.1")), "8.25"),
    (
        "claude-haiku-4-5-20251001",
        date(2026, 11, 15),
        {"service_tier": "batch"},
        (Decimal("0.5"), 3, 1),
        "2.9",
    ),
    ("claude-opus-5-5", date(2026, 11, 15), {"speed": "fast"}, (1, 0, Decimal("0.1")), "12"),
    (
        "claude-sonnet-4-6",
        date(2026, 3, 1),
        {"context_window": "200k-1M"},
        (Decimal("0.9"), 0, Decimal("0.01")),
        "5.625",
    ),
    (
        "claude-sonnet-4-6",
        date(2026, 3, 13),
        {"context_window": "200k-1M"},
        (Decimal("0.9"), 0, Decimal("0.01")),
        "2.85",
    ),
]


@pytest.mark.parametrize(("model", "day", "differs", "millions", "usd"), WORKED)
def test_the_worked_examples_of_the_facts(model, day, differs, millions, usd):
    uncached, read, output = (int(number * 1_000_000) for number in millions)
    counts = {
        "uncached_input_tokens": uncached,
        "cache_read_input_tokens": read,
        "ephemeral_1h_input_tokens": 0,
        "ephemeral_5m_input_tokens": 0,
        "output_tokens": output,
        "web_search_requests": 0,
    }
    dims = dict(zip(PRICED, (model, "standard", "0-200k", "global", "standard"), strict=True))
    row = Row("messages", day_start_s(day), dims | differs, counts)
    assert sum(charge.usd for charge in charges(row)) == Decimal(usd)

"""OpenAI's usage and costs API as documented (facts section 1), over real sockets."""

from __future__ import annotations

import json
from collections import Counter
from datetime import date, timedelta
from decimal import Decimal

import pytest

from sandbox.data import rows_between
from sandbox.openai import COST_GROUPS, ENDPOINTS
from sandbox.prices import charges
from sandbox.rows import Row, day_start_s
from sandbox.usage_openai import COUNTERS

START, END = date(2026, 10, 1), date(2026, 10, 15)
SPAN = [("start_time", day_start_s(START)), ("end_time", day_start_s(END))]


def message(answer):
    return answer.json()["error"]["message"]


@pytest.mark.parametrize("name", sorted(ENDPOINTS))
def test_every_endpoint_answers_its_envelope_and_row(openai, name):
    page = openai.get(f"/usage/{name}", SPAN).json()
    assert set(page) == {"object", "data", "has_more", "next_page"}
    assert page["object"] == "page"
    assert {bucket["object"] for bucket in page["data"]} == {"bucket"}
    rows = openai.rows(f"/usage/{name}", SPAN)
    endpoint = ENDPOINTS[name]
    assert rows
    for row in rows:
        assert row["object"] == f"organization.usage.{endpoint.name}.result"
        assert set(row) == {"object", *endpoint.required, *endpoint.optional, *endpoint.group_by}
        assert all(row[dim] is None for dim in endpoint.group_by), "ungrouped dimensions are null"


def test_object_names_differ_from_path_names_where_documented():
    assert ENDPOINTS["file_search_calls"].object == "organization.usage.file_searches.result"
    assert ENDPOINTS["web_search_calls"].object == "organization.usage.web_searches.result"
    assert ENDPOINTS["completions"].object == "organization.usage.completions.result"


def test_documented_identities_hold_in_every_row(openai):
    rows = openai.rows("/usage/completions", [*SPAN, *(("group_by", dim) for dim in GROUPS)])
    assert len(rows) > 500
    for row in rows:
        inputs = [row[f"input_{part}_tokens"] for part in ("uncached", "cached", "cache_write")]
        assert row["input_tokens"] == sum(inputs)
        parts = [row[f"input_{part}_tokens"] for part in ("text", "audio", "image")]
        assert row["input_uncached_tokens"] == sum(parts)
        cached = [row[f"input_cached_{part}_tokens"] for part in ("text", "audio", "image")]
        assert row["input_cached_tokens"] == sum(cached)
        assert row["output_tokens"] == sum(
            row[f"output_{part}_tokens"] for part in ("text", "audio", "image")
        )
        assert not (row["batch"] and row["service_tier"] != "default"), "batch reports tier default"


GROUPS = ("project_id", "user_id", "api_key_id", "model", "batch", "service_tier")


def test_data_has_the_variety_a_client_must_survive(openai):
    rows = openai.rows("/usage/completions", [*SPAN, *(("group_by", dim) for dim in GROUPS)])
    values = {dim: {row[dim] for row in rows} for dim in GROUPS}
    assert values["service_tier"] == {"default", "flex", "priority"}
    assert values["batch"] == {True, False}
    assert None in values["api_key_id"]
    assert "gpt-9-nova-preview" in values["model"]
    assert len(values["model"]) >= 8
    assert any(row["input_audio_tokens"] for row in rows)
    assert any(row["output_image_tokens"] for row in rows)


@pytest.mark.parametrize(
    "group_by", [(), ("model",), ("project_id", "api_key_id"), ("batch", "service_tier", "model")]
)
def test_grouping_conserves_totals(openai, sandbox, group_by):
    rows = openai.rows("/usage/completions", [*SPAN, *(("group_by", dim) for dim in group_by)])
    known = sandbox.state.known_totals("acme", START, END, "openai")["counts"]["completions"]
    for name in ("input_tokens", "output_tokens", "num_model_requests", *COUNTERS):
        assert sum(row[name] for row in rows) == known[name]


@pytest.mark.parametrize("name", sorted(ENDPOINTS))
def test_every_endpoint_adds_up_to_the_known_totals(openai, sandbox, name):
    known = sandbox.state.known_totals("acme", START, END, "openai")["counts"].get(name, {})
    sums: Counter[str] = Counter()
    endpoint = ENDPOINTS[name]
    for row in openai.rows(f"/usage/{name}", [*SPAN, *(("group_by[]", dim) for dim in endpoint.group_by)]):
        sums.update({counter: row[counter] for counter in endpoint.required})
    assert {counter: sums[counter] for counter in endpoint.required} == {
        counter: known.get(counter, 0) for counter in endpoint.required
    }


def test_both_array_spellings_mean_the_same(openai):
    plain = openai.rows("/usage/completions", [*SPAN, ("group_by", "model"), ("group_by", "batch")])
    bracketed = openai.rows("/usage/completions", [*SPAN, ("group_by[]", "model"), ("group_by[]", "batch")])
    assert plain == bracketed
    joined = openai.get("/usage/completions", [*SPAN, ("group_by", "model,batch")])
    assert joined.status_code == 400


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 13, 14, 31])
def test_any_limit_gives_the_same_buckets(openai, limit):
    query = [*SPAN, ("group_by", "model")]
    buckets = openai.buckets("/usage/completions", [*query, ("limit", limit)])
    assert buckets == openai.buckets("/usage/completions", query)
    assert [bucket["start_time"] for bucket in buckets] == [
        day_start_s(START + timedelta(days=n)) for n in range((END - START).days)
    ]


def test_limit_counts_buckets_and_defaults_to_seven(openai):
    pages = openai.pages("/usage/completions", SPAN)
    assert [len(page["data"]) for page in pages] == [7, 7]


@pytest.mark.parametrize(
    ("path", "width", "most"),
    [
        ("/usage/completions", "1d", 31),
        ("/usage/completions", "1h", 168),
        ("/usage/completions", "1m", 1440),
        ("/costs", "1d", 180),
    ],
)
def test_limit_above_the_maximum_is_refused_not_clamped(openai, path, width, most):
    query = [*SPAN, ("bucket_width", width)]
    assert openai.get(path, [*query, ("limit", most)]).status_code == 200
    refused = openai.get(path, [*query, ("limit", most + 1)])
    assert refused.status_code == 400
    text = f"Invalid limit provided: {most + 1}. Limit must be less than or equal to {most}."
    assert message(refused) == text
    assert openai.get(path, [*query, ("limit", 0)]).status_code == 400
    assert openai.get(path, [*query, ("limit", "--7")]).status_code == 400


@pytest.mark.parametrize(("width", "count"), [("1h", 24), ("1m", 60)])
def test_narrow_widths_have_their_defaults_and_the_same_totals(openai, width, count):
    day = [("start_time", day_start_s(START)), ("end_time", day_start_s(START + timedelta(days=1)))]
    first = openai.get("/usage/completions", [*day, ("bucket_width", width)]).json()
    assert len(first["data"]) == count
    whole = openai.rows("/usage/completions", day)
    parts = openai.rows("/usage/completions", [*day, ("bucket_width", width), ("limit", 168)][:4])
    assert sum(row["input_tokens"] for row in parts) == sum(row["input_tokens"] for row in whole)


def test_seven_days_from_noon_are_eight_buckets(openai):
    noon = day_start_s(START) + 43_200
    query = [("start_time", noon), ("end_time", noon + 7 * 86_400)]
    buckets = openai.buckets("/usage/completions", query)
    assert len(buckets) == 8
    assert buckets[0]["start_time"] == day_start_s(START)


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/usage/completions", []),
        ("/usage/completions", [("start_time", "2026-10-01")]),
        ("/usage/completions", [("start_time", day_start_s(START) * 1000)]),
        ("/usage/completions", [("start_time", day_start_s(END)), ("end_time", day_start_s(START))]),
        ("/usage/completions", [*SPAN, ("bucket_width", "1w")]),
        ("/usage/completions", [*SPAN, ("group_by", "line_item")]),
        ("/usage/completions", [*SPAN, ("batch", "yes")]),
        ("/usage/completions", [*SPAN, ("page", "page_nonsense")]),
        ("/usage/completions", [*SPAN, ("groupby", "model")]),
        ("/usage/embeddings", [*SPAN, ("group_by", "batch")]),
        ("/usage/vector_stores", [*SPAN, ("group_by", "model")]),
        ("/usage/vector_stores", [*SPAN, ("user_ids", "u")]),
        ("/usage/file_search_calls", [*SPAN, ("models", "gpt-4o")]),
        ("/usage/images", [*SPAN, ("sizes", "10x10")]),
        ("/usage/web_search_calls", [*SPAN, ("context_levels", "huge")]),
        ("/costs", [*SPAN, ("bucket_width", "1h")]),
        ("/costs", [*SPAN, ("group_by", "model")]),
        ("/costs", [*SPAN, ("models", "gpt-4o")]),
        ("/costs", [*SPAN, ("group_by", "user_id"), ("group_by", "project_id")]),
        ("/costs", [("start_time", 1_700_000_000), ("end_time", 1_700_100_000), ("group_by", "api_key_id")]),
    ],
)
def test_what_is_not_documented_is_refused_in_the_vendors_body(openai, path, params):
    refused = openai.get(path, params)
    assert refused.status_code == 400
    assert set(refused.json()) == {"error"}
    assert set(refused.json()["error"]) == {"message", "type", "param", "code"}


def test_a_cursor_is_bound_to_its_query(openai):
    page = openai.get("/usage/completions", SPAN).json()["next_page"]
    assert openai.get("/usage/completions", [*SPAN, ("page", page)]).status_code == 200
    other = [("group_by", "model"), ("page", page)]
    assert openai.get("/usage/completions", [*SPAN, *other]).status_code == 400
    assert openai.get("/usage/embeddings", [*SPAN, ("page", page)]).status_code == 400


def test_filters_keep_only_what_they_name(openai):
    grouped = [*SPAN, ("group_by", "model"), ("group_by", "batch")]
    rows = openai.rows("/usage/completions", grouped)
    model = rows[0]["model"]
    kept = openai.rows("/usage/completions", [*grouped, ("models", model), ("batch", "true")])
    assert kept == [row for row in rows if row["model"] == model and row["batch"]]
    assert openai.rows("/usage/completions", [*SPAN, ("models[]", "no-such-model")]) == []


def test_costs_add_up_to_what_is_billed(openai, sandbox):
    known = sandbox.state.known_totals("acme", START, END, "openai")
    for groups in ((), ("line_item",), COST_GROUPS):
        query = [*SPAN, ("limit", 180), *(("group_by", name) for name in groups)]
        text = openai.get("/costs", query).text
        # Through the raw literal: a float would lose digits.
        page = json.loads(text, parse_float=Decimal, parse_int=Decimal)
        total = sum(row["amount"]["value"] for bucket in page["data"] for row in bucket["results"])
        assert total == known["billed_usd"]
    lines = {row["line_item"] for row in openai.rows("/costs", [*SPAN, ("group_by", "line_item")])}
    assert lines == set(known["labels"])
    assert any(line.startswith("priority | ") for line in lines)
    assert "web search tool calls" in lines


def test_cost_rows_have_the_documented_fields(openai):
    bare = openai.rows("/costs", SPAN)[0]
    assert set(bare) == {
        "object",
        "amount",
        "line_item",
        "project_id",
        "api_key_id",
        "quantity",
        "quantity_unit",
    }
    assert bare["object"] == "organization.costs.result"
    assert bare["amount"]["currency"] == "usd"
    assert all(bare[name] is None for name in ("line_item", "project_id", "api_key_id", "quantity"))
    lined = openai.rows("/costs", [*SPAN, ("group_by", "line_item")])
    assert {"tokens", "images", "characters", "duration_seconds", "gibibyte_hours"} <= {
        row["quantity_unit"] for row in lined
    }


def test_line_items_filter_matches_the_whole_string(openai):
    rows = openai.rows("/costs", [*SPAN, ("group_by", "line_item")])
    wanted = rows[0]["line_item"]
    kept = openai.rows("/costs", [*SPAN, ("group_by", "line_item"), ("line_items[]", wanted)])
    assert kept == [row for row in rows if row["line_item"] == wanted]


@pytest.mark.parametrize(
    ("authorization", "status", "part"),
    [
        ("", 401, "Missing bearer"),
        ("Bearer sk-proj-abcdef", 403, "Missing scopes: api.usage.read"),
        ("Bearer sk-abcdef", 403, "insufficient permissions"),
        ("Bearer sk-admin-other", 401, "Incorrect API key"),
        ("Bearer sk-ant-admin-sandbox-acme", 401, "Incorrect API key"),
        ("Basic sk-admin-sandbox-acme", 401, "Missing bearer"),
        ("Bearer hello", 401, "Incorrect API key"),
    ],
)
def test_only_an_admin_key_opens(openai, authorization, status, part):
    refused = openai.get("/usage/completions", SPAN, authorization=authorization)
    assert refused.status_code == status
    assert part in message(refused)
    assert set(refused.json()["error"]) == {"message", "type", "param", "code"}


def test_unknown_paths_and_methods_answer_in_the_vendors_body(openai):
    assert openai.get("/usage/nothing", SPAN).status_code == 404
    posted = openai.http.post(openai.base + "/costs", headers=openai.headers)
    assert posted.status_code == 405
    assert "error" in posted.json()


def test_organisations_see_their_own_usage(openai):
    query = [*SPAN, ("group_by", "project_id")]
    other = openai.get("/usage/completions", query, authorization="Bearer sk-admin-sandbox-globex").json()
    projects = {row["project_id"] for bucket in other["data"] for row in bucket["results"]}
    assert projects
    assert all(project.startswith("proj_globex_") for project in projects)


def test_a_row_is_never_shared_between_days(sandbox):
    rows = list(rows_between("openai", 1, "acme", day_start_s(START), day_start_s(END)))
    assert all(day_start_s(START) <= row.start_s < day_start_s(END) for row in rows)
    assert [row.start_s for row in rows] == sorted(row.start_s for row in rows)


WORKED = [  # facts 3.4, (model, day, tier, batch, tokens, dollars)
    (
        "gpt-4o-mini-2024-07-18",
        date(2025, 3, 1),
        "default",
        False,
        (3_800_000, 1_200_000, 0, 800_000),
        "1.14",
    ),
    ("gpt-5.6-sol", date(2026, 10, 15), "default", False, (100_000, 100_000, 50_000, 20_000), "1.09"),
    ("gpt-5.6-sol", date(2026, 10, 15), "default", False, (250_000, 100_000, 50_000, 20_000), "1.69"),
    ("gpt-4.1-2025-04-14", date(2026, 10, 15), "default", True, (10_000_000, 0, 0, 1_000_000), "14"),
    ("o3-2025-04-16", date(2026, 10, 15), "flex", False, (1_500_000, 500_000, 0, 300_000), "2.825"),
    ("gpt-4.1-2025-04-14", date(2026, 10, 15), "priority", False, (1_500_000, 500_000, 0, 300_000), "9.8875"),
]


@pytest.mark.parametrize(("model", "day", "tier", "batch", "tokens", "usd"), WORKED)
def test_the_worked_examples_of_the_facts(model, day, tier, batch, tokens, usd):
    uncached, cached, write, output = tokens
    counts = dict.fromkeys(COUNTERS, 0) | {
        "input_text_tokens": uncached,
        "input_cached_text_tokens": cached,
        "input_cache_write_tokens": write,
        "output_text_tokens": output,
    }
    row = Row("completions", day_start_s(day), {"model": model, "service_tier": tier, "batch": batch}, counts)
    assert sum(charge.usd for charge in charges(row)) == Decimal(usd)


def test_audio_is_priced_by_modality():
    counts = dict.fromkeys(COUNTERS, 0) | {
        "input_text_tokens": 600_000,
        "input_audio_tokens": 400_000,
        "output_text_tokens": 50_000,
        "output_audio_tokens": 250_000,
    }
    dims = {"model": "gpt-audio-2025-08-28", "service_tier": "default", "batch": False}
    row = Row("completions", day_start_s(END), dims, counts)
    assert sum(charge.usd for charge in charges(row)) == Decimal("30.8")


@pytest.mark.parametrize(
    ("kind", "model", "counts", "usd"),
    [
        ("embeddings", "text-embedding-3-small", {"input_tokens": 12_345_678}, "0.24691356"),
        ("audio_transcriptions", "whisper-1", {"seconds": 5_400}, "0.54"),
        ("audio_speeches", "tts-1", {"characters": 100_000}, "1.5"),
        ("web_search_calls", "gpt-5.6-sol", {"num_requests": 250}, "2.5"),
    ],
)
def test_small_worked_examples(kind, model, counts, usd):
    row = Row(kind, day_start_s(END), {"model": model}, counts)
    assert sum(charge.usd for charge in charges(row)) == Decimal(usd)

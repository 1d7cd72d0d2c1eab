from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigurationError, CredentialError, DataError, TransientError
from engine.http import RefusedError
from engine.pages.openai import ENDPOINTS, page_decoder
from processors.openai.usage import TABLE, Usage, get_engine

DAYS = tuple(date(2026, 11, 1) + timedelta(n) for n in range(3))
COMPLETIONS = "/organization/usage/completions"
ROW: dict[str, Any] = {
    "object": "organization.usage.completions.result",
    "input_tokens": 1000,
    "output_tokens": 500,
    "num_model_requests": 5,
    "input_cached_tokens": 400,
    "project_id": "proj_1",
    "user_id": None,
    "api_key_id": "key_1",
    "model": "gpt-5.5-2026-04-23",
    "batch": False,
    "service_tier": "default",
}


class Quiet:
    def info(self, event: str, **fields: object) -> None: ...

    warning = error = info

    def bind(self, **fields: object) -> Quiet:
        return self


class Server:
    """Stands where `Http` does: answers each path with the body or error it is given."""

    def __init__(self, answer: Callable[[str, dict[str, list[str]]], Any]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, list[str]]]] = []

    async def get_json(self, path: str, params: Any, decoder: Any, *, headers: Any = None) -> Any:
        query: dict[str, list[str]] = {}
        for name, value in params:
            query.setdefault(name, []).append(value)
        self.asked.append((path, query))
        found = self.answer(path, query)
        if isinstance(found, Exception):
            raise found
        return decoder(found if isinstance(found, bytes) else json.dumps(found).encode())


def second(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def day_of(second: int) -> date:
    return datetime.fromtimestamp(second, UTC).date()


def page_of(rows: Mapping[date, list[Any]], query: Mapping[str, list[str]]) -> dict[str, Any]:
    """Page the days as OpenAI does; a cursor is the second to go on at."""
    start, end = int(query["start_time"][0]), int(query["end_time"][0])
    start = int(query.get("page", [str(start)])[0])
    stop = min(start + 86400 * int(query["limit"][0]), end)
    buckets = [
        {"object": "bucket", "start_time": s, "end_time": s + 86400, "results": rows.get(day_of(s), [])}
        for s in range(start, stop, 86400)
    ]
    more = stop < end
    return {"object": "page", "data": buckets, "has_more": more, "next_page": str(stop) if more else None}


def completions(rows: Mapping[date, list[Any]]) -> Server:
    return Server(lambda path, query: page_of(rows if path == COMPLETIONS else {}, query))


async def run(*servers: Server, **config: Any) -> dict[str, Any]:
    https = {f"cred_{n}": server for n, server in enumerate(servers)}
    context = {"org_slug": "acme", "dates": DAYS, "http": https, "log": Quiet()}
    return await get_engine().execute(config, context)


async def rows_of(*servers: Server, **config: Any) -> list[dict[str, Any]]:
    table: pa.Table = (await run(*servers, **config))["tables"][TABLE]
    return [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]


async def test_every_documented_endpoint_is_asked_at_its_finest_grain() -> None:
    server = completions({})
    result = await run(server)
    asked = {path.rsplit("/", 1)[1]: query for path, query in server.asked}
    assert asked.keys() == ENDPOINTS.keys() - {"decisions"}
    assert asked["completions"] == {
        "start_time": [str(second(DAYS[0]))],
        "end_time": [str(second(DAYS[0]) + 3 * 86400)],
        "bucket_width": ["1d"],
        "limit": ["3"],
        "group_by[]": ["project_id", "user_id", "api_key_id", "model", "batch", "service_tier"],
    }
    assert asked["vector_stores"]["group_by[]"] == ["project_id"]
    assert asked["file_search_calls"]["group_by[]"][-1] == "vector_store_id"
    assert result["status"] == "SUCCESS"
    assert result["tables"][TABLE].num_rows == 0


async def test_a_row_keeps_nulls_absences_lineage_and_position() -> None:
    other = {**ROW, "model": "gpt-4o", "input_cached_tokens": None, "batch": None}
    server = completions({DAYS[1]: [other, ROW]})
    found = await rows_of(server, endpoints=["completions"])
    body = json.dumps(page_of({DAYS[1]: [other, ROW]}, server.asked[0][1])).encode()
    assert found[1] == {
        "usage_date": DAYS[1],
        "endpoint": "completions",
        "project_id": "proj_1",
        "api_key_id": "key_1",
        "model": "gpt-5.5-2026-04-23",
        "batch": False,
        "service_tier": "default",
        "input_tokens": 1000,
        "output_tokens": 500,
        "num_model_requests": 5,
        "input_cached_tokens": 400,
        "x_credential_id": "cred_0",
        "x_source_sha256": sha256(body).hexdigest(),
        "x_source_index": 1,
    }
    assert "input_cached_tokens" not in found[0]
    assert "batch" not in found[0]


async def test_unknown_fields_are_kept_as_json_with_sorted_keys_and_exact_numbers() -> None:
    odd = b'{"z":1.10,"a":{"y":[1,2],"b":12345678901234567890},"organization_id":"org-1",'
    body = b'{"data":[{"start_time":%d,"results":[%s]}],"has_more":false}' % (
        second(DAYS[0]),
        odd + json.dumps(ROW).encode()[1:],
    )
    quiet = {"data": [{"start_time": second(day), "results": []} for day in DAYS], "has_more": False}
    server = Server(lambda path, query: body if query["limit"] == ["3"] else quiet | {"data": []})
    found = await rows_of(server, endpoints=["completions"])
    assert found[0]["extra"] == (
        '{"a":{"b":12345678901234567890,"y":[1,2]},"organization_id":"org-1","z":1.10}'
    )
    assert found[0]["input_tokens"] == 1000


def spoilt(**changes: Any) -> Server:
    row = {name: value for name, value in (ROW | changes).items() if value != "absent"}
    return completions({DAYS[1]: [ROW | {"model": "other"}, row]})


@pytest.mark.parametrize(
    ("changes", "said", "place"),
    [
        ({"input_tokens": -1}, "Expected `int` >= 0", "input_tokens"),
        ({"input_tokens": "1000"}, "Expected `int`, got `str`", "input_tokens"),
        ({"input_tokens": 0.5}, "Expected `int`, got", "input_tokens"),
        ({"input_tokens": None}, "Expected `int`, got `null`", "input_tokens"),
        ({"input_tokens": True}, "Expected `int`, got `bool`", "input_tokens"),
        ({"input_cached_tokens": 2**63}, "Expected `int` <= 9223372036854775807", "input_cached_tokens"),
        ({"input_cached_tokens": 1e300}, "Expected", "input_cached_tokens"),
        ({"model": 5}, "Expected `str | null`, got `int`", "model"),
        ({"batch": "false"}, "Expected `bool | null`, got `str`", "batch"),
        ({"input_tokens": "absent"}, "missing required field `input_tokens`", ""),
        ({"input_tokens": -1, "novel": 1}, "Expected `int` >= 0", "input_tokens"),
    ],
)
async def test_a_broken_row_is_named_by_its_place(changes: dict[str, Any], said: str, place: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        await run(spoilt(**changes), endpoints=["completions"])
    where = "$.data[1].results[1]" + (f".{place}" if place else "")
    assert said in str(caught.value)
    assert str(caught.value).endswith(f"`{where}`")


async def test_an_integer_may_be_spelt_with_a_point() -> None:
    end = second(DAYS[-1]) + 86400
    query = {"start_time": [str(second(DAYS[0]))], "end_time": [str(end)], "limit": ["31"]}
    body = json.dumps(page_of({DAYS[0]: [ROW]}, query)).encode().replace(b": 1000", b": 1000.0")
    found = await rows_of(Server(lambda path, query: body), endpoints=["completions"])
    assert found[0]["input_tokens"] == 1000


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"data": [{"start_time": 1793491201, "results": []}], "has_more": False}, "$.data[0].start_time"),
        ({"data": [{"start_time": 10**15, "results": []}], "has_more": False}, "$.data[0].start_time"),
        ({"data": [{"start_time": 1793491200}], "has_more": False}, "$.data[0]"),
        ({"data": [{"start_time": 1793491200, "results": [[]]}], "has_more": False}, "$.data[0].results[0]"),
        ({"data": []}, "$"),
        ({"error": "odd"}, "$"),
        ([], "$"),
    ],
)
def test_a_broken_envelope_is_named(body: Any, place: str) -> None:
    decode = page_decoder(ENDPOINTS["completions"], credential_id="c")
    with pytest.raises(msgspec.ValidationError) as caught:
        decode(json.dumps(body).encode())
    assert str(caught.value).endswith(f"`{place}`")


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"data":[', b'{"data":[],"has_more":false} tail'])
def test_what_is_no_json_is_left_to_the_retries(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        page_decoder(ENDPOINTS["completions"], credential_id="c")(body)
    assert not isinstance(caught.value, msgspec.ValidationError)


async def test_a_group_that_comes_twice_is_not_added_up() -> None:
    with pytest.raises(DataError, match=r"Credential cred_0: .*2 rows share their dimensions.*key_1"):
        await run(completions({DAYS[0]: [ROW, ROW | {"input_tokens": 1}]}), endpoints=["completions"])


async def test_an_endpoint_the_server_lacks() -> None:
    def answer(path: str, query: Any) -> Any:
        refusal = RefusedError("openai: HTTP 404: no such URL")
        refusal.status = 404
        return refusal if path.endswith("decisions") else page_of({DAYS[0]: [ROW]}, query)

    with pytest.raises(ConfigurationError, match="optional_endpoints"):
        await run(Server(answer), endpoints=["completions", "decisions"])
    found = await rows_of(Server(answer), endpoints=["completions"], optional_endpoints=["decisions"])
    assert [row["endpoint"] for row in found] == ["completions"]


async def test_every_credential_is_read_and_a_failing_one_is_named() -> None:
    servers = [completions({DAYS[0]: [ROW]}), completions({DAYS[0]: [ROW | {"input_tokens": 7}]})]
    found = await rows_of(*servers, endpoints=["completions"])
    assert {(row["x_credential_id"], row["input_tokens"]) for row in found} == {
        ("cred_0", 1000),
        ("cred_1", 7),
    }
    broken = Server(lambda path, query: CredentialError("openai: HTTP 401: no"))
    with pytest.raises(CredentialError, match=r"^Credential cred_1: openai: HTTP 401: no$"):
        await run(servers[0], broken, endpoints=["completions"])
    away = Server(lambda path, query: TransientError("away"))
    with pytest.raises(TransientError, match="Credential cred_0"):
        await run(away, endpoints=["completions"])


async def test_two_keys_of_one_account_are_found() -> None:
    same = {DAYS[0]: [ROW, ROW | {"model": "gpt-4o"}]}
    turned = {DAYS[0]: list(reversed(same[DAYS[0]]))}
    result = await run(completions(same), completions(turned), endpoints=["completions"])
    (finding,) = result["findings"]
    assert (finding.code, finding.subject, finding.rows) == ("same_usage_twice", "cred_0, cred_1", 2)
    assert (await run(completions(same), completions({}), completions({})))["findings"] == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"endpoint": ["x"]}, "config.endpoint: Extra inputs"),
        ({"endpoints": ["chat"]}, "no such endpoint: chat"),
        ({"concurrency": 17}, "config.concurrency"),
        ({"page_days": 32}, "config.page_days"),
    ],
)
async def test_a_wrong_config_is_named(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        await run(completions({}), **config)


async def test_without_a_credential_nothing_is_asked() -> None:
    with pytest.raises(CredentialError, match="acme has no active openai credential"):
        await Usage().execute({}, {"org_slug": "acme", "dates": DAYS, "http": {}, "log": Quiet()})


_TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=8)
_ROWS = st.lists(
    st.builds(
        lambda model, project, tokens, cached, extra: {
            **ROW,
            "model": model,
            "project_id": project,
            "input_tokens": tokens,
            **cached,
            **extra,
        },
        st.none() | _TEXT,
        _TEXT,
        st.integers(0, 2**63 - 1),
        st.sampled_from([{}, {"input_audio_tokens": None}, {"input_audio_tokens": 3}]),
        st.sampled_from([{}, {"novel": {"b": 1, "a": [2.5]}}]),
    ),
    max_size=5,
    unique_by=lambda row: (row["model"], row["project_id"]),
)


@settings(max_examples=40, deadline=None)
@given(
    days=st.lists(_ROWS, min_size=3, max_size=3),
    seed=st.integers(0, 1000),
    limits=st.tuples(st.integers(1, 31), st.integers(1, 31)),
)
def test_page_limit_and_order_change_nothing(days: list[Any], seed: int, limits: tuple[int, int]) -> None:
    shuffle = random.Random(seed)
    plain = dict(zip(DAYS, days, strict=True))
    shuffled = {
        day: shuffle.sample([dict(shuffle.sample(list(row.items()), len(row))) for row in rows], len(rows))
        for day, rows in plain.items()
    }

    def read(rows: Mapping[date, list[Any]], page_days: int) -> list[Any]:
        config: dict[str, Any] = {"endpoints": ["completions"], "page_days": page_days}
        table = asyncio.run(run(completions(rows), **config))["tables"][TABLE]
        kept = table.drop_columns(["x_source_sha256", "x_source_index"])
        return sorted(kept.to_pylist(), key=repr)

    assert read(plain, limits[0]) == read(shuffled, limits[1])

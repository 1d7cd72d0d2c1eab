from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from engine.errors import ConfigurationError, DataError, TransientError
from engine.http import RefusedError
from engine.pages.anthropic import METRICS, page_decoder
from processors.anthropic.usage import TABLE, get_engine

DAYS = tuple(date(2026, 11, 1) + timedelta(n) for n in range(2))
BETA = "fast-mode-2026-02-01"
FILTERS = {"inference_geos[]": "inference_geo", "speeds[]": "speed"}


class Quiet:
    def info(self, event: str, **fields: object) -> None: ...

    warning = error = info

    def bind(self, **fields: object) -> Quiet:
        return self


def use(tokens: int, day: date = DAYS[0], **dims: str | None) -> dict[str, Any]:
    """One finest-grain use; what is not said is the usual."""
    usual = {
        "model": "claude-opus-5",
        "service_tier": "standard",
        "context_window": "0-200k",
        "inference_geo": "global",
        "speed": "standard",
        "workspace_id": "wrkspc_1",
        "api_key_id": "apikey_1",
    }
    return {"day": day, "tokens": tokens, **(usual | dims)}


class Report:
    """Groups and filters uses as the usage report does; `shows` are the fields its rows may have."""

    def __init__(self, uses: Sequence[dict[str, Any]], *, shows_speed: bool = True, drift: int = 0) -> None:
        self.uses, self.shows_speed, self.drift = uses, shows_speed, drift
        self.asked: list[tuple[dict[str, list[str]], dict[str, str]]] = []

    async def get_json(self, path: str, params: Any, decoder: Any, *, headers: Any = None) -> Any:
        query: dict[str, list[str]] = defaultdict(list)
        for name, value in params:
            query[name].append(value)
        self.asked.append((dict(query), dict(headers or {})))
        assert path == "/v1/organizations/usage_report/messages"
        assert len(query["group_by[]"]) <= 5
        uses_speed = "speed" in query["group_by[]"] or "speeds[]" in query
        assert (headers.get("anthropic-beta") == BETA) is uses_speed
        return decoder(json.dumps(self.page(query)).encode())

    def page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        start = datetime.fromisoformat(query["starting_at"][0]).date()
        end = datetime.fromisoformat(query["ending_at"][0]).date()
        data = []
        for n in range((end - start).days):
            day = start + timedelta(n)
            rows = self._rows(day, query)
            data.append(
                {
                    "starting_at": f"{day}T00:00:00Z",
                    "ending_at": f"{day + timedelta(1)}T00:00:00Z",
                    "results": rows,
                }
            )
        return {"data": data, "has_more": False, "next_page": None}

    def _rows(self, day: date, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        sums: dict[tuple[str | None, ...], int] = defaultdict(int)
        for used in self.uses:
            if used["day"] == day and all(used[FILTERS[f]] in query[f] for f in FILTERS if f in query):
                sums[tuple(used[name] for name in query["group_by[]"])] += used["tokens"]
        rows = []
        for group, tokens in sums.items():
            dims = dict(zip(query["group_by[]"], group, strict=True))
            if not self.shows_speed:
                dims.pop("speed", None)
            if self.drift and "api_key_id" in dims:
                self.drift -= 1
                tokens += 1
            rows.append(
                {
                    "uncached_input_tokens": tokens,
                    "cache_read_input_tokens": 0,
                    "output_tokens": tokens * 2,
                    "cache_creation": {
                        "ephemeral_5m_input_tokens": 3 * tokens,
                        "ephemeral_1h_input_tokens": 0,
                    },
                    "server_tool_use": None,
                    **dims,
                }
            )
        return rows


async def run(*reports: Any, **config: Any) -> dict[str, Any]:
    https = {f"cred_{n}": report for n, report in enumerate(reports)}
    context = {"org_slug": "acme", "dates": DAYS, "http": https, "log": Quiet()}
    return await get_engine().execute(config, context)


async def grains(report: Report, **config: Any) -> list[tuple[Any, ...]]:
    """Give (key, geography, speed, tokens) of every row, sorted."""
    table = (await run(report, **config))["tables"][TABLE]
    names = ("api_key_id", "inference_geo", "speed", "uncached_input_tokens")
    return sorted((tuple(row[name] for name in names) for row in table.to_pylist()), key=str)


async def test_one_geography_and_speed_need_two_queries() -> None:
    report = Report(
        [use(5), use(7, api_key_id=None), use(9, model="claude-opus-4-1", inference_geo="not_available")]
    )
    assert await grains(report) == [
        ("apikey_1", "global", "standard", 5),
        ("apikey_1", "not_available", "standard", 9),
        (None, "global", "standard", 7),
    ]
    first, second = (query for query, _ in report.asked)
    assert first["group_by[]"] == ["model", "service_tier", "context_window", "inference_geo", "speed"]
    assert second["group_by[]"] == ["workspace_id", "api_key_id", "model", "service_tier", "context_window"]
    assert (first["starting_at"], first["ending_at"]) == (["2026-11-01T00:00:00Z"], ["2026-11-03T00:00:00Z"])
    assert (first["bucket_width"], first["limit"]) == (["1d"], ["2"])


async def test_several_geographies_and_speeds_are_told_apart_by_filters() -> None:
    uses = [
        use(1), use(2, inference_geo="us"), use(4, speed="fast"), use(8, speed="fast", api_key_id="apikey_2"),
        use(16, api_key_id="apikey_2", inference_geo="us"), use(32, model="claude-haiku-4-5"),
        use(64, DAYS[1]),
    ]  # fmt: skip
    report = Report(uses)
    assert await grains(report) == sorted(
        ((u["api_key_id"], u["inference_geo"], u["speed"], u["tokens"]) for u in uses), key=str
    )
    asked = [(query.get("inference_geos[]"), query.get("speeds[]")) for query, _ in report.asked]
    assert asked[:2] == [(None, None), (None, None)]
    assert sorted(asked[2:], key=str) == [
        (["global"], ["fast"]),
        (["global"], ["standard"]),
        (["us"], ["standard"]),
    ]


async def test_a_geography_that_is_null_among_others_stays_priced_but_unattributed() -> None:
    report = Report([use(1), use(2, inference_geo=None), use(4, DAYS[1])])
    result = await run(report)
    assert await grains(report) == [
        ("apikey_1", "global", "standard", 4),
        (None, "global", "standard", 1),
        (None, None, "standard", 2),
    ]
    assert result["metrics"]["rows_unattributed"] == 2


async def test_a_speed_that_rows_do_not_show_is_told_by_the_filter() -> None:
    uses = [use(1), use(4, speed="fast")]
    assert await grains(Report(uses, shows_speed=False)) == [
        ("apikey_1", "global", "fast", 4),
        ("apikey_1", "global", "standard", 1),
    ]
    with pytest.raises(TransientError, match="filtered by speed is not all usage"):
        await run(Report([*uses, use(8, speed="turbo")], shows_speed=False))


async def test_without_the_speed_grouping_no_beta_is_sent() -> None:
    report = Report([use(1), use(4, speed="fast"), use(2, inference_geo="us")])
    assert await grains(report, group_speed=False) == [
        ("apikey_1", "global", None, 5),
        ("apikey_1", "us", None, 2),
    ]
    assert all(not headers for _, headers in report.asked)


async def test_a_server_without_the_beta_is_a_setting_to_mend() -> None:
    class Older(Report):
        async def get_json(self, *args: Any, **kwargs: Any) -> Any:
            refusal = RefusedError("anthropic: HTTP 400: speed requires the anthropic-beta header.")
            refusal.status = 400
            raise refusal

    with pytest.raises(ConfigurationError, match="group_speed: false") as caught:
        await run(Older([]))
    assert caught.value.field == "config.group_speed"


async def test_reads_that_disagree_are_repeated_and_then_handed_back() -> None:
    assert await grains(Report([use(5)], drift=2)) == [("apikey_1", "global", "standard", 5)]
    with pytest.raises(
        TransientError, match=r"disagree: 2026-11-01, claude-opus-5.*output_tokens by -2"
    ) as caught:
        await run(Report([use(5)], drift=9))
    assert "Credential cred_0" in str(caught.value)


async def test_every_counter_is_kept_and_an_absent_one_is_null() -> None:
    (row,) = (await run(Report([use(5)])))["tables"][TABLE].to_pylist()
    assert [row[name] for name in METRICS] == [5, 0, 15, 0, 10, None]
    assert (row["usage_date"], row["workspace_id"], row["x_credential_id"]) == (DAYS[0], "wrkspc_1", "cred_0")
    assert (row["account_id"], row["extra"], row["x_source_index"]) == (None, None, 0)


async def test_no_usage_is_an_empty_table_and_one_query() -> None:
    report = Report([])
    result = await run(report)
    assert (result["tables"][TABLE].num_rows, len(report.asked)) == (0, 1)


async def test_a_group_that_comes_twice_is_refused() -> None:
    class Twice(Report):
        def _rows(self, day: date, query: dict[str, list[str]]) -> list[dict[str, Any]]:
            return super()._rows(day, query) * 2

    with pytest.raises(DataError, match="share their dimensions"):
        await run(Twice([use(5)]))


ROW = {"uncached_input_tokens": 1, "cache_read_input_tokens": 2, "output_tokens": 3}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ROW | {"output_tokens": -3}, "Expected `int` >= 0 - at `$.data[0].results[1].output_tokens`"),
        (
            ROW | {"cache_creation": {"ephemeral_5m_input_tokens": "7"}},
            "got `str` - at `$.data[0].results[1].cache_creation.ephemeral_5m_input_tokens`",
        ),
        (
            ROW | {"server_tool_use": {"web_search_requests": -1}, "novel": 1},
            "Expected `int` >= 0 - at `$.data[0].results[1].server_tool_use.web_search_requests`",
        ),
        ({"output_tokens": 3}, "missing required field `uncached_input_tokens` - at `$.data[0].results[1]`"),
    ],
)
def test_a_broken_row_is_named_by_its_place(row: dict[str, Any], said: str) -> None:
    page = {"data": [{"starting_at": "2026-11-01T00:00:00Z", "results": [ROW, row]}], "has_more": False}
    with pytest.raises(msgspec.ValidationError) as caught:
        page_decoder(credential_id="c")(json.dumps(page).encode())
    assert str(caught.value).endswith(said)


@pytest.mark.parametrize("moment", ["2026-11-01", "2026-11-01T01:00:00Z", "yesterday", "2026-11-01T00:00:00"])
def test_a_bucket_starts_at_midnight_utc(moment: str) -> None:
    page = {"data": [{"starting_at": moment, "results": []}], "has_more": False}
    with pytest.raises(msgspec.ValidationError, match=r"00:00 UTC, got .*\$\.data\[0\]\.starting_at"):
        page_decoder(credential_id="c")(json.dumps(page).encode())


def test_unknown_nested_fields_are_kept() -> None:
    row = ROW | {
        "cache_creation": {"ephemeral_24h_input_tokens": 5, "ephemeral_1h_input_tokens": 4},
        "a": [1],
    }
    page = {"data": [{"starting_at": "2026-11-01T02:00:00+02:00", "results": [row]}], "has_more": False}
    decoded = page_decoder(credential_id="c")(json.dumps(page).encode())
    (found,) = decoded.content.to_pylist()
    assert found["extra"] == '{"a":[1],"cache_creation":{"ephemeral_24h_input_tokens":5}}'
    assert found["cache_creation_1h_input_tokens"] == 4
    assert found["cache_creation_5m_input_tokens"] is None
    assert decoded.days == (DAYS[0],)

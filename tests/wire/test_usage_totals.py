"""What the processors read adds up to what the sandbox knows, in every spelling of the answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from engine.pages import anthropic, openai
from sandbox.server import Sandbox

START = date(2026, 10, 1)
NESTED = {
    "ephemeral_5m_input_tokens": "cache_creation_5m_input_tokens",
    "ephemeral_1h_input_tokens": "cache_creation_1h_input_tokens",
}


def days(count: int, start: date = START) -> tuple[date, ...]:
    return tuple(start + timedelta(n) for n in range(count))


def known(sandbox: Sandbox, provider: Any, org: str, span: tuple[date, ...]) -> dict[str, dict[str, int]]:
    """Give the sandbox's counts per endpoint under the table's names, without zeros."""
    totals = sandbox.state.known_totals(org, span[0], span[-1] + timedelta(1), provider)
    return {
        kind: {NESTED.get(name, name): count for name, count in counts.items() if count}
        for kind, counts in totals["counts"].items()
        if kind not in ("decisions", "code_execution")
    }


def sums(table: pa.Table, metrics: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Add up every counter per endpoint, without zeros and NULLs."""
    frame = pl.DataFrame(table)
    if "endpoint" not in frame.columns:
        frame = frame.with_columns(endpoint=pl.lit("messages"))
    totals = frame.group_by("endpoint").agg(pl.col(metrics).sum())
    return {
        row["endpoint"]: {name: row[name] for name in metrics if row[name]}
        for row in totals.iter_rows(named=True)
    }


METRICS = {"openai": openai.METRICS, "anthropic": anthropic.METRICS}


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize(("org", "count"), [("acme", 1), ("globex", 7), ("initech", 31), ("umbrella", 45)])
def test_totals_are_the_known_ones(read: Any, sandbox: Sandbox, provider: str, org: str, count: int) -> None:
    span = days(count, date(2026, 9, 15))
    table = read(provider, span, orgs=[org])
    assert sums(table, METRICS[provider]) == known(sandbox, provider, org, span)
    assert set(table["usage_date"].to_pylist()) <= set(span)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("style", ["minimal", "nulls", "extra", "strings"])
def test_every_style_says_the_same(read: Any, sandbox: Sandbox, provider: str, style: str) -> None:
    span, key = days(9), list({"openai": openai.KEY, "anthropic": anthropic.KEY}[provider])
    plain = pl.DataFrame(read(provider, span))
    sandbox.state.set_style(style)
    other = pl.DataFrame(read(provider, span))
    # Optional counters may be absent in a style; keys and required counters may not change.
    required = ["input_tokens", "output_tokens", "images", "num_requests", "usage_bytes"]
    compared = key + ([*required] if provider == "openai" else ["uncached_input_tokens", "output_tokens"])
    assert other.select(compared).sort(key).equals(plain.select(compared).sort(key))
    kept = other.filter(pl.col("extra").is_not_null()).height
    assert kept == (other.height if style == "extra" else 0)


def test_absent_and_null_counters_are_null_never_zero(read: Any, sandbox: Sandbox) -> None:
    for style in ("minimal", "nulls"):
        sandbox.state.set_style(style)
        table = read("openai", days(3))
        assert table["input_cached_tokens"].null_count == table.num_rows
        assert table["input_tokens"].null_count < table.num_rows


@pytest.mark.parametrize("page_days", [1, 4, 31])
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_the_page_limit_changes_nothing(
    read: Any, reader: Callable[[], Any], sandbox: Sandbox, provider: str, page_days: int
) -> None:
    key = list({"openai": openai.KEY, "anthropic": anthropic.KEY}[provider])
    pages = pl.DataFrame(read(provider, days(8), page_days=page_days)).drop(
        "x_source_sha256", "x_source_index"
    )
    whole = reader()
    table = pl.DataFrame(whole(provider, days(8))).drop("x_source_sha256", "x_source_index")
    assert pages.sort(key).equals(table.sort(key))
    assert read.calls == whole.calls * -(-8 // page_days)


def test_every_credential_is_read(read: Any, sandbox: Sandbox) -> None:
    table = read("anthropic", days(2), orgs=["acme", "globex"])
    for org in ("acme", "globex"):
        own = table.filter(pc.equal(table["x_credential_id"], f"cred_{org}"))
        assert sums(own, anthropic.METRICS) == known(sandbox, "anthropic", org, days(2))


def test_the_newer_endpoint_and_grouping_on_request(read: Any, sandbox: Sandbox) -> None:
    span = days(10)
    frame = pl.DataFrame(read("openai", span, optional_endpoints=["decisions"], group_api_source=True))
    assert "decisions" in frame["endpoint"].unique()
    assert set(frame.filter(pl.col("endpoint") == "completions")["api_source"]) == {"agents_api", "unlabeled"}


def test_a_day_is_provisional_until_its_rows_are_in(
    read: Any, reader: Callable[[], Any], sandbox: Sandbox
) -> None:
    """The same day read later has more: nothing is kept between reads."""
    sandbox.state.set_clock(datetime(2026, 11, 10, 1, tzinfo=UTC))
    early = read("anthropic", [date(2026, 11, 9)])
    sandbox.state.set_clock(datetime(2026, 11, 20, tzinfo=UTC))
    late = reader()("anthropic", [date(2026, 11, 9)])
    assert sums(late, anthropic.METRICS) == known(sandbox, "anthropic", "acme", (date(2026, 11, 9),))
    assert early.num_rows < late.num_rows

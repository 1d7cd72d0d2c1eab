"""Money holds for any usage: parts are the total, more costs no less, order is nothing, error is bounded."""

from __future__ import annotations

import random
from decimal import Decimal
from fractions import Fraction

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.prices.book import KEYS, PriceBook
from engine.prices.cards import RateCard
from engine.prices.money import GROUPS, Component, price_usage

PARTS = (
    Component("input_cost", "fresh", "input", "input_cost"),
    Component("cached_input_cost", "cached", "cached_input", "cached_input_cost"),
    Component("short_cost", "short", "cache_write_5m", "cache_write_cost"),
    Component("long_cost", "long", "cache_write_1h", "cache_write_cost"),
    Component("output_cost", "out", "output", "output_cost"),
    Component("web_search_cost", "searches", "web_search", "tool_cost"),
)
SCHEMA = {
    **dict.fromkeys(KEYS, pl.String),
    "usage_date": pl.Date,
    "row": pl.Int64,
    **{part.quantity: pl.Int64 for part in PARTS},
}
Row = dict[str, int | None]
Tariffs = tuple[dict[str, Decimal], ...]
MODELS = ("a", "b", "c")

rate = st.integers(0, 10**9).map(lambda units: Decimal(units).scaleb(-12))
tariff = st.fixed_dictionaries({part.meter: rate for part in PARTS})
counts = st.fixed_dictionaries(
    {part.quantity: st.one_of(st.none(), st.integers(0, 10**13), st.integers(0, 9)) for part in PARTS}
)
usage_rows = st.lists(st.tuples(st.sampled_from(MODELS), counts), min_size=1, max_size=12)
tariffs = st.tuples(tariff, tariff, tariff)


def price(rows: list[tuple[str, Row]], rates: Tariffs) -> list[dict[str, Decimal]]:
    cards = [
        RateCard(provider="p", model=model, match=f'{{"equals":"{model}"}}', rates=own, source="test")
        for model, own in zip(MODELS, rates, strict=True)
    ]
    fixed = dict.fromkeys(KEYS) | {"price_tier": "standard"}
    given_rows = [
        {**fixed, **quantities, "price_model": model, "row": place}
        for place, (model, quantities) in enumerate(rows)
    ]
    frame = pl.DataFrame(given_rows, schema=SCHEMA, orient="row")
    found = price_usage(frame, PriceBook("p", cards), PARTS, table="t", identity=("row",))
    assert found.findings == ()
    return found.rows.to_dicts()


def exact_total(rows: list[tuple[str, Row]], rates: Tariffs) -> Fraction:
    by_model = dict(zip(MODELS, rates, strict=True))
    return sum(
        (
            (quantities[part.quantity] or 0) * Fraction(by_model[model][part.meter])
            for model, quantities in rows
            for part in PARTS
        ),
        Fraction(0),
    )


@settings(max_examples=60, deadline=None)
@given(usage_rows, tariffs)
def test_parts_are_the_total_and_the_sum_is_bounded(rows: list[tuple[str, Row]], rates: Tariffs) -> None:
    found = price(rows, rates)
    for row in found:
        parts = sum(row[part.amount] for part in PARTS)
        assert row["total_cost"] == sum(row[group] for group in GROUPS) == parts
    total = sum(Fraction(row["total_cost"]) for row in found)
    assert abs(total - exact_total(rows, rates)) <= len(rows) * len(PARTS) * Fraction(5, 10**10)


@settings(max_examples=40, deadline=None)
@given(usage_rows, tariffs, st.randoms(use_true_random=False))
def test_the_order_of_rows_is_nothing(
    rows: list[tuple[str, Row]], rates: Tariffs, dice: random.Random
) -> None:
    places = list(range(len(rows)))
    dice.shuffle(places)
    straight, mixed = price(rows, rates), price([rows[place] for place in places], rates)
    for name in ("total_cost", "price_id"):
        assert [row[name] for row in mixed] == [straight[place][name] for place in places]


@settings(max_examples=40, deadline=None)
@given(counts, tariffs, st.sampled_from(PARTS), st.integers(0, 10**12))
def test_more_costs_no_less(quantities: Row, rates: Tariffs, part: Component, extra: int) -> None:
    more = {**quantities, part.quantity: (quantities[part.quantity] or 0) + extra}
    less, greater = price([("a", quantities), ("a", more)], rates)
    assert less["total_cost"] <= greater["total_cost"]
    assert less[part.amount] <= greater[part.amount]

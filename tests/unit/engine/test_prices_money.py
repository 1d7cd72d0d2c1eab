"""Exactness: what Polars loses in silence, and that the product here loses nothing."""

from __future__ import annotations

import ast
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from polars.exceptions import PolarsError

from engine.errors import DataError
from engine.prices.book import KEYS, RATE, PriceBook
from engine.prices.cards import RateCard
from engine.prices.money import Component, price_usage

ROOT = Path(__file__).parents[3]
PARTS = (Component("input_cost", "tokens", "input", "input_cost"),)


def cost(tokens: int | None, rate: str) -> Decimal | None:
    card = RateCard(
        provider="p", model="m", match='{"equals":"m"}', rates={"input": Decimal(rate)}, source="test"
    )
    row = dict.fromkeys(KEYS) | {"price_model": "m", "price_tier": "standard", "tokens": tokens, "row": "r1"}
    schema = dict.fromkeys(KEYS, pl.String) | {"usage_date": pl.Date, "tokens": pl.Int64, "row": pl.String}
    usage = pl.DataFrame([row], schema=schema, orient="row")
    priced = price_usage(usage, PriceBook("p", [card]), PARTS, table="t", identity=("row",))
    amount: Decimal | None = priced.rows["total_cost"][0]
    return amount


def _series(text: str, scale: int) -> pl.Series:
    return pl.Series([Decimal(text)], dtype=pl.Decimal(38, scale))


def test_polars_loses_a_product_of_two_fractional_decimals() -> None:
    assert (_series("0.000000001", 9) * _series("0.000001", 6))[0] == 0
    assert (_series("0.5", 1) * _series("0.05", 2))[0] != Decimal("0.025")
    # Here one factor is whole, so the same rate times a million tokens keeps every digit.
    assert cost(1_000_000, "0.000000001") == Decimal("0.001")


def test_polars_loses_a_quotient() -> None:
    tokens, per_million = _series("100", 4), _series("0.15", 4)
    assert (tokens * per_million / 1_000_000)[0] == 0
    assert (_series("1", 4) / _series("3", 4))[0] == Decimal("0.3333")
    assert cost(100, "0.00000015") == Decimal("0.000015")


def test_floats_lose_a_token() -> None:
    tokens = 2**53 + 1
    assert pl.Series([tokens]).cast(pl.Float64).cast(pl.Int64)[0] == tokens - 1
    assert cost(tokens, "0.000001") == Decimal("9007199254.740993")


@pytest.mark.parametrize(
    ("tokens", "rate", "expected"),
    [
        (1, "0.0000000005", "0"),
        (3, "0.0000000005", "0.000000002"),
        (5, "0.0000000005", "0.000000002"),
        (7, "0.0000000005", "0.000000004"),
        (1, "0.000000000501", "0.000000001"),
        (1, "0.000000000499", "0"),
        (9_223_372_036_854_775_807, "0.000000000001", "9223372.036854776"),
        (9_223_372_036_854_775_807, "0.000000150001", "1383515028900.253225826"),
        (0, "5", "0"),
        (None, "5", "0"),
    ],
)
def test_a_component_is_exact_and_rounded_once_half_even(
    tokens: int | None, rate: str, expected: str
) -> None:
    assert cost(tokens, rate) == Decimal(expected)


def test_an_amount_that_does_not_fit_is_refused_not_wrapped() -> None:
    whole = pl.Series([2**62]).cast(pl.Decimal(38, 0))
    with pytest.raises(PolarsError, match="overflow"):
        whole * pl.Series([Decimal(9 * 10**13)], dtype=RATE)
    with pytest.raises(DataError, match="does not fit"):
        cost(2**62, "90000000000000")


def test_money_is_never_divided_nor_floated_and_multiplied_in_one_place() -> None:
    files = [ROOT / "engine" / "prices" / name for name in ("money.py", "costs.py", "book.py", "sync.py")]
    files += sorted((ROOT / "processors").glob("*/cost.py"))
    products: list[str] = []
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Div | ast.FloorDiv), path
            names = {getattr(node, "id", None), getattr(node, "attr", None)}
            assert not names & {"float", "Float64", "Float32", "truediv", "mul"}, path
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
                products.append(ast.unparse(node))
    bits = "lacks(part).cast(pl.Int32) * (1 << bit)"
    whole = [bits, "key * places"]
    assert sorted(products) == sorted([*whole, "whole * pl.col(f'{part.meter}_rate').fill_null(0)"])


def test_too_many_names_for_one_key_are_refused_not_confused() -> None:
    many = [f"n{place}" for place in range(2_000)]
    usage = pl.DataFrame(dict.fromkeys(KEYS[1:], many)).with_columns(
        pl.lit(1).cast(pl.Int64).alias("tokens"), pl.date(1900, 1, 1).alias("usage_date")
    )
    wide = pl.concat([usage, usage.with_columns(pl.date(2026, 1, 1).alias("usage_date"))])
    with pytest.raises(DataError, match="too many distinct"):
        price_usage(wide, PriceBook("p", []), PARTS, table="t", identity=("price_model",))

"""FLOAT64 to NUMERIC by the rule: the shortest decimal of the double, half-even to 9 places."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DataError
from engine.gcp.amounts import MONEY, add, exact

PLACES = Decimal(1).scaleb(-9)


def by_rule(double: float) -> Decimal:
    return Decimal(repr(double)).quantize(PLACES, ROUND_HALF_EVEN)


# Amounts as they come, those at the edge of a rounding, and those that doubles hold coarsely.
near_halves = st.tuples(
    st.integers(-(10**15), 10**15), st.sampled_from([0.0, 5e-10, 4.9999999e-10, 1e-16])
).map(lambda pair: pair[0] / 1e9 + pair[1])
doubles = st.one_of(
    st.floats(min_value=-1e18, max_value=1e18, allow_nan=False),
    st.decimals(min_value=-(10**6), max_value=10**6, places=10).map(float),
    near_halves,
)


@given(st.lists(st.one_of(doubles, st.none()), max_size=60))
@settings(max_examples=300, deadline=None)
def test_every_double_becomes_what_the_rule_says(values: list[float | None]) -> None:
    found = exact(pa.array(values, pa.float64()), name="cost")
    assert found.type == MONEY
    assert found.to_pylist() == [None if value is None else by_rule(value) for value in values]


@pytest.mark.parametrize(
    ("double", "text"),
    [
        (0.1, "0.100000000"),
        (0.1 + 0.2, "0.300000000"),
        (2.5e-9, "0.000000002"),
        (3.5e-9, "0.000000004"),
        (-0.0, "0"),
        (5e-324, "0"),
        (1005.0048329999999, "1005.004833000"),
        (12345678901234.5, "12345678901234.5"),
        (1e28, "1e28"),
    ],
)
def test_amounts_that_are_easily_got_wrong(double: float, text: str) -> None:
    assert exact(pa.array([double]), name="cost").to_pylist() == [Decimal(text)]


@pytest.mark.parametrize("double", [float("nan"), float("inf"), -1e29, 1.7e308])
def test_what_numeric_cannot_hold_is_refused_by_name(double: float) -> None:
    with pytest.raises(DataError, match=r"credits\.amount"):
        exact(pa.array([1.0, double, None]), name="credits.amount")


def test_columns_of_other_types() -> None:
    assert exact(pa.array([Decimal("1.5")], pa.decimal128(38, 9)), name="c").to_pylist() == [Decimal("1.5")]
    wide = pa.array([Decimal("0.0000000025"), Decimal("-0.0000000035")], pa.decimal256(76, 38))
    assert exact(wide, name="c").to_pylist() == [Decimal("0.000000002"), Decimal("-0.000000004")]
    assert exact(pa.array([7, None]), name="c").to_pylist() == [Decimal(7), None]
    assert exact(pa.nulls(2), name="c").type == MONEY
    with pytest.raises(DataError, match="string is no number"):
        exact(pa.array(["1"]), name="c")
    with pytest.raises(DataError, match="price"):
        exact(pa.array([Decimal(10) ** 30], pa.decimal256(76, 38)), name="price")


def test_a_slice_is_read_from_its_own_beginning() -> None:
    values = pa.array([1.5, None, 2.5, 1e15 + 0.5, None]).slice(1, 3)
    assert exact(values, name="c").to_pylist() == [None, Decimal("2.5"), Decimal("1000000000000000.5")]


def test_a_sum_takes_nothing_for_null() -> None:
    left = exact(pa.array([1.5, None, None]), name="c")
    right = exact(pa.array([-0.25, -1.0, None]), name="c")
    assert add(left, right).to_pylist() == [Decimal("1.25"), Decimal(-1), Decimal(0)]

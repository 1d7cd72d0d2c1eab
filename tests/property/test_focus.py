"""FOCUS for any rows: what is billed is what it costs, no rule is broken, shares are exact."""

from __future__ import annotations

from decimal import Context, Decimal
from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.focus import ai, gcp, saas
from engine.focus.checks import check, reconcile
from engine.focus.exact import day_share, product, scaled
from engine.focus.shape import MONEY, frame_of
from processors.anthropic.cost import MODEL as ANTHROPIC
from processors.openai.cost import MODEL as OPENAI
from tests.focus import rows

SEEDS = st.integers(0, 2**32)
NANOS = 10**9
WIDE = Context(prec=60)
AMOUNTS = st.integers(-(10**16), 10**16).map(lambda n: Decimal(n).scaleb(-9))
POSITIVE = st.integers(1, 10**16).map(lambda n: Decimal(n).scaleb(-9))


def half_even(value: Fraction) -> Decimal:
    return Decimal(round(value * NANOS)).scaleb(-9, context=WIDE)


@pytest.mark.parametrize(
    ("service", "model"), [(ai.OPENAI, OPENAI), (ai.ANTHROPIC, ANTHROPIC)], ids=["openai", "anthropic"]
)
@given(seed=SEEDS, count=st.integers(0, 40))
@settings(deadline=None, max_examples=25)
def test_charges_of_ai_are_its_costs(
    service: ai.AiService, model: ai.CostModel, seed: int, count: int
) -> None:
    usage, costs = rows.ai(model, count, seed=seed)
    charges, _ = ai.convert(service, model, usage, costs, rows.book(model.provider))
    reconcile(charges, costs, table="t", column="total_cost")
    reconcile(charges, costs, table="t", column="total_cost", by="EffectiveCost")
    check(charges, table="t")
    ids = charges["x_ChargeId"].to_pylist()
    assert len(ids) == len(set(ids))


@given(seed=SEEDS, count=st.integers(0, 80))
@settings(deadline=None, max_examples=25)
def test_charges_of_google_cloud_are_its_net_costs(seed: int, count: int) -> None:
    billing = rows.gcp(count, seed=seed)
    charges = gcp.convert(billing)
    reconcile(charges, billing, table="t", column="net_cost")
    reconcile(charges, billing, table="t", column="net_cost", by="EffectiveCost")
    check(charges, table="t")


@given(seed=SEEDS, count=st.integers(1, 8))
@settings(deadline=None, max_examples=25)
def test_subscriptions_are_billed_when_due_and_used_by_the_day(seed: int, count: int) -> None:
    costs = rows.saas(count, seed=seed, days=31)
    charges = saas.convert(costs)
    reconcile(charges, costs, table="t", column="charge_amount")
    reconcile(charges, costs, table="t", column="total_cost", by="EffectiveCost")
    check(charges, table="t")
    # A whole month was generated: what was billed in it is what it cost, whatever its days had of it.
    frame = frame_of(charges.select(["BilledCost", "EffectiveCost", "BillingCurrency"]))
    for _, group in frame.group_by("BillingCurrency"):
        assert group["BilledCost"].sum() == group["EffectiveCost"].sum()


@given(one=AMOUNTS, other=AMOUNTS, of=POSITIVE)
@settings(deadline=None, max_examples=200)
def test_products_and_shares_are_rounded_once(one: Decimal, other: Decimal, of: Decimal) -> None:
    frame = pl.DataFrame({"a": [one], "b": [other], "c": [of]}, schema=dict.fromkeys("abc", MONEY))
    found = frame.select(
        product(pl.col("a"), pl.col("b")).alias("product"),
        scaled(pl.col("a"), to=pl.col("b"), of=pl.col("c")).alias("scaled"),
    ).row(0)
    assert found == (
        half_even(Fraction(one) * Fraction(other)),
        half_even(Fraction(one) * Fraction(other) / Fraction(of)),
    )


@given(amount=POSITIVE, days=st.integers(1, 800))
@settings(deadline=None, max_examples=100)
def test_the_days_of_a_term_sum_to_it(amount: Decimal, days: int) -> None:
    frame = pl.DataFrame({"day": range(1, days + 1)}, schema={"day": pl.Int64}).with_columns(
        pl.lit(amount, dtype=MONEY).alias("amount"), pl.lit(days).alias("days")
    )
    shares = frame.select(day_share(pl.col("amount"), day=pl.col("day"), days=pl.col("days"))).to_series()
    assert shares.sum() == amount
    assert max(abs(Fraction(share) - Fraction(amount) / days) for share in shares) < Fraction(1, NANOS)


def test_what_does_not_fit_is_unknown_and_never_wrong() -> None:
    frame = pl.DataFrame({"a": [Decimal(10) ** 20], "z": [Decimal(0)]}, schema={"a": MONEY, "z": MONEY})
    found = frame.select(
        product(pl.col("a"), pl.col("a")).alias("product"),
        scaled(pl.col("z"), to=pl.col("z"), of=pl.col("z")).alias("scaled"),
    )
    assert found.row(0) == (None, None)

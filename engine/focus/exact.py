"""Products and shares of NUMERICs without a lost digit: in whole nanos, rounded once, half-even.

Polars keeps the larger scale when two fractional decimals are multiplied or any are divided, without a word.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import polars as pl

from engine.focus.shape import MONEY, WHOLE

NANOS: Final = 1_000_000_000
_NANO: Final = pl.lit(Decimal("0.000000001"), dtype=MONEY)
#: Int128 overflows in silence; a product that comes near its end is left unknown.
_LIMIT: Final = 1e37


def nanos(amount: pl.Expr) -> pl.Expr:
    """A NUMERIC as a whole number of its smallest unit."""
    return amount.cast(MONEY).to_physical()


def numeric(whole: pl.Expr) -> pl.Expr:
    """A whole number of nanos as NUMERIC."""
    return (whole.cast(WHOLE) * _NANO).cast(MONEY)


def divided(whole: pl.Expr, by: pl.Expr) -> pl.Expr:
    """Whole numbers divided and rounded half-even; `by` is positive."""
    floor, rest = whole // by, whole % by
    up = (2 * rest > by) | ((2 * rest == by) & (floor % 2 == 1))
    return floor + up.cast(pl.Int128)


def product(one: pl.Expr, other: pl.Expr) -> pl.Expr:
    """Two NUMERICs multiplied, to 9 places; NULL where that does not fit."""
    a, b = nanos(one), nanos(other)
    fits = a.cast(pl.Float64).abs() * b.cast(pl.Float64).abs() < _LIMIT
    return numeric(divided(pl.when(fits).then(a * b), pl.lit(NANOS, dtype=pl.Int128)))


def scaled(amount: pl.Expr, *, to: pl.Expr, of: pl.Expr) -> pl.Expr:
    """`amount` x `to` / `of`, to 9 places; NULL where `of` is not above zero or it does not fit."""
    a, b, c = nanos(amount), nanos(to), nanos(of)
    fits = (c > 0) & (a.cast(pl.Float64).abs() * b.cast(pl.Float64).abs() < _LIMIT)
    return numeric(divided(pl.when(fits).then(a * b), pl.when(fits).then(c).otherwise(1)))


def day_share(amount: pl.Expr, *, day: pl.Expr, days: pl.Expr) -> pl.Expr:
    """The part of an amount that day number `day` (from 1) of `days` has; all days' parts sum to it.

    R(amount x day / days) - R(amount x (day - 1) / days), where R rounds half up as engine.saas.costs does;
    amounts are not negative.
    """
    whole, number, length = nanos(amount), day.cast(pl.Int128), days.cast(pl.Int128)
    until, before = ((2 * whole * n + length) // (2 * length) for n in (number, number - 1))
    return numeric(until - before)

"""FLOAT64 amounts as exact decimals.

The rule: the shortest decimal that reads back as the same double (what Python's `repr` and BigQuery show),
rounded half-even to 9 places. 0.1 is 0.1 and not 0.1000000000000000055; 2.5e-9 is 0.000000002.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import DataError

MONEY = pa.decimal128(38, 9)
WIDE = pa.decimal256(60, 9)
PLACES = Decimal(1).scaleb(-9)
CONTEXT = Context(prec=60, rounding=ROUND_HALF_EVEN)
#: NUMERIC holds 29 digits before the point.
LIMIT = Decimal(10) ** 29
#: Above this many nanos doubles are too coarse for the fast way to decide anything.
COARSE = 2.0**51


def exact(values: Any, *, name: str) -> pa.Array:
    """Amounts as NUMERIC, NULLs kept; `name` is for the message.

    Takes FLOAT64, integers and decimals. Raises DataError for NaN, infinities and what NUMERIC cannot hold.
    """
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if array.type == MONEY:
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), MONEY)
    try:
        if pa.types.is_decimal(array.type):
            rounded = pc.round(array, ndigits=9, round_mode="half_to_even")
            return rounded.cast(WIDE).cast(MONEY)
        if pa.types.is_integer(array.type):
            return array.cast(MONEY)
    except pa.ArrowInvalid as error:
        raise _unfit(name, str(error)) from error
    if not pa.types.is_floating(array.type):
        raise _unfit(name, f"{array.type} is no number")
    return _from_doubles(array, name)


def _from_doubles(array: pa.Array, name: str) -> pa.Array:
    valid = array.is_valid()
    doubles = array.fill_null(0.0).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = doubles * 1e9
        nearest = np.rint(scaled)
        # The product is off by less than one step of its size: away from a half, rounding it is rounding the
        # decimal. What is near a half, or too coarse, goes the long way.
        margin = np.abs(np.abs(scaled - nearest) - 0.5)
        sure = (np.abs(scaled) < COARSE) & (margin > 2 * np.spacing(np.abs(scaled)))
    nanos = np.where(sure, nearest, 0).astype(np.int64)
    found = _numeric(nanos, valid)
    if sure.all():
        return found
    slow = np.flatnonzero(~sure)
    known: dict[float, Decimal] = {}
    for double in doubles[slow].tolist():
        if double not in known:
            known[double] = _by_repr(double, name)
    fixed = pa.array([known[double] for double in doubles[slow].tolist()], MONEY)
    mask = pa.array(~sure)
    return pc.if_else(valid, pc.replace_with_mask(found, mask, fixed), pa.scalar(None, MONEY))


def _by_repr(double: float, name: str) -> Decimal:
    given = Decimal(repr(double))
    if not given.is_finite() or abs(given) >= LIMIT:
        raise _unfit(name, f"{double!r} is nothing that NUMERIC holds")
    # quantize keeps the sign of a zero, which NUMERIC does not have.
    return given.quantize(PLACES, context=CONTEXT) + 0


def _numeric(nanos: Any, valid: pa.Array) -> pa.Array:
    """NUMERIC values from billionths: 128 bits each, little-endian, the upper half being the sign."""
    words = np.empty((len(nanos), 2), dtype="<i8")
    words[:, 0] = nanos
    words[:, 1] = nanos >> 63
    bits = np.packbits(valid.to_numpy(zero_copy_only=False), bitorder="little")
    buffers = [pa.py_buffer(bits.tobytes()), pa.py_buffer(words)]
    return pa.Array.from_buffers(MONEY, len(nanos), buffers)


def add(left: pa.Array, right: pa.Array) -> pa.Array:
    """The sum of two NUMERIC arrays; NULL counts as nothing."""
    zero = pa.scalar(Decimal(0), WIDE)
    parts = [pc.fill_null(part.cast(WIDE), zero) for part in (left, right)]
    # A sum of two is one digit wider than NUMERIC, so it is made where there is room.
    return pc.add_checked(*parts).cast(WIDE).cast(MONEY)


def _unfit(name: str, said: str) -> DataError:
    return DataError(
        f"The export's {name}: {said}.",
        fix="Look the rows up in the export; nothing was published.",
        field=name,
    )

"""Any plan that the model takes: what the property tests and the comparison with the procedure draw."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from engine.saas.plans import MONTHS, SaasPlan

CYCLES = ("weekly", "monthly", "quarterly", "semi_annual", "annual", "custom")
starts = st.dates(date(2018, 1, 1), date(2026, 12, 31))
prices = st.one_of(
    st.just(Decimal(0)),
    st.integers(0, 10**7).map(lambda cents: Decimal(cents).scaleb(-2)),
    st.integers(0, 10**17).map(lambda nanos: Decimal(nanos).scaleb(-9)),
)


@st.composite
def plans(draw: st.DrawFn, *, endless: bool = False, **fixed: Any) -> SaasPlan:
    """One plan; `fixed` fields are given."""
    fields = dict(fixed)
    start = fields.setdefault("start_date", draw(starts))
    first = fields.setdefault("effective_from", start)
    cycle = fields.setdefault("billing_cycle", draw(st.sampled_from(CYCLES)))
    fields["custom_days"] = draw(st.integers(1, 800)) if cycle == "custom" else None
    fields["billing_anchor_day"] = draw(st.none() | st.integers(1, 31)) if cycle in MONTHS else None
    if fields["billing_anchor_day"]:
        fields["billing_anchor_month"] = draw(st.none() | st.integers(1, 12))
    end = None if endless else draw(st.none() | st.integers(0, 900).map(lambda n: first + timedelta(days=n)))
    trial = draw(st.none() | st.integers(0, 60).map(lambda n: start + timedelta(days=n)))
    fields |= {"end_date": end, "trial_end_date": min(trial, end) if trial and end else trial}
    seats, price = draw(st.integers(0, 500)), draw(prices)
    flat = draw(st.booleans())
    kind = draw(st.sampled_from([None, "percent", "fixed"]))
    most = {"percent": Decimal(100), "fixed": price * (1 if flat else seats)}.get(str(kind), Decimal(0))
    value = draw(st.integers(0, 10**7)) * most / 10**7 if kind else None
    fields |= {
        "seats": seats,
        "unit_price": price,
        "pricing_model": "FLAT_FEE" if flat else "PER_SEAT",
        "discount_type": kind,
        "discount_value": value.quantize(Decimal("1e-5")) if value is not None else None,
        "fiscal_year_start_month": draw(st.integers(1, 12)),
    }
    if kind == "fixed" and fields["discount_value"] > most:
        fields["discount_value"] = most
    named = {"subscription_id": "s", "vendor": "V", "plan_name": "P", "currency": "EUR"}
    return SaasPlan.model_validate({**named, **fields})


@st.composite
def subscriptions(draw: st.DrawFn, subscription_id: str = "s") -> list[SaasPlan]:
    """Up to four rows of one subscription, each effective after the one before; some taken back."""
    start = draw(starts)
    first, rows = start, []
    for _ in range(draw(st.integers(1, 4))):
        row = draw(plans(subscription_id=subscription_id, start_date=start, effective_from=first))
        rows.append(row)
        first += timedelta(days=draw(st.integers(1, 300)))
    return rows

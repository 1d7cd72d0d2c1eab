"""A SaaS plan as it is agreed from a day on, and what one full term of it costs."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from engine.located import wrong
from engine.saas.currencies import CURRENCIES

Cycle = Literal["weekly", "monthly", "quarterly", "semi_annual", "annual", "custom"]
#: Months of a term; weekly and custom terms are counted in days.
MONTHS: dict[str, int] = {"monthly": 1, "quarterly": 3, "semi_annual": 6, "annual": 12}
WEEK = 7
#: Plans lie between: the stored procedure counts months from 1900 on and takes two terms of room.
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(2199, 12, 31)
#: A term's list price stays below, so that no step of the computation leaves NUMERIC or INT64.
MOST = Decimal(10) ** 15
NANO = Decimal("0.000000001")
#: More digits than any product of ours has, so that only `quantize` rounds.
EXACT = Context(prec=76)
ZERO = Decimal(0)

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$")]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Day = Annotated[date, Field(ge=FIRST_DAY, le=LAST_DAY)]
# Nine digits after the point, as NUMERIC keeps them.
Amount = Annotated[Decimal, Field(ge=0, lt=MOST, decimal_places=9, allow_inf_nan=False)]


class SaasPlan(BaseModel):
    """What holds for one subscription from `effective_from` on, until its next such row.

    `unit_price` is per term, and per seat with PER_SEAT. `end_date` and `trial_end_date` are the last days.
    A row of status VOID takes back the row of its subscription and `effective_from`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    subscription_id: Id
    vendor: Name
    plan_name: Name
    category: Name | None = None
    effective_from: Day
    start_date: Day
    end_date: Day | None = None
    trial_end_date: Day | None = None
    billing_cycle: Cycle
    custom_days: Annotated[int, Field(ge=1, le=3660)] | None = None
    billing_anchor_day: Annotated[int, Field(ge=1, le=31)] | None = None
    billing_anchor_month: Annotated[int, Field(ge=1, le=12)] | None = None
    pricing_model: Literal["PER_SEAT", "FLAT_FEE"] = "PER_SEAT"
    seats: Annotated[int, Field(ge=0, le=10_000_000)] = 1
    unit_price: Amount
    currency: str
    discount_type: Literal["percent", "fixed"] | None = None
    discount_value: Amount | None = None
    fiscal_year_start_month: Annotated[int, Field(ge=1, le=12)] = 1
    status: Literal["ACTIVE", "CANCELLED", "VOID"] = "ACTIVE"
    department: Name | None = None
    team: Name | None = None
    cost_center: Name | None = None
    owner_email: Name | None = None
    contract_id: Name | None = None
    notes: Annotated[str, StringConstraints(max_length=2000)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _effective_from_the_start(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("effective_from") is None and "start_date" in value:
            return {**value, "effective_from": value["start_date"]}
        return value

    @field_validator("currency")
    @classmethod
    def _iso_4217(cls, code: str) -> str:
        if code not in CURRENCIES:
            raise wrong((), f"{code!r} is no currency of ISO 4217", "write its code, such as USD or EUR")
        return code

    @model_validator(mode="after")
    def _days_in_order(self) -> Self:
        if self.end_date is not None and self.end_date < self.start_date:
            said = f"{self.end_date} lies before start_date {self.start_date}"
            raise wrong(("end_date",), said, "write the last day, on or after the first")
        if self.effective_from < self.start_date:
            said = f"{self.effective_from} lies before start_date {self.start_date}"
            raise wrong(("effective_from",), said, "leave it out for the first terms")
        if self.end_date is not None and self.end_date < self.effective_from:
            said = f"{self.end_date} lies before effective_from {self.effective_from}"
            raise wrong(("end_date",), said, "write the last day these terms hold")
        if self.trial_end_date is not None and not self._inside(self.trial_end_date):
            said = f"{self.trial_end_date} lies outside of the subscription"
            raise wrong(("trial_end_date",), said, "write the trial's last day")
        if self.status == "CANCELLED" and self.end_date is None:
            raise wrong(("end_date",), "is missing", "a cancelled plan names its last day")
        return self

    @model_validator(mode="after")
    def _terms_are_whole(self) -> Self:
        if (self.billing_cycle == "custom") != (self.custom_days is not None):
            fix = "give it with billing_cycle custom, and only then"
            raise wrong(("custom_days",), f"does not go with billing_cycle {self.billing_cycle}", fix)
        if self.billing_cycle not in MONTHS and self.billing_anchor_day is not None:
            fix = "leave it out: such terms are counted from the start"
            raise wrong(("billing_anchor_day",), f"does not go with billing_cycle {self.billing_cycle}", fix)
        if self.billing_anchor_month is not None and self.billing_anchor_day is None:
            raise wrong(
                ("billing_anchor_month",), "needs billing_anchor_day", "give the day of the month too"
            )
        return self

    @model_validator(mode="after")
    def _price_fits(self) -> Self:
        if (self.discount_type is None) != (self.discount_value is None):
            fix = "give discount_type and discount_value, or neither"
            raise wrong(("discount_value",), "does not go with discount_type", fix)
        # Before the comparison: a product of 15 and 8 digits is a list price nobody means.
        if self.list_cycle_cost >= MOST:
            said = f"{self.seats} seats of {self.unit_price} are {MOST:.0E} or more a term"
            raise wrong(("unit_price",), said, "check price and seats")
        value = self.discount_value or ZERO
        if self.discount_type == "percent":
            if value > 100:
                raise wrong(("discount_value",), f"{value} % is over 100 %", "write 0 to 100")
            if value != round(value, 7):
                raise wrong(("discount_value",), "has more than 7 digits after the point", "round it")
        if self.discount_type == "fixed" and value > self.list_cycle_cost:
            said = f"{value} is over the {self.list_cycle_cost} that a term costs without it"
            raise wrong(
                ("discount_value",), said, "a fixed discount is off the whole term, not off each seat"
            )
        return self

    def _inside(self, day: date) -> bool:
        return self.start_date <= day and (self.end_date is None or day <= self.end_date)

    @property
    def paid_from(self) -> date:
        """The first day that is paid for: the day after the trial."""
        if self.trial_end_date is None:
            return self.start_date
        return self.trial_end_date + timedelta(days=1)

    @property
    def list_cycle_cost(self) -> Decimal:
        """One full term before discounts, exact."""
        return EXACT.multiply(self.unit_price, Decimal(self.seats if self.pricing_model == "PER_SEAT" else 1))

    @property
    def cycle_cost(self) -> Decimal:
        """One full term, rounded once (half up) to 9 places where a percentage makes it necessary."""
        value = self.discount_value or ZERO
        if self.discount_type == "fixed":
            return max(ZERO, EXACT.subtract(self.list_cycle_cost, value))
        kept = EXACT.multiply(100 - value, Decimal("0.01"))
        product = EXACT.multiply(self.list_cycle_cost, kept)
        return product.quantize(NANO, rounding=ROUND_HALF_UP, context=EXACT)

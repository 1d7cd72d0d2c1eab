"""Plans of configs/system/plans.yml and what each organisation has of them: limits on its runs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.audit import Audit
from engine.errors import UsageError
from engine.located import wrong

if TYPE_CHECKING:
    # The catalog reads this file for its models and must not wait for Google's clients.
    from engine.central import Central

SUBSCRIPTIONS = "org_subscriptions"
#: A tie (two writers at one moment, or rows that arrived twice) is broken the same way by every reader.
LATEST_SUBSCRIPTION = (
    "QUALIFY ROW_NUMBER() OVER (PARTITION BY org_slug ORDER BY version DESC, written_at, plan_name, "
    "daily_limit, monthly_limit, concurrent_limit, is_custom) = 1"
)
LARGEST_LIMIT = 1_000_000_000
_PLAN_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,29}")

Count = Annotated[int, Field(strict=True, ge=1, le=LARGEST_LIMIT)]


@dataclass(frozen=True, slots=True)
class Limits:
    """Runs accepted per UTC day and UTC calendar month, and unfinished at once; None is unlimited."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    #: Runs accepted per UTC day; `null` is unlimited.
    daily: Count | None
    #: Runs accepted per UTC calendar month, at least `daily`; `null` is unlimited.
    monthly: Count | None
    #: Unfinished runs at once; `null` is unlimited.
    concurrent: Count | None


class Plans(BaseModel):
    """The plans there are, by name, and the one of organisations without a subscription."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: The plan of organisations that were never put on one.
    default: str
    #: Plans by name, which is upper-case letters, digits and `_`.
    plans: Mapping[str, Limits]

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        for name, limits in self.plans.items():
            if not _PLAN_NAME.fullmatch(name):
                fix = "write upper-case letters, digits and _, such as STARTER"
                raise wrong(("plans", name), f"{name!r} is no plan name", fix)
            if limits.daily and limits.monthly and limits.daily > limits.monthly:
                raise wrong(("plans", name, "monthly"), "is below daily", "make it at least as large")
        if self.default not in self.plans:
            fix = f"use one of {', '.join(self.plans) or 'the plans you add'}"
            raise wrong(("default",), f"there is no plan {self.default!r}", fix)
        return self

    def limits(self, name: str) -> Limits:
        """What a plan allows. Raises UsageError for a plan that is not there."""
        if name not in self.plans:
            near = difflib.get_close_matches(name.upper(), self.plans, n=1)
            raise UsageError(
                f"There is no plan {name!r}.",
                fix=f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(self.plans)}.",
                field="plan",
            )
        return self.plans[name]


class Keep(Enum):
    """What `set_quota` is given for a limit that stays as it is; None already means unlimited."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
type Change = int | Keep | None


@dataclass(frozen=True, slots=True)
class Subscription:
    """What an organisation may start. `version` 0: nothing is on record and the default plan holds.

    `limits` are the ones on record: a later change of plans.yml reaches only organisations without a record.
    `is_custom` says that they were set apart from the plan's.
    """

    org: str
    plan: str
    limits: Limits
    status: str
    version: int
    is_custom: bool = False


class Subscriptions:
    """The plans and quotas of organisations: append-only rows, the highest version is current."""

    def __init__(
        self,
        central: Central,
        plans: Plans,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._central = central
        self._plans = plans
        self._now = now

    def get(self, org: str) -> Subscription:
        """The organisation's subscription; without one on record the default plan."""
        return self._current(org)[0]

    def set_plan(self, org: str, plan: str, *, audit: Audit | None = None) -> Subscription:
        """Give the organisation a plan and that plan's limits as they are now; quotas of its own end.

        Raises UsageError for a plan that is not there.
        """
        limits = self._plans.limits(plan)
        current, created_at = self._current(org)
        wanted = replace(current, plan=plan, limits=limits, is_custom=False)
        return self._write(current, wanted, created_at, audit)

    def set_quota(
        self,
        org: str,
        *,
        daily: Change = KEEP,
        monthly: Change = KEEP,
        concurrent: Change = KEEP,
        audit: Audit | None = None,
    ) -> Subscription:
        """Set limits apart from the plan's; None is unlimited, KEEP leaves one as it is.

        Raises UsageError for a limit below 1 or above LARGEST_LIMIT.
        """
        current, created_at = self._current(org)
        asked = {"daily": daily, "monthly": monthly, "concurrent": concurrent}
        changes = {name: _checked(name, value) for name, value in asked.items() if value is not KEEP}
        if not changes:
            return current
        wanted = replace(current, limits=replace(current.limits, **changes), is_custom=True)
        return self._write(current, wanted, created_at, audit)

    def _current(self, org: str) -> tuple[Subscription, datetime | None]:
        sql = f"SELECT * FROM {SUBSCRIPTIONS} WHERE org_slug = @org_slug {LATEST_SUBSCRIPTION}"
        rows = self._central.query(sql, {}, org=org, purpose="subscription").to_pylist()
        if rows:
            return subscription_of(rows[0]), rows[0]["created_at"]
        return default_subscription(org, self._plans), None

    def _write(
        self, current: Subscription, wanted: Subscription, created_at: datetime | None, audit: Audit | None
    ) -> Subscription:
        if current.version and wanted == current:
            return current
        now = self._now()
        written = replace(wanted, version=current.version + 1)
        row = {
            "org_slug": written.org,
            "version": written.version,
            "plan_name": written.plan,
            "status": written.status,
            "daily_limit": written.limits.daily,
            "monthly_limit": written.limits.monthly,
            "concurrent_limit": written.limits.concurrent,
            "is_custom": written.is_custom,
            "created_at": created_at or now,
            "written_at": now,
            "audit": audit.column() if audit else None,
        }
        self._central.append(SUBSCRIPTIONS, [row])
        return written


def subscription_of(row: Mapping[str, Any]) -> Subscription:
    """A row of org_subscriptions, as the table's latest is read with LATEST_SUBSCRIPTION."""
    return Subscription(
        org=row["org_slug"],
        plan=row["plan_name"],
        limits=Limits(row["daily_limit"], row["monthly_limit"], row["concurrent_limit"]),
        status=row["status"],
        version=row["version"],
        is_custom=row["is_custom"],
    )


def default_subscription(org: str, plans: Plans) -> Subscription:
    """What an organisation without a subscription on record has."""
    return Subscription(org, plans.default, plans.limits(plans.default), "ACTIVE", 0)


def _checked(name: str, value: Change) -> int | None:
    if isinstance(value, int) and not 1 <= value <= LARGEST_LIMIT:
        raise UsageError(
            f"The {name} limit {value} is not between 1 and {LARGEST_LIMIT}.",
            fix="Give a number in that range; to let an organisation run nothing, suspend it.",
            field=name,
        )
    return value if isinstance(value, int) else None

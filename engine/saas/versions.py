"""Plan rows as they follow each other: which stand, and what an import or an end would add to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from pydantic import ValidationError

from engine.errors import NotFoundError, UsageError
from engine.located import Document
from engine.saas.costs import ONE_DAY, Segment, segments
from engine.saas.plans import SaasPlan
from engine.saas.terms import term_of

type Key = tuple[str, date]


@dataclass(frozen=True, slots=True)
class Version:
    """One row of saas_subscription_plans."""

    plan: SaasPlan
    plan_version: int
    change_number: int

    @property
    def key(self) -> Key:
        """What a later row replaces."""
        return self.plan.subscription_id, self.plan.effective_from


@dataclass(frozen=True, slots=True)
class PlanBook:
    """All plans of an organisation: the row that stands of each key, and how far rows are counted."""

    standing: Mapping[Key, Version]
    last_versions: Mapping[str, int]
    last_change: int

    @classmethod
    def of(cls, versions: Iterable[Version]) -> PlanBook:
        """The book of these rows, in any order."""
        standing: dict[Key, Version] = {}
        last: dict[str, int] = {}
        change = 0
        for one in sorted(versions, key=lambda one: (one.change_number, one.plan_version)):
            standing[one.key] = one
            subscription = one.plan.subscription_id
            last[subscription] = max(last.get(subscription, 0), one.plan_version)
            change = max(change, one.change_number)
        return cls(standing, last, change)

    def subscriptions(self) -> dict[str, tuple[Segment, ...]]:
        """The rows in force of each subscription, by id and day."""
        plans: dict[str, list[SaasPlan]] = {}
        for one in self.standing.values():
            plans.setdefault(one.plan.subscription_id, []).append(one.plan)
        found = {name: tuple(segments(rows)) for name, rows in sorted(plans.items())}
        return {name: rows for name, rows in found.items() if rows}

    def news(self, wanted: Iterable[SaasPlan]) -> tuple[SaasPlan, ...]:
        """Those that do not stand already as they are wanted."""
        return tuple(plan for plan in wanted if not self._stands(plan))

    def ending(
        self, subscription_id: str, last_day: date, *, at_term_end: bool = False
    ) -> tuple[SaasPlan, ...]:
        """The rows that end a subscription after `last_day`; what begins later is taken back.

        With `at_term_end` it is the last day of the term that day belongs to. Raises NotFoundError for an
        unknown subscription, UsageError when it begins only later or has ended by itself before.
        """
        rows = self.subscriptions().get(subscription_id)
        if rows is None:
            raise NotFoundError(
                f"There is no subscription {subscription_id!r}.",
                fix="See manta saas plan list.",
                field="subscription_id",
            )
        if rows[0].first > last_day:
            raise UsageError(
                f"{subscription_id} begins only on {rows[0].first}.",
                fix="End it on that day or later, or import it with status VOID to take it back.",
                field="on",
            )
        kept = [row.plan for row in rows if row.first <= last_day]
        over = kept[-1].end_date
        if kept[-1].status == "ACTIVE" and over is not None and over < last_day:
            raise UsageError(
                f"{subscription_id} ends on {over} already.",
                fix="Give --on a day before, or new terms: manta saas plan add.",
                field="on",
            )
        if at_term_end:
            whole = term_of(kept[-1], last_day).end - ONE_DAY
            last_day = whole if kept[-1].status == "CANCELLED" else min(whole, over or whole)
        ended = _changed(kept[-1], end_date=last_day, status="CANCELLED")
        later = [_changed(row.plan, status="VOID") for row in rows if row.first > last_day]
        return self.news([ended, *later])

    def agreed(self, subscription_id: str, given: Mapping[str, Any]) -> SaasPlan:
        """The plan of these fields; what is left out is as in the row before it.

        Raises UsageError naming the field for what makes no plan.
        """
        first = given.get("effective_from") or given.get("start_date")
        before = [row.plan for row in self.subscriptions().get(subscription_id, ()) if first]
        before = [plan for plan in before if str(plan.effective_from) <= str(first)]
        base = before[-1].model_dump(exclude={"effective_from", "status"}) if before else {}
        if base.get("end_date") is not None and str(base["end_date"]) < str(first):
            # It had ended and begins again.
            del base["end_date"]
        if "billing_cycle" in given:
            # What went with the former cycle goes with it.
            base |= {"custom_days": None, "billing_anchor_day": None, "billing_anchor_month": None}
        fields = {**base, **given, "subscription_id": subscription_id}
        try:
            return SaasPlan.model_validate(fields)
        except ValidationError as error:
            wrong = Document("", {}, {(): 1}).problems(error)[0]
            raise UsageError(
                f"{wrong.field}: {wrong.problem}.",
                fix=f"{wrong.fix[:1].upper()}{wrong.fix[1:]}.",
                field=wrong.field,
            ) from None

    def since(self, plans: Iterable[SaasPlan]) -> date:
        """The first day whose row may become another once these are in: a term's charge day, mostly."""
        rows = self.subscriptions()
        return min(self._since(plan, rows.get(plan.subscription_id, ())) for plan in plans)

    def _since(self, plan: SaasPlan, rows: Iterable[Segment]) -> date:
        there = self.standing.get((plan.subscription_id, plan.effective_from))
        day = plan.effective_from
        if there is not None and plan == _changed(there.plan, end_date=plan.end_date, status=plan.status):
            ends = [end for end in (plan.end_date, there.plan.end_date) if end is not None]
            day = min(ends, default=day) if plan.status != "VOID" else day
        for row in rows:
            if row.first <= day and (row.until is None or day < row.until):
                return max(row.first, term_of(row.plan, day).start)
        return day

    def numbered(self, plans: Sequence[SaasPlan]) -> tuple[Version, ...]:
        """These plans as the rows of the next change."""
        counted = dict(self.last_versions)
        made = []
        for plan in plans:
            number = counted[plan.subscription_id] = counted.get(plan.subscription_id, 0) + 1
            made.append(Version(plan, number, self.last_change + 1))
        return tuple(made)

    def _stands(self, plan: SaasPlan) -> bool:
        there = self.standing.get((plan.subscription_id, plan.effective_from))
        if there is None:
            return plan.status == "VOID"
        return there.plan == plan or there.plan.status == plan.status == "VOID"


def _changed(plan: SaasPlan, **fields: Any) -> SaasPlan:
    """The plan with other fields, checked again; a trial that the end cuts short ends with it."""
    given = {**plan.model_dump(), **fields}
    end, trial = given["end_date"], given["trial_end_date"]
    if end is not None and trial is not None and trial > end:
        given["trial_end_date"] = end
    return SaasPlan.model_validate(given)

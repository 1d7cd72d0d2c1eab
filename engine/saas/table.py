"""The plans of one organisation in its warehouse: read whole, appended to one change at a time."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import TransientError
from engine.jobs import JobExists
from engine.saas.plans import SaasPlan
from engine.saas.versions import PlanBook, Version
from engine.schemas import Schema
from engine.warehouse import Warehouse

PLANS = "saas_subscription_plans"
MAX_ROUNDS = 10
JOB_TIMEOUT_S = 600.0
CHANGE_LABEL = "manta-change"
FIELDS = tuple(SaasPlan.model_fields)


class PlanTable:
    """saas_subscription_plans of one tenant.

    The id of the job that appends change N is made from N: of two writers one gets it, the other reads again.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        schema: Schema,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self._warehouse = warehouse
        self._schema = schema
        self._now = now
        self._new_id = new_id

    def book(self) -> PlanBook:
        """Every plan there is; an organisation without any has an empty book."""
        self._warehouse.ensure_table(self._schema)
        columns = ", ".join((*FIELDS, "plan_version", "change_number"))
        found = self._warehouse.query(f"SELECT {columns} FROM {PLANS}", purpose="saas-plans")
        return PlanBook.of(map(_version, found.to_pylist()))

    def change(self, wanted: Callable[[PlanBook], Sequence[SaasPlan]], *, by: str) -> tuple[SaasPlan, ...]:
        """Append what `wanted` says of the book as it then stands, all or nothing; answers what was appended.

        `by` is who changes it. Raises TransientError when others change the plans all the time.
        """
        attempt, tried = 0, 0
        for _ in range(MAX_ROUNDS):
            book = self.book()
            plans = tuple(wanted(book))
            if not plans:
                return ()
            # The same number again: its job failed, or belongs to a table of this name that is gone.
            number = book.last_change + 1
            attempt = attempt + 1 if tried == number else 1
            tried = number
            if self._append(book.numbered(plans), number, attempt, by=by):
                return plans
        raise TransientError(
            f"The plans in {self._warehouse.dataset} were changed by others {MAX_ROUNDS} times meanwhile.",
            fix="Try again when they are done.",
        )

    def _append(self, versions: Sequence[Version], number: int, attempt: int, *, by: str) -> bool:
        """True when these rows are in; False when the id was another's or the job failed and may pass."""
        place = f"{self._warehouse.dataset}.{PLANS}"
        job_id = f"manta-saas-{hashlib.sha256(place.encode()).hexdigest()[:16]}-c{number}-a{attempt}"
        ours = self._new_id()
        try:
            state = self._warehouse.load(
                self._parquet(versions, by=by),
                destination=PLANS,
                schema=self._schema,
                job_id=job_id,
                labels={CHANGE_LABEL: ours},
                append=True,
            )
        except JobExists:
            state = self._warehouse.wait(job_id, timeout_s=JOB_TIMEOUT_S)
            # After a lost answer it is our own request.
            return state.error is None and state.labels.get(CHANGE_LABEL) == ours
        if not state.done:
            state = self._warehouse.wait(job_id, timeout_s=JOB_TIMEOUT_S)
        if state.error is not None and not isinstance(state.error, TransientError):
            raise state.error
        return state.error is None

    def _parquet(self, versions: Sequence[Version], *, by: str) -> bytes:
        at = self._now()
        rows: list[dict[str, Any]] = [
            {
                **one.plan.model_dump(),
                "plan_version": one.plan_version,
                "change_number": one.change_number,
                "changed_by": by,
                "written_at": at,
                "x_org_slug": self._warehouse.org,
            }
            for one in versions
        ]
        file = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=self._schema.arrow), file)
        return file.getvalue()


def _version(row: dict[str, Any]) -> Version:
    plan = SaasPlan.model_validate({name: row[name] for name in FIELDS})
    return Version(plan, row["plan_version"], row["change_number"])

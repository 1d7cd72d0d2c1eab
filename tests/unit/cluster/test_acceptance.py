"""Run identity, quotas and idempotency keys, with the record in memory and a clock that is set."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.acceptance import Acceptance
from engine.catalog import Catalog
from engine.errors import LimitError, TransientError, UsageError
from engine.plans import Limits
from engine.runs import Origin, Run
from engine.types import RunRequest

ROOT = Path(__file__).resolve().parents[3]
CATALOG = Catalog.load(ROOT)
START = datetime(2026, 3, 15, 6, 30, tzinfo=UTC)
PIPELINE = "openai/cost/usage_cost"
UNLIMITED = Limits(None, None, None)
API = Origin("api", "key:1")


class Record:
    """The warehouse: what was appended, and an outage on demand."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.origins: dict[str, Origin] = {}
        self.appends = 0
        self.away = False
        self.gate = threading.Event()
        self.gate.set()

    def accept(self, pairs: Sequence[tuple[Run, Origin]], *, now: datetime) -> None:
        self.gate.wait(10)
        if self.away:
            raise TransientError("away")
        self.appends += 1
        for run, origin in pairs:
            self.runs[run.id], self.origins[run.id] = run, origin

    def end(self, run: Run) -> Run:
        self.runs[run.id] = ended = replace(run, status="SUCCESS", version=run.version + 1)
        return ended

    def active(self) -> list[Run]:
        return [run for run in self.runs.values() if not run.terminal]

    def sequences(self) -> dict[str, int]:
        tops: dict[str, int] = {}
        for run in self.runs.values():
            tops[run.request.org] = max(tops.get(run.request.org, 0), run.sequence)
        return tops

    def accepted(self, since: date) -> list[tuple[str, date, int]]:
        return [(run.request.org, run.start_time.date(), 1) for run in self.runs.values()]

    def idempotency_keys(self, since: datetime) -> list[tuple[str, str, str, str, datetime]]:
        found = [(self.runs[run_id], origin) for run_id, origin in self.origins.items()]
        return [
            (run.request.org, origin.idempotency_key, origin.fingerprint or "", run.id, run.start_time)
            for run, origin in found
            if origin.idempotency_key and run.start_time >= since
        ]

    def get(self, org: str, run_id: str) -> Run | None:
        return self.runs.get(run_id)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def an_acceptance(record: Record, clock: Clock, *, max_active: int = 100) -> Acceptance:
    made = Acceptance(record, CATALOG, max_active=max_active, now=clock)  # type: ignore[arg-type]
    made.restore()
    return made


def a_request(day: int = 1, *, org: str = "acme") -> RunRequest:
    return RunRequest(org, PIPELINE, date(2026, 3, day), date(2026, 3, day))


async def test_a_hundred_equal_requests_are_one_run_and_one_append() -> None:
    record = Record()
    acceptance = an_acceptance(record, Clock())

    answers = await asyncio.gather(*(acceptance.accept(a_request(), API, UNLIMITED) for _ in range(100)))

    assert len({run.id for run, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    assert list(record.runs) == [answers[0][0].id]


async def test_what_comes_while_an_append_is_under_way_goes_together_in_the_next() -> None:
    record = Record()
    acceptance = an_acceptance(record, Clock())
    record.gate.clear()

    pending = [asyncio.create_task(acceptance.accept(a_request(d), API, UNLIMITED)) for d in range(1, 15)]
    await asyncio.sleep(0.05)
    record.gate.set()
    await asyncio.gather(*pending)

    assert len(record.runs) == 14
    assert record.appends <= 2


async def test_different_ranges_of_one_organisation_do_not_block_each_other() -> None:
    acceptance = an_acceptance(Record(), Clock())

    (first, _), (second, created) = [await acceptance.accept(a_request(d), API, UNLIMITED) for d in (1, 2)]

    assert created
    assert first.id != second.id
    assert (first.sequence, second.sequence) == (1, 2)


async def test_a_caller_that_leaves_does_not_take_the_run_with_it() -> None:
    record = Record()
    acceptance = an_acceptance(record, Clock())
    record.gate.clear()
    caller = asyncio.create_task(acceptance.accept(a_request(), API, UNLIMITED))
    await asyncio.sleep(0.02)

    caller.cancel()
    record.gate.set()
    handed = await acceptance.handover(everything=False, wait_s=5)

    assert [run.id for run in handed] == list(record.runs)


async def test_while_the_warehouse_is_away_nothing_is_accepted_and_nothing_is_used_up() -> None:
    record, limits = Record(), Limits(1, 1, 1)
    acceptance = an_acceptance(record, Clock())
    record.away = True
    with pytest.raises(TransientError):
        await acceptance.accept(a_request(), replace(API, idempotency_key="k", fingerprint="f"), limits)
    record.away = False

    _, created = await acceptance.accept(
        a_request(), replace(API, idempotency_key="k", fingerprint="f"), limits
    )

    assert created
    assert acceptance.usage("acme").today == 1


async def test_an_ended_run_makes_room_and_another_incarnation_knows_what_was_accepted() -> None:
    record, clock = Record(), Clock()
    acceptance = an_acceptance(record, clock)
    first, _ = await acceptance.accept(a_request(1), API, UNLIMITED)
    second, _ = await acceptance.accept(a_request(2), API, UNLIMITED)
    acceptance.finish(record.end(first))

    after = an_acceptance(record, clock)
    again, created = await after.accept(a_request(1), API, UNLIMITED)
    same, new = await after.accept(a_request(2), API, UNLIMITED)

    assert created
    assert again.sequence == 3
    assert (same.id, new) == (second.id, False)
    assert {run.id for run in await after.handover(everything=True, wait_s=0)} == {again.id, second.id}


@pytest.mark.parametrize("restart", [False, True])
async def test_an_idempotency_key_answers_with_its_run_even_when_that_has_ended(restart: bool) -> None:
    record, clock = Record(), Clock()
    acceptance = an_acceptance(record, clock)
    origin = replace(API, idempotency_key="abc", fingerprint="one")
    first, _ = await acceptance.accept(a_request(1), origin, UNLIMITED)
    acceptance.finish(record.end(first))
    clock.now += timedelta(hours=23)
    if restart:
        acceptance = an_acceptance(record, clock)

    # The same words a day later mean another date; the key says that they are the same request.
    again, created = await acceptance.accept(a_request(2), origin, UNLIMITED)

    assert (again.id, again.status, created) == (first.id, "SUCCESS", False)
    with pytest.raises(UsageError, match="another request"):
        await acceptance.accept(a_request(3), replace(origin, fingerprint="two"), UNLIMITED)
    clock.now += timedelta(hours=2)
    _, created = await acceptance.accept(a_request(2), origin, UNLIMITED)
    assert created


async def test_the_key_of_a_request_that_was_under_way_already_means_that_run() -> None:
    record = Record()
    acceptance = an_acceptance(record, Clock())
    first, _ = await acceptance.accept(a_request(), API, UNLIMITED)
    keyed = replace(API, idempotency_key="abc", fingerprint="one")
    same, created = await acceptance.accept(a_request(), keyed, UNLIMITED)
    acceptance.finish(record.end(first))

    again, anew = await acceptance.accept(a_request(), keyed, UNLIMITED)

    assert (same.id, created) == (first.id, False)
    assert (again.id, again.status, anew) == (first.id, "SUCCESS", False)


async def test_a_key_of_another_organisation_is_another_key() -> None:
    acceptance = an_acceptance(Record(), Clock())
    origin = replace(API, idempotency_key="abc", fingerprint="one")

    one, _ = await acceptance.accept(a_request(), origin, UNLIMITED)
    other, created = await acceptance.accept(a_request(org="globex"), origin, UNLIMITED)

    assert created
    assert one.id != other.id


async def test_quotas_hold_across_a_restart_and_an_equal_request_costs_nothing() -> None:
    record, clock, limits = Record(), Clock(), Limits(2, None, None)
    acceptance = an_acceptance(record, clock)
    await acceptance.accept(a_request(1), API, limits)
    await acceptance.accept(a_request(1), API, limits)
    await acceptance.accept(a_request(2), API, limits)

    with pytest.raises(LimitError) as refused:
        await an_acceptance(record, clock).accept(a_request(3), API, limits)

    assert refused.value.code == "daily_quota"
    assert refused.value.retry_after == timedelta(hours=17, minutes=30)
    clock.now += timedelta(days=1)
    assert (await an_acceptance(record, clock).accept(a_request(3), API, limits))[1]


async def test_a_full_house_takes_nobody_in() -> None:
    acceptance = an_acceptance(Record(), Clock(), max_active=1)
    await acceptance.accept(a_request(1), API, UNLIMITED)

    with pytest.raises(LimitError) as refused:
        await acceptance.accept(a_request(2), API, UNLIMITED)

    assert refused.value.code == "too_many_runs"


Deeds = st.lists(
    st.tuples(st.sampled_from(["accept", "end", "crash", "away", "back"]), st.integers(1, 4)), max_size=25
)


@settings(max_examples=60, deadline=None)
@given(deeds=Deeds)
def test_whatever_happens_a_request_has_one_active_run_and_none_is_lost(
    deeds: list[tuple[str, int]],
) -> None:
    async def live() -> None:
        record, clock = Record(), Clock()
        acceptance = an_acceptance(record, clock)
        answered: set[str] = set()
        for deed, day in deeds:
            if deed == "accept":
                try:
                    run, _ = await acceptance.accept(a_request(day), API, Limits(None, None, 3))
                except (TransientError, LimitError):
                    continue
                answered.add(run.id)
            elif deed == "end" and record.active():
                acceptance.finish(record.end(record.active()[0]))
            elif deed == "crash":
                acceptance = an_acceptance(record, clock)
            else:
                record.away = deed == "away"
            keys = [run.request_key for run in record.active()]
            assert len(keys) == len(set(keys))
            assert len(keys) <= 3
            assert answered <= set(record.runs)
            assert {run.id for run in acceptance.active} == {run.id for run in record.active()}

    asyncio.run(live())

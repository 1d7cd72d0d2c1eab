"""For any ledger, range and policy, a plan covers what was asked for, once."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine.catalog import Pipeline
from engine.ledger import LedgerView, Published
from engine.plan import days_between, plan
from engine.providers import Provider
from engine.types import Partition, Plan, RunRequest

TODAY = date(2025, 12, 20)
PROVIDER = Provider.model_validate(
    {
        "name": "openai",
        "display_name": "OpenAI",
        "setting": "openai_base_url",
        "official_hosts": ["api.openai.com"],
        "day_timezone": "UTC",
        "auth": {"kind": "bearer"},
        "days_per_call": 7,
        "rate": {"requests_per_minute": 300, "burst": 50},
        "key": {"admin_prefix": "sk-admin-", "where": "https://platform.openai.com"},
    }
)
TABLES = ("one", "two", "three")
DAYS = st.integers(0, 40).map(lambda back: TODAY - timedelta(days=back))
PARTITIONS = st.builds(Partition, st.sampled_from(["acme", "globex"]), st.sampled_from(TABLES), DAYS)


def published(day: date, *, provisional: bool) -> Published:
    return Published(day, 1, "v1:0", 1, provisional, "run", "job", "file:///a.parquet")


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    return Pipeline.model_validate(
        {
            "path": "openai/usage",
            "name": "Usage",
            "description": "What was used.",
            "provider": "openai",
            "partition": {
                "max_days_per_unit": draw(st.integers(1, 12)),
                "restatement_days": draw(st.integers(0, 5)),
            },
            "steps": [{"step_id": "extract", "ps_type": "openai.usage"}],
            "outputs": [{"table": table} for table in TABLES[: draw(st.integers(1, 3))]],
        }
    )


@st.composite
def ledgers(draw: st.DrawFn) -> LedgerView:
    provisional = draw(st.dictionaries(PARTITIONS, st.booleans(), max_size=60))
    return LedgerView(
        {part: published(part.day, provisional=flag) for part, flag in provisional.items()},
        draw(st.frozensets(PARTITIONS, max_size=20)),
    )


@st.composite
def requests(draw: st.DrawFn) -> RunRequest:
    start, end = sorted((draw(DAYS), draw(DAYS)))
    return RunRequest("acme", "openai/usage", start, end, draw(st.sampled_from(["missing", "failed", "all"])))


def planned(request: RunRequest, pipeline: Pipeline, ledger: LedgerView) -> Plan:
    return plan(request, pipeline, ledger, provider=PROVIDER, today=TODAY)


def tables_of(pipeline: Pipeline) -> list[str]:
    return [output.table for output in pipeline.outputs]


@given(requests(), pipelines(), ledgers())
def test_units_and_what_is_skipped_cover_each_partition_once(request, pipeline, ledger):
    found = planned(request, pipeline, ledger)
    covered = Counter(
        Partition(unit.org, table, day)
        for unit in found.units
        for table in tables_of(pipeline)
        for day in unit.days
    )
    covered.update(found.skipped.keys())
    asked = [
        Partition("acme", table, day)
        for table in tables_of(pipeline)
        for day in days_between(request.start, request.end)
    ]
    assert covered == Counter(asked)
    assert all(found.skipped.values())


@given(requests(), pipelines(), ledgers())
def test_units_are_consecutive_days_in_order_and_never_too_long(request, pipeline, ledger):
    found = planned(request, pipeline, ledger)
    for unit in found.units:
        assert (unit.org, unit.pipeline) == (request.org, request.pipeline)
        assert unit.days == days_between(unit.days[0], unit.days[-1])
        assert 1 <= len(unit.days) <= pipeline.partition.max_days_per_unit
    days = [day for unit in found.units for day in unit.days]
    assert days == sorted(days)
    assert found.provisional == {day for day in days if day == TODAY}


@given(requests(), pipelines(), ledgers())
def test_units_are_no_more_than_needed(request, pipeline, ledger):
    units = planned(request, pipeline, ledger).units
    for unit, following in pairwise(units):
        touching = following.days[0] - unit.days[-1] == timedelta(days=1)
        assert not touching or len(unit.days) == pipeline.partition.max_days_per_unit


@given(requests(), pipelines(), ledgers())
def test_what_was_published_is_not_planned_again_outside_the_window(request, pipeline, ledger):
    found = planned(request, pipeline, ledger)
    done = {
        Partition("acme", table, day): published(day, provisional=day in found.provisional)
        for unit in found.units
        for table in tables_of(pipeline)
        for day in unit.days
    }
    again = RunRequest(request.org, request.pipeline, request.start, request.end, "missing")
    after = LedgerView({**ledger.published, **done}, frozenset())
    window = TODAY - timedelta(days=pipeline.partition.restatement_days)
    left = [day for unit in planned(again, pipeline, after).units for day in unit.days]
    if request.policy == "failed":
        # It leaves alone what never failed, also what the ledger lacks.
        left = [day for day in left if any(Partition("acme", t, day) in done for t in tables_of(pipeline))]
    assert [day for day in left if day < window] == []


@given(requests(), pipelines(), ledgers())
def test_planning_is_pure(request, pipeline, ledger):
    before = (dict(ledger.published), ledger.failed)
    assert planned(request, pipeline, ledger) == planned(request, pipeline, ledger)
    assert (dict(ledger.published), ledger.failed) == before

"""From a request to units: what is chosen, what is skipped and why, and what it will cost."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta

import pytest

from engine.catalog import Pipeline
from engine.errors import UsageError
from engine.ledger import LedgerView, Published
from engine.plan import MAX_RANGE_DAYS, days_between, plan, request_key
from engine.providers import Provider
from engine.types import Discovery, Partition, Plan, Policy, RunRequest, Unit

TODAY = date(2025, 12, 20)
USAGE, COST = "openai_usage_daily_raw", "openai_cost_daily"

PROVIDER = Provider.model_validate(
    {
        "name": "openai",
        "display_name": "OpenAI",
        "setting": "openai_base_url",
        "official_hosts": ["api.openai.com"],
        "day_timezone": "UTC",
        "auth": {"kind": "bearer"},
        "days_per_call": 31,
        "calls_per_window": 11,
        "rate": {"requests_per_minute": 300, "burst": 50},
        "key": {"admin_prefix": "sk-admin-", "where": "https://platform.openai.com"},
    }
)


def pipeline(*, longest: int = 31, restated: int = 0, tables: tuple[str, ...] = (USAGE, COST)) -> Pipeline:
    return Pipeline.model_validate(
        {
            "path": "openai/cost/usage_cost",
            "name": "Usage and cost",
            "description": "What was used.",
            "provider": "openai",
            "partition": {"max_days_per_unit": longest, "restatement_days": restated},
            "steps": [{"step_id": "extract", "ps_type": "openai.usage"}],
            "outputs": [{"table": table} for table in tables],
        }
    )


def day(n: int) -> date:
    return date(2025, 12, n)


def request(first: int, last: int, policy: Policy = "missing") -> RunRequest:
    return RunRequest("acme", "openai/cost/usage_cost", day(first), day(last), policy)


def published(day_: date, *, version: int = 1, content: str = "v1:0", provisional: bool = False) -> Published:
    return Published(day_, version, content, 10, provisional, "run-0", "job-0", "file:///a.parquet")


def ledger(
    *days: int, tables: tuple[str, ...] = (USAGE, COST), provisional: tuple[int, ...] = (), failed=()
) -> LedgerView:
    return LedgerView(
        published={
            Partition("acme", table, day(n)): published(day(n), provisional=n in provisional)
            for n in days
            for table in tables
        },
        failed=frozenset(Partition("acme", COST, day(n)) for n in failed),
    )


def planned(
    asked: RunRequest, known: LedgerView, of: Pipeline | None = None, *, today: date = TODAY, keys: int = 1
) -> Plan:
    return plan(asked, of or pipeline(), known, provider=PROVIDER, today=today, credentials=keys)


def stretches(found: Plan) -> list[tuple[int, int]]:
    return [(unit.days[0].day, unit.days[-1].day) for unit in found.units]


def reasons(found: Plan) -> dict[int, str]:
    return {part.day.day: reason for part, reason in found.skipped.items()}


def test_an_empty_ledger_is_filled_in_one_stretch():
    found = planned(request(1, 8), ledger())
    assert found.units == (Unit("acme", "openai/cost/usage_cost", days_between(day(1), day(8))),)
    assert str(found.units[0]) == "openai/cost/usage_cost acme 2025-12-01..2025-12-08"
    assert (found.skipped, found.provisional) == ({}, frozenset())


@pytest.mark.parametrize(
    ("policy", "units", "skipped"),
    [
        (
            "missing",
            [(3, 4), (6, 6)],
            {1: "already published", 2: "already published", 5: "already published"},
        ),
        ("failed", [(2, 2), (4, 4)], dict.fromkeys((1, 3, 5, 6), "did not fail")),
        ("all", [(1, 6)], {}),
    ],
)
def test_the_policy_chooses_the_days(policy: Policy, units: list, skipped: dict[int, str]):
    found = planned(request(1, 6, policy), ledger(1, 2, 5, failed=(2, 4)))
    assert stretches(found) == units
    assert reasons(found) == skipped


def test_what_is_skipped_is_named_table_by_table():
    found = planned(request(1, 1), ledger(1))
    assert found.skipped == {
        Partition("acme", USAGE, day(1)): "already published",
        Partition("acme", COST, day(1)): "already published",
    }


def test_a_day_that_one_table_lacks_is_asked_for():
    assert stretches(planned(request(1, 2), ledger(1, 2, tables=(USAGE,)))) == [(1, 2)]


def test_another_organisations_partitions_count_for_nothing():
    theirs = {Partition("globex", part.table, part.day): p for part, p in ledger(1).published.items()}
    assert stretches(planned(request(1, 1), LedgerView(theirs, frozenset()))) == [(1, 1)]


@pytest.mark.parametrize(("restated", "first"), [(0, None), (1, 19), (3, 17)])
def test_the_restatement_window_counts_closed_days(restated: int, first: int | None):
    found = planned(request(10, 19), ledger(*range(10, 20)), pipeline(restated=restated))
    assert stretches(found) == ([(first, 19)] if first else [])


def test_the_restatement_window_is_nothing_to_the_failed_policy():
    found = planned(request(10, 19, "failed"), ledger(*range(10, 20)), pipeline(restated=3))
    assert found.units == ()


def test_the_open_day_is_provisional_and_asked_again():
    found = planned(request(19, 20), ledger(19, 20, provisional=(20,)))
    assert stretches(found) == [(20, 20)]
    assert found.provisional == {day(20)}


def test_a_day_published_while_open_is_asked_again_when_it_has_closed():
    found = planned(request(19, 19), ledger(19, provisional=(19,)))
    assert stretches(found) == [(19, 19)]
    assert found.provisional == frozenset()


def test_gaps_and_the_longest_unit_cut_stretches():
    found = planned(request(1, 12), ledger(4, 9), pipeline(longest=3))
    assert stretches(found) == [(1, 3), (5, 7), (8, 8), (10, 12)]


def test_a_daily_pipeline_has_one_unit_per_day():
    found = planned(request(1, 3), ledger(), pipeline(longest=1))
    assert stretches(found) == [(1, 1), (2, 2), (3, 3)]
    assert str(found.units[0]) == "openai/cost/usage_cost acme 2025-12-01"


@pytest.mark.parametrize(
    ("longest", "keys", "tables", "calls", "loads"),
    [
        (31, 1, (USAGE, COST), 11, 2),
        (31, 3, (USAGE, COST), 33, 2),
        (1, 1, (USAGE, COST), 110, 20),
        (5, 1, (COST,), 22, 2),
    ],
)
def test_the_plan_says_what_it_costs(
    longest: int, keys: int, tables: tuple[str, ...], calls: int, loads: int
):
    found = planned(request(1, 10), ledger(), pipeline(longest=longest, tables=tables), keys=keys)
    assert (found.api_calls, found.load_jobs) == (calls, loads)


def test_a_pipeline_knows_its_calls_better_than_its_provider():
    of = pipeline()
    own = of.model_copy(update={"partition": of.partition.model_copy(update={"calls_per_window": 3})})
    assert planned(request(1, 10), ledger(), own).api_calls == 3


def test_nothing_to_do_costs_nothing():
    found = planned(request(1, 3), ledger(1, 2, 3))
    assert (found.units, found.api_calls, found.load_jobs) == ((), 0, 0)


@pytest.mark.parametrize(
    ("start", "end", "field", "said", "fix"),
    [
        (day(5), day(4), "end_date", "before the start", "Swap"),
        (day(19), day(21), "end_date", "in the future", "2025-12-19"),
        (day(21), day(22), "end_date", "in the future", "2025-12-19"),
        (TODAY - timedelta(days=MAX_RANGE_DAYS), TODAY, "start_date", "1831 days", "Split"),
    ],
)
def test_a_range_that_cannot_be_meant_is_refused(start: date, end: date, field: str, said: str, fix: str):
    with pytest.raises(UsageError, match=said) as refused:
        planned(RunRequest("acme", "openai/cost/usage_cost", start, end), ledger())
    assert refused.value.field == field
    assert fix in refused.value.fix


def test_the_longest_range_is_taken():
    start = TODAY - timedelta(days=MAX_RANGE_DAYS - 1)
    found = planned(RunRequest("acme", "openai/cost/usage_cost", start, TODAY), ledger())
    assert sum(len(unit.days) for unit in found.units) == MAX_RANGE_DAYS


def test_the_plan_id_is_stable_while_the_world_is():
    known = ledger(1, 2, failed=(2,))
    turned = LedgerView(dict(reversed(known.published.items())), known.failed)
    assert planned(request(1, 6), known).id == planned(request(1, 6), turned).id


def test_the_plan_id_changes_with_what_was_published_since():
    known = ledger(1, 2)
    part = Partition("acme", COST, day(1))
    changed = [
        {**known.published, part: published(day(1), version=2)},
        {**known.published, part: published(day(1), content="v1:1")},
        {**known.published, Partition("acme", COST, day(3)): published(day(3))},
        {other: p for other, p in known.published.items() if other != part},
    ]
    ids = {planned(request(1, 6), LedgerView(seen, frozenset())).id for seen in changed}
    assert len(ids | {planned(request(1, 6), known).id}) == 5


def test_the_plan_id_changes_with_what_failed_since():
    asked = request(1, 6, "failed")
    assert planned(asked, ledger(1, failed=(2,))).id != planned(asked, ledger(1, failed=(2, 3))).id


def test_the_plan_id_is_nothing_to_tables_of_other_pipelines():
    known = ledger(1)
    other = {**known.published, Partition("acme", "anthropic_cost_daily", day(1)): published(day(1))}
    assert planned(request(1, 2), known).id == planned(request(1, 2), LedgerView(other, known.failed)).id


def test_the_plan_id_changes_when_a_day_has_closed_since():
    asked = request(19, 20)
    before, after = planned(asked, ledger()), planned(asked, ledger(), today=TODAY + timedelta(days=1))
    assert before.units == after.units
    assert before.id != after.id


ASKED = replace(request(1, 8), variables={"a": 1, "b": "x"})


def test_equal_requests_have_one_key():
    same = replace(ASKED, variables={"b": "x", "a": 1})
    assert request_key(ASKED) == request_key(same)
    assert len(request_key(ASKED)) == 64


@pytest.mark.parametrize(
    "other",
    [
        replace(ASKED, org="globex"),
        replace(ASKED, pipeline="openai/cost/other"),
        replace(ASKED, start=day(2)),
        replace(ASKED, end=day(9)),
        replace(ASKED, policy="all"),
        replace(ASKED, variables={"a": 1}),
        replace(ASKED, variables={"a": "1", "b": "x"}),
        replace(ASKED, variables={}),
    ],
)
def test_a_request_that_differs_in_one_field_has_another_key(other: RunRequest):
    assert request_key(other) != request_key(ASKED)


def test_an_applied_plan_has_a_key_of_its_own():
    keys = {request_key(ASKED), request_key(ASKED, plan_id="p-1"), request_key(ASKED, plan_id="p-2")}
    assert len(keys) == 3


def test_the_key_is_the_same_in_another_process():
    code = (
        "from datetime import date\n"
        "from engine.plan import request_key\n"
        "from engine.types import RunRequest\n"
        "print(request_key(RunRequest('acme', 'openai/cost/usage_cost', date(2025, 12, 1), "
        "date(2025, 12, 8), 'missing', {'b': 'x', 'a': 1})))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == request_key(ASKED)


def discovering() -> Pipeline:
    found = pipeline()
    step = {"step_id": "look", "ps_type": "gcp.bq_discover"}
    return Pipeline.model_validate(
        {
            **found.model_dump(by_alias=True),
            "discover": step,
            "steps": [{"step_id": "extract", "ps_type": "a.b"}],
        }
    )


def test_days_that_changed_at_the_source_are_read_again_also_outside_the_range() -> None:
    found = Discovery(frozenset({day(2), day(3), day(11)}), ())
    known = ledger(2, 10, 11)
    drawn = plan(request(10, 12), discovering(), known, provider=PROVIDER, today=TODAY, discovered=found)
    # The 3rd was never asked for, the 10th did not change, the 12th is missing.
    assert [str(unit).rsplit(" ", 1)[1] for unit in drawn.units] == ["2025-12-02", "2025-12-11..2025-12-12"]
    assert drawn.skipped[Partition("acme", USAGE, day(10))] == "already published"
    assert not drawn.estimate


def test_what_changed_counts_for_the_policy_missing_only() -> None:
    found = Discovery(frozenset({day(2), day(11)}), ())
    drawn = plan(
        request(10, 12, "all"), discovering(), ledger(2), provider=PROVIDER, today=TODAY, discovered=found
    )
    assert [unit.days for unit in drawn.units] == [(day(10), day(11), day(12))]


def test_a_plan_that_nobody_looked_for_is_an_estimate() -> None:
    assert planned(request(10, 12), ledger(), discovering()).estimate
    assert not planned(request(10, 12), ledger()).estimate

"""A unit from its steps to its publications, with small processors of its own."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from engine.catalog import Catalog, Pipeline
from engine.errors import ConfigurationError, InternalError, NotFoundError, TransientError
from engine.schemas import Schema
from engine.types import Finding, Outcome, Partition, Publication, Unit
from engine.unit import add_lineage, run_scope, run_unit

DAYS = (date(2025, 12, 1), date(2025, 12, 2))
UNIT = Unit("acme", "demo/numbers", DAYS)
NOW = datetime(2025, 12, 9, 4, 30, tzinfo=UTC)
FINDING = Finding("unpriced", "gpt-x", "numbers", DAYS[0], 1, "no price")

SCHEMA = Schema.model_validate(
    {
        "table": "numbers",
        "scope": "tenant",
        "description": "Numbers by day.",
        "partition": "day",
        "key": ["day"],
        "columns": [
            {"name": "day", "type": "DATE", "mode": "REQUIRED", "description": "Day."},
            {"name": "n", "type": "INT64", "description": "Number."},
            {"name": "x_org_slug", "type": "STRING", "mode": "REQUIRED", "description": "Owner."},
            {"name": "x_pipeline_id", "type": "STRING", "mode": "REQUIRED", "description": "Pipeline."},
            {"name": "x_pipeline_run_date", "type": "DATE", "mode": "REQUIRED", "description": "Run's day."},
            {"name": "x_run_id", "type": "STRING", "mode": "REQUIRED", "description": "Run."},
            {"name": "x_ingested_at", "type": "TIMESTAMP", "mode": "REQUIRED", "description": "When."},
        ],
    }
)
LINEAGE = {
    "x_org_slug": "acme",
    "x_pipeline_id": "acme-demo-numbers",
    "x_run_id": "run-1",
    "x_ingested_at": NOW,
}
Execute = Callable[[dict[str, Any], Mapping[str, Any]], Awaitable[Any]]


class Processor:
    """A processor around one function."""

    def __init__(self, execute: Execute) -> None:
        self.execute = execute


def numbers(*values: int) -> pa.Table:
    return pa.table({"day": pa.array(DAYS[: len(values)], pa.date32()), "n": pa.array(values, pa.int64())})


def answering(result: Any) -> Execute:
    async def execute(config: dict[str, Any], context: Mapping[str, Any]) -> Any:
        return result

    return execute


def success(**tables: pa.Table) -> Execute:
    return answering({"status": "SUCCESS", "tables": tables})


def raising(error: Exception, *, times: int = 99) -> Execute:
    """Raise `error` so often, then succeed."""
    calls: list[int] = []

    async def execute(config: dict[str, Any], context: Mapping[str, Any]) -> Any:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return {"status": "SUCCESS", "tables": {"numbers": numbers(1)}}

    return execute


def step(step_id: str, *depends_on: str, **more: Any) -> dict[str, Any]:
    return {"step_id": step_id, "ps_type": f"demo.{step_id}", "depends_on": depends_on, **more}


@dataclass
class Bench:
    """Runs a unit of given steps and processors, and keeps what was published, logged and waited."""

    published: list[Mapping[str, pa.Table]] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    refuse: Exception | None = None

    async def run(self, steps: list[dict[str, Any]], variables: dict[str, Any] | None = None, **of: Execute):
        pipeline = Pipeline.model_validate(
            {
                "path": "demo/numbers",
                "name": "Numbers",
                "description": "Numbers.",
                "provider": "demo",
                "steps": steps,
                "outputs": [{"table": "numbers"}],
            }
        )

        def resolve(ps_type: str) -> Processor:
            name = ps_type.removeprefix("demo.")
            if name not in of:
                raise NotFoundError(f"There is no processor {ps_type}.", fix="Write it.")
            return Processor(of[name])

        outcome = await run_unit(
            UNIT,
            pipeline,
            Catalog({"demo/numbers": pipeline}, {}, {"numbers": SCHEMA}),
            attempt=2,
            resolve=resolve,
            context=context(self, variables or {}),
            publish=self.publish,
            rand=lambda: 1.0,
            sleep=self.sleep,
        )
        assert (outcome.unit, outcome.attempt) == (UNIT, 2)
        # Its way back to the driver leads through pickle.
        assert str(pickle.loads(pickle.dumps(outcome)).error) == str(outcome.error)
        return outcome

    def publish(self, tables: Mapping[str, pa.Table]) -> tuple[Publication, ...]:
        if self.refuse:
            raise self.refuse
        self.published.append(tables)
        rows = tables["numbers"].num_rows
        return (Publication(Partition("acme", "numbers", DAYS[0]), 1, "v1:0", rows, "job", "loaded"),)

    async def sleep(self, wait_s: float) -> None:
        self.waits.append(wait_s)

    def warning(self, event: str, **fields: object) -> None:
        self.logged.append(event)


def context(log: Bench, variables: dict[str, Any]) -> dict[str, Any]:
    return {
        "org_slug": "acme",
        "dates": DAYS,
        "run_id": "run-1",
        "pipeline_id": "acme-demo-numbers",
        "variables": variables,
        "tables": {},
        "warehouse": SimpleNamespace(dataset="acme_local"),
        "log": log,
        "clock": lambda: NOW,
    }


@pytest.fixture
def bench() -> Bench:
    return Bench()


def stages(outcome: Outcome) -> list[tuple[str, int]]:
    return [(timing.stage, timing.rows) for timing in outcome.timings]


async def test_steps_follow_what_they_depend_on_and_hand_tables_on(bench: Bench):
    seen: list[tuple[str, list[str]]] = []

    def noting(name: str, **tables: pa.Table) -> Execute:
        async def execute(config: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
            seen.append((name, sorted(given["tables"])))
            return {"status": "SUCCESS", "tables": tables}

        return execute

    outcome = await bench.run(
        [step("last", "first", "second"), step("second", "first"), step("first")],
        first=noting("first", raw=numbers(1)),
        second=noting("second", numbers=numbers(1, 2)),
        last=noting("last"),
    )
    assert seen == [("first", []), ("second", ["raw"]), ("last", ["numbers", "raw"])]
    assert outcome.status == "published"
    assert [p.rows for p in outcome.publications] == [2]
    assert stages(outcome) == [("first", 1), ("second", 2), ("last", 0), ("publish", 2)]
    assert [list(tables) for tables in bench.published] == [["numbers"]]


async def test_a_step_gets_its_rendered_config(bench: Bench):
    got: list[dict[str, Any]] = []

    async def execute(config: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        got.append(config)
        return {"status": "SUCCESS", "tables": {"numbers": numbers(1)}}

    config = {
        "day": "{{ date }}",
        "text": "{{ org_slug }} in {{ dataset }}",
        "first": "{{ start_date }}",
        "n": "{{ variables.n }}",
    }
    outcome = await bench.run([step("only", config=config)], {"n": 7}, only=execute)
    assert outcome.status == "published"
    assert got == [{"day": DAYS[-1], "text": "acme in acme_local", "first": DAYS[0], "n": 7}]


async def test_a_template_that_names_nothing_fails_the_unit_without_another_try(bench: Bench):
    outcome = await bench.run([step("only", config={"x": "{{ variables.nope }}"})], only=success())
    assert isinstance(outcome.error, ConfigurationError)
    assert "nope" in outcome.error.message


async def test_a_processor_that_does_not_exist_is_a_configuration_error(bench: Bench):
    outcome = await bench.run([step("only")])
    assert isinstance(outcome.error, NotFoundError)
    assert bench.published == []


async def test_lineage_is_the_engines_whatever_a_processor_says(bench: Bench):
    lying = numbers(1, 2).append_column("x_org_slug", pa.array(["globex", "globex"]))
    lying = lying.append_column("x_ingested_at", pa.array([0, 0]))
    await bench.run([step("only")], only=success(numbers=lying))
    table = bench.published[0]["numbers"]
    assert table.num_rows == 2
    for row in table.to_pylist():
        assert {name: row[name] for name in LINEAGE} == LINEAGE
    for name in LINEAGE:
        assert table.schema.field(name) == SCHEMA.arrow.field(name)


async def test_the_run_date_of_a_row_is_the_day_that_was_processed(bench: Bench):
    lying = numbers(1, 2)
    lying = lying.append_column("x_pipeline_run_date", pa.array([NOW.date()] * 2))
    await bench.run([step("only")], only=success(numbers=lying))
    table = bench.published[0]["numbers"]
    assert table["x_pipeline_run_date"].to_pylist() == table["day"].to_pylist() == lying["day"].to_pylist()
    assert table.schema.field("x_pipeline_run_date") == SCHEMA.arrow.field("x_pipeline_run_date")


def test_lineage_of_a_table_without_rows_has_its_types():
    table = add_lineage(numbers(), SCHEMA, context(Bench(), {}))
    assert table.num_rows == 0
    assert [table.schema.field(name) for name in LINEAGE] == [SCHEMA.arrow.field(name) for name in LINEAGE]


async def test_a_step_that_takes_too_long_is_tried_again_then_the_unit_is_transient(bench: Bench):
    calls: list[int] = []

    async def slow(config: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        calls.append(1)
        await asyncio.Event().wait()
        return {}

    outcome = await bench.run(
        [step("only", timeout_seconds=0.01, retry={"max_attempts": 2})],
        only=slow,
    )
    assert len(calls) == 2
    assert isinstance(outcome.error, TransientError)
    assert "only (demo.only) took longer than 0.01 s" in outcome.error.message
    assert bench.logged == ["step_retry"]


async def test_a_timeout_of_the_processors_own_is_not_blamed_on_the_step(bench: Bench):
    outcome = await bench.run(
        [step("only", retry={"max_attempts": 1})], only=raising(TimeoutError("connect"))
    )
    assert isinstance(outcome.error, TransientError)
    assert "took longer" not in outcome.error.message
    assert "connect" in outcome.error.message


async def test_transient_failures_are_tried_again_with_waits_that_double(bench: Bench):
    retry = {"max_attempts": 5, "initial_delay_seconds": 1, "max_delay_seconds": 3}
    outcome = await bench.run([step("only", retry=retry)], only=raising(TransientError("away"), times=3))
    assert outcome.status == "published"
    assert bench.waits == [1, 2, 3]


async def test_retry_after_is_waited_for_within_the_steps_own_bound(bench: Bench):
    busy = TransientError("busy", retry_after=timedelta(seconds=40))
    await bench.run([step("only")], only=raising(busy, times=1))
    assert bench.waits == [40]


async def test_a_longer_retry_after_hands_the_unit_back_at_once(bench: Bench):
    busy = TransientError("busy", retry_after=timedelta(seconds=61))
    outcome = await bench.run([step("only")], only=raising(busy, times=1))
    assert bench.waits == []
    assert outcome.status == "failed"
    assert isinstance(outcome.error, TransientError)
    assert outcome.error.retry_after == timedelta(seconds=61)


@pytest.mark.parametrize(
    "failing",
    [
        raising(TransientError("away")),
        raising(ConfigurationError("wrong")),
        raising(ValueError("a bug")),
        answering({"status": "FAILED", "error": "no data"}),
    ],
    ids=["transient", "configuration", "bug", "FAILED"],
)
async def test_on_failure_continue_goes_on_whatever_the_failure(bench: Bench, failing: Execute):
    steps = [
        step("main"),
        step("extra", "main", on_failure="continue", retry={"max_attempts": 2}),
        step("end", "extra"),
    ]
    outcome = await bench.run(steps, main=success(numbers=numbers(1)), extra=failing, end=success())
    assert outcome.status == "published"
    assert bench.logged[-1] == "step_failed_continue"
    assert stages(outcome) == [("main", 1), ("extra", 0), ("end", 0), ("publish", 1)]


async def test_an_output_that_a_continued_step_left_out_fails_the_unit(bench: Bench):
    steps = [step("main", on_failure="continue", retry={"max_attempts": 1})]
    outcome = await bench.run(steps, main=raising(TransientError("away")))
    assert isinstance(outcome.error, ConfigurationError)
    assert "numbers" in outcome.error.message
    assert bench.published == []


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (None, "status None"),
        ([], "status None"),
        ({}, "status None"),
        ({"status": "success"}, "status 'success'"),
        ({"status": "FAILED", "error": "the bill is not ready"}, "the bill is not ready"),
        ({"status": "FAILED"}, "no reason given"),
        ({"status": "SUCCESS", "tables": {"numbers": [{"n": 1}]}}, "numbers that is no pyarrow.Table"),
        ({"status": "SUCCESS", "tables": [numbers(1)]}, "tables"),
        ({"status": "SUCCESS", "tables": None}, "tables"),
        ({"status": "SUCCESS", "tables": {"numbers": numbers(1)}, "findings": ["odd"]}, "findings"),
        ({"status": "SUCCESS", "tables": {"numbers": numbers(1)}, "findings": None}, "findings"),
        ({"status": "SUCCESS", "tables": {"number": numbers(1)}}, "it returned number"),
        ({"status": "SKIPPED"}, "it returned nothing"),
    ],
)
async def test_a_result_of_the_wrong_shape_is_refused_by_name(bench: Bench, result: Any, said: str):
    outcome = await bench.run([step("only")], only=answering(result))
    assert outcome.status == "failed"
    assert isinstance(outcome.error, ConfigurationError)
    assert said in outcome.error.message
    assert outcome.error.fix
    assert bench.waits == []
    assert bench.published == []


async def test_a_skipped_step_leaves_earlier_tables_as_they_are(bench: Bench):
    skipped = answering({"status": "SKIPPED", "tables": {"numbers": numbers(9)}})
    outcome = await bench.run(
        [step("main"), step("extra", "main")], main=success(numbers=numbers(1)), extra=skipped
    )
    assert outcome.status == "published"
    assert bench.published[0]["numbers"]["n"].to_pylist() == [1]


async def test_what_nobody_expected_is_internal_and_names_its_place(bench: Bench):
    async def broken(config: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        return {"status": {}["missing"]}

    outcome = await bench.run([step("only")], only=broken)
    assert isinstance(outcome.error, InternalError)
    assert "KeyError: 'missing'" in outcome.error.message
    assert f"{__file__}:{broken.__code__.co_firstlineno + 1}" in outcome.error.message
    assert str(UNIT) in outcome.error.message


async def test_a_failure_keeps_the_findings_and_timings_so_far(bench: Bench):
    found = answering({"status": "SUCCESS", "tables": {"numbers": numbers(1, 2)}, "findings": [FINDING]})
    outcome = await bench.run(
        [step("main"), step("extra", "main")], main=found, extra=raising(ValueError("a bug"))
    )
    assert outcome.status == "failed"
    assert outcome.findings == (FINDING,)
    assert stages(outcome) == [("main", 2), ("extra", 0)]
    assert all(timing.seconds >= 0 for timing in outcome.timings)


async def test_a_publish_that_fails_fails_the_unit_with_its_error():
    bench = Bench(refuse=TransientError("The warehouse is away."))
    outcome = await bench.run([step("only")], only=success(numbers=numbers(1)))
    assert outcome.status == "failed"
    assert outcome.error is bench.refuse
    assert outcome.publications == ()


async def test_a_cancel_is_not_swallowed(bench: Bench):
    begun = asyncio.Event()

    async def waiting(config: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        begun.set()
        await asyncio.Event().wait()
        return {}

    task = asyncio.create_task(bench.run([step("only", on_failure="continue")], only=waiting))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_a_step_says_about_itself_is_kept_with_its_time(bench: Bench):
    metrics = {"rows_affected": 3, "jobs": [{"id": "a"}]}
    told = answering({"status": "SUCCESS", "tables": {"numbers": numbers(1)}, "metrics": metrics})

    outcome = await bench.run([step("call")], call=told)

    assert outcome.timings[0].metrics == metrics


async def test_steps_of_scope_run_are_no_part_of_a_unit(bench: Bench):
    outcome = await bench.run(
        [step("load"), step("after", scope="run")],
        load=success(numbers=numbers(1)),
        after=raising(InternalError("must not run")),
    )

    assert outcome.status == "published"
    assert stages(outcome) == [("load", 1), ("publish", 1)]


def whole_run(*steps: dict[str, Any]) -> Pipeline:
    facts = {"path": "demo/numbers", "name": "N", "description": "N.", "provider": "demo"}
    return Pipeline.model_validate({**facts, "steps": [{**one, "scope": "run"} for one in steps]})


async def test_steps_of_a_run_go_in_order_until_one_fails(bench: Bench):
    seen: list[str] = []

    def noting(name: str, error: Exception | None = None) -> Execute:
        async def execute(config: dict[str, Any], given: Mapping[str, Any]) -> Any:
            seen.append(name)
            if error:
                raise error
            return {"status": "SUCCESS", "metrics": {"by": name}}

        return execute

    engines = {
        "demo.one": Processor(noting("one")),
        "demo.two": Processor(noting("two", ConfigurationError("no such procedure", fix="Sync."))),
        "demo.three": Processor(noting("three")),
    }

    timings, error = await run_scope(
        whole_run(step("three", "two"), step("two", "one"), step("one")),
        resolve=engines.__getitem__,
        context=context(bench, {}),
        rand=lambda: 1.0,
    )

    assert seen == ["one", "two"]
    assert [(timing.stage, timing.metrics) for timing in timings] == [("one", {"by": "one"}), ("two", {})]
    assert isinstance(error, ConfigurationError)
    assert "no such procedure" in str(error)


async def test_what_nobody_expected_of_a_runs_step_is_an_internal_error(bench: Bench):
    engine = Processor(raising(KeyError("rows")))
    _, error = await run_scope(
        whole_run(step("one")), resolve=lambda _: engine, context=context(bench, {}), rand=lambda: 1.0
    )

    assert isinstance(error, InternalError)
    assert "KeyError" in str(error)


async def test_a_discovery_of_the_wrong_kind_is_refused(bench: Bench):
    outcome = await bench.run(
        [step("look")], look=answering({"status": "SUCCESS", "discovered": {"days": []}})
    )

    assert outcome.status == "failed"
    assert "returned discovered that is no Discovery" in str(outcome.error)

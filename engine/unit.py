"""One unit from its first step to its publications: the only place where a failure becomes an Outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from engine.catalog import Catalog, Pipeline, Step
from engine.errors import ConfigurationError, InternalError, MantaError, TransientError
from engine.retry import next_delay
from engine.schemas import Schema
from engine.templates import render
from engine.types import Discovery, Finding, Outcome, Processor, Publication, Timing, Unit

Publish = Callable[[Mapping[str, pa.Table]], tuple[Publication, ...]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A processor's result that keeps the contract."""

    tables: Mapping[str, pa.Table]
    findings: Sequence[Finding]
    metrics: Mapping[str, Any]
    discovered: Discovery | None


@dataclass(slots=True)
class _Work:
    """What a unit has so far; kept aside so that a failure still reports its timings and findings."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)


async def run_unit(
    unit: Unit,
    pipeline: Pipeline,
    catalog: Catalog,
    *,
    attempt: int,
    resolve: Callable[[str], Processor],
    context: Mapping[str, Any],
    publish: Publish,
    rand: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Outcome:
    """Run the steps of `pipeline` over `unit`, then publish its outputs.

    Tables flow from step to step in memory. Never raises but for cancellation: whatever happens becomes an
    Outcome, whose error class says if another attempt can help (`TransientError`, `InternalError`) or not.
    """
    work = _Work()
    outcome = Outcome(unit=unit, attempt=attempt, status="published")
    try:
        for step in pipeline.ordered_steps():
            await _run_step(step, work, resolve=resolve, context=context, rand=rand, sleep=sleep)
        outputs = _outputs(pipeline, catalog, work.tables, context)
        started = time.perf_counter()
        publications = await asyncio.to_thread(publish, outputs)
        rows = sum(p.rows for p in publications)
        work.timings.append(Timing("publish", time.perf_counter() - started, rows))
        outcome = replace(outcome, publications=publications)
    except MantaError as error:
        outcome = replace(outcome, status="failed", error=error)
    except Exception as error:  # noqa: BLE001 - a processor may raise anything; the driver needs an answer
        outcome = replace(outcome, status="failed", error=_internal(error, unit))
    return replace(outcome, findings=tuple(work.findings), timings=tuple(work.timings))


async def _run_step(
    step: Step,
    work: _Work,
    *,
    resolve: Callable[[str], Processor],
    context: Mapping[str, Any],
    rand: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    """Run one step to its end and take in what it made; a failure passes unless the step says to continue."""
    started = time.perf_counter()
    rows, metrics = 0, {}
    try:
        answer = await ask(step, work.tables, resolve=resolve, context=context, rand=rand, sleep=sleep)
        work.tables.update(answer.tables)
        work.findings.extend(answer.findings)
        rows = sum(table.num_rows for table in answer.tables.values())
        metrics = dict(answer.metrics)
    except Exception as error:
        if step.on_failure == "stop":
            raise
        context["log"].warning("step_failed_continue", step=step.step_id, error=str(error))
    finally:
        work.timings.append(Timing(step.step_id, time.perf_counter() - started, rows, metrics))


async def run_scope(
    pipeline: Pipeline,
    *,
    resolve: Callable[[str], Processor],
    context: Mapping[str, Any],
    rand: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> tuple[tuple[Timing, ...], MantaError | None]:
    """Run the steps of scope `run`, in order; the first that fails and may not is answered as the error."""
    work = _Work()
    try:
        for step in pipeline.ordered_steps("run"):
            await _run_step(step, work, resolve=resolve, context=context, rand=rand, sleep=sleep)
    except MantaError as error:
        return tuple(work.timings), error
    except Exception as error:  # noqa: BLE001 - as in a unit
        return tuple(work.timings), _internal(error, f"{pipeline.path} {context['org_slug']}")
    return tuple(work.timings), None


async def ask(
    step: Step,
    tables: Mapping[str, pa.Table],
    *,
    resolve: Callable[[str], Processor],
    context: Mapping[str, Any],
    rand: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Answer:
    """Ask the processor until it answers or its attempts are used up; then raises its last failure."""
    processor = resolve(step.ps_type)
    config = render(step.config, _template_values(context))
    attempt = 0
    while True:
        attempt += 1
        deadline = asyncio.timeout(step.timeout_seconds)
        try:
            async with deadline:
                result = await processor.execute(config, {**context, "tables": dict(tables)})
            return _accept(step, result)
        except TimeoutError as error:
            failure = _timed_out(step, error, own=not deadline.expired())
        except TransientError as error:
            failure = error
        if attempt >= step.retry.max_attempts or _hand_back(failure, step):
            raise failure
        wait_s = _wait(failure, attempt, step, rand)
        context["log"].warning(
            "step_retry", step=step.step_id, attempt=attempt, wait_s=round(wait_s, 3), code=failure.code
        )
        await sleep(wait_s)


def _timed_out(step: Step, error: TimeoutError, *, own: bool) -> TransientError:
    name = f"Step {step.step_id} ({step.ps_type})"
    failure = (
        TransientError(f"{name} met a timeout of its own: {error}.")
        if own
        else TransientError(
            f"{name} took longer than {step.timeout_seconds:g} s.",
            fix="Raise timeout_seconds of the step or ask for fewer days.",
        )
    )
    failure.__cause__ = error
    return failure


def _hand_back(failure: MantaError, step: Step) -> bool:
    """A wait longer than the step would ever wait belongs to the driver, which can use the slot meanwhile."""
    retry_after = getattr(failure, "retry_after", None)
    return retry_after is not None and retry_after > timedelta(seconds=step.retry.max_delay_seconds)


def _wait(failure: MantaError, attempt: int, step: Step, rand: Callable[[], float]) -> float:
    retry_after = getattr(failure, "retry_after", None)
    floor = retry_after.total_seconds() if retry_after else 0.0
    drawn = next_delay(
        attempt - 1, base=step.retry.initial_delay_seconds, cap=step.retry.max_delay_seconds, rand=rand
    )
    return max(floor, drawn)


def _accept(step: Step, result: Any) -> Answer:
    """A result that keeps the processor contract.

    Raises ConfigurationError for one that does not, and for status FAILED.
    """
    status = result.get("status") if isinstance(result, Mapping) else None
    if status in ("SUCCESS", "SKIPPED"):
        findings = result.get("findings", ())
        if not isinstance(findings, list | tuple) or not all(isinstance(f, Finding) for f in findings):
            raise ConfigurationError(
                f"Step {step.step_id}: {step.ps_type} returned findings that are no list of Finding.",
                fix="Return {'findings': [engine.types.Finding(...)]}, or leave it out.",
            )
        discovered = result.get("discovered")
        if not isinstance(discovered, Discovery | None):
            raise ConfigurationError(
                f"Step {step.step_id}: {step.ps_type} returned discovered that is no Discovery.",
                fix="Return {'discovered': engine.types.Discovery(...)}.",
            )
        tables = _tables(step, result) if status == "SUCCESS" else {}
        return Answer(tables, findings, result.get("metrics") or {}, discovered)
    if status == "FAILED":
        raise ConfigurationError(
            f"Step {step.step_id} ({step.ps_type}) failed: {result.get('error') or 'no reason given'}.",
            fix="See the processor's documentation; raise TransientError for what is worth another try.",
        )
    raise ConfigurationError(
        f"Step {step.step_id}: {step.ps_type} answered status {status!r}.",
        fix="Return a dict whose status is SUCCESS, SKIPPED or FAILED.",
    )


def _tables(step: Step, result: Mapping[str, Any]) -> Mapping[str, pa.Table]:
    tables = result.get("tables", {})
    by_name = tables if isinstance(tables, Mapping) else {"tables": tables}
    wrong = [str(name) for name, table in by_name.items() if not isinstance(table, pa.Table)]
    if wrong:
        raise ConfigurationError(
            f"Step {step.step_id}: {step.ps_type} returned {', '.join(wrong)} that is no pyarrow.Table.",
            fix="Return {'tables': {name: pyarrow.Table}}.",
        )
    return dict(by_name)


def _outputs(
    pipeline: Pipeline, catalog: Catalog, tables: Mapping[str, pa.Table], context: Mapping[str, Any]
) -> dict[str, pa.Table]:
    found: dict[str, pa.Table] = {}
    for output in pipeline.outputs:
        if output.table not in tables:
            raise ConfigurationError(
                f"No step of {pipeline.path} returned the table {output.table}; it returned "
                f"{', '.join(sorted(tables)) or 'nothing'}.",
                fix="Return it under this name, or take it out of the pipeline's outputs.",
                field="outputs",
            )
        found[output.table] = add_lineage(tables[output.table], catalog.schemas[output.schema_], context)
    return found


def add_lineage(table: pa.Table, schema: Schema, context: Mapping[str, Any]) -> pa.Table:
    """Set the lineage columns that say who loaded a row: they are the engine's, never a processor's."""
    now: datetime = context["clock"]()
    values = {
        "x_org_slug": context["org_slug"],
        "x_pipeline_id": context["pipeline_id"],
        "x_run_id": context["run_id"],
        "x_ingested_at": now,
    }
    for column in schema.columns:
        if column.name == "x_pipeline_run_date" and schema.partition in table.column_names:
            # The day that was processed, not the day of processing: that is in x_ingested_at.
            filled = table[schema.partition]
        elif column.name in values:
            filled = pa.repeat(pa.scalar(values[column.name], column.arrow.type), table.num_rows)
        else:
            continue
        position = table.schema.get_field_index(column.name)
        if position < 0:
            table = table.append_column(column.arrow, filled)
        else:
            table = table.set_column(position, column.arrow, filled)
    return table


def _template_values(context: Mapping[str, Any]) -> dict[str, Any]:
    days = context["dates"]
    return {
        "org_slug": context["org_slug"],
        "date": days[-1],
        "start_date": days[0],
        "end_date": days[-1],
        "run_id": context["run_id"],
        "dataset": context["warehouse"].dataset,
        "variables": context["variables"],
    }


def _internal(error: Exception, unit: Unit | str) -> InternalError:
    """Wrap what nobody expected, with its type and place: the message is all that an operator may see."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
    wrapped = InternalError(
        f"{unit}: {type(error).__name__}: {error}{place}", fix="Report it with the run's log; it was retried."
    )
    wrapped.__cause__ = error
    return wrapped

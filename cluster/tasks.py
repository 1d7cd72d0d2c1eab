"""The remote unit: opens what the unit needs on the worker, runs it, and answers with an Outcome."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

import httpx
import pyarrow as pa
import ray

from cluster.permits import ClusterPermits
from engine.catalog import Pipeline
from engine.errors import ConfigurationError, MantaError
from engine.http import Http, open_client
from engine.log import JsonLog, Log
from engine.publish import publish
from engine.retry import RetryPolicy
from engine.settings import Settings
from engine.types import Outcome, Publication, Unit
from engine.unit import Publish, run_unit
from engine.workplace import Workplace, open_workplace
from processors import resolve


@dataclass(frozen=True, slots=True)
class UnitTask:
    """What a task is given: references only. Secrets are opened on the worker."""

    settings: Settings
    run_id: str
    unit: Unit
    attempt: int
    provisional: frozenset[date]
    variables: Mapping[str, Any]
    coordinator: Any


@ray.remote(max_retries=0)
def unit_task(task: UnitTask) -> Outcome:
    """Run one attempt at a unit. Never raises; what Ray itself kills is mapped by the driver."""
    return asyncio.run(_attempt(task))


async def _attempt(task: UnitTask) -> Outcome:
    unit = task.unit
    log = JsonLog(sys.stdout.write, now=_now).bind(
        run_id=task.run_id, org=unit.org, unit=str(unit), attempt=task.attempt
    )
    log.info("unit_started", days=len(unit.days))
    https: dict[str, Http] = {}
    try:
        work = open_workplace(task.settings)
        pipeline = work.catalog.pipeline(unit.pipeline)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(open_client())
            context = await asyncio.to_thread(_context, task, work, pipeline, client, https, log)
            outcome = await run_unit(
                unit,
                pipeline,
                work.catalog,
                attempt=task.attempt,
                resolve=resolve,
                context=context,
                publish=_publisher(task, work, pipeline),
                rand=random.random,
            )
    except MantaError as error:
        outcome = Outcome(unit=unit, attempt=task.attempt, status="failed", error=error)
    outcome = replace(
        outcome,
        api_calls=sum(http.calls for http in https.values()),
        api_bytes=sum(http.bytes for http in https.values()),
    )
    log.info("unit_ended", status=outcome.status, error=str(outcome.error) if outcome.error else None)
    return outcome


def _context(
    task: UnitTask,
    work: Workplace,
    pipeline: Pipeline,
    client: httpx.AsyncClient,
    https: dict[str, Http],
    log: Log,
) -> dict[str, Any]:
    """What the processors of a unit are given; `https` is filled so that calls are counted on failure too."""
    unit = task.unit
    provider = work.catalog.providers[pipeline.provider]
    secrets = work.tenants.open_active(unit.org, pipeline.provider)
    if not secrets:
        raise ConfigurationError(
            f"{unit.org} has no active credential for {provider.display_name}.",
            fix=f"Store one: manta credential add {unit.org} {provider.name}",
        )
    for credential_id, secret in secrets.items():
        https[credential_id] = Http(
            client,
            provider=provider.name,
            base_url=provider.base_url(work.settings),
            headers=provider.request_headers(secret.reveal()),
            permits=ClusterPermits(task.coordinator, provider.name, credential_id),
            policy=RetryPolicy(),
            rand=random.random,
            sleep=asyncio.sleep,
            now=_now,
            log=log.bind(credential_id=credential_id),
        )
    return {
        "org_slug": unit.org,
        "dates": unit.days,
        "run_id": task.run_id,
        "pipeline_id": pipeline.id_for(unit.org),
        "variables": {**pipeline.variables, **task.variables},
        "http": https,
        "secrets": secrets,
        "tables": {},
        "warehouse": work.warehouse(unit.org),
        "prices": lambda name, first, last: work.prices(unit.org, name, first, last),
        "log": log,
        "clock": _now,
    }


def _publisher(task: UnitTask, work: Workplace, pipeline: Pipeline) -> Publish:
    def publish_tables(tables: Mapping[str, pa.Table]) -> tuple[Publication, ...]:
        return publish(
            task.unit,
            tables,
            schemas={output.table: work.catalog.schemas[output.schema_] for output in pipeline.outputs},
            checks={output.table: output.checks for output in pipeline.outputs},
            run_id=task.run_id,
            attempt=task.attempt,
            provisional=task.provisional,
            warehouse=work.warehouse(task.unit.org),
            ledger=work.ledger,
            artifacts=work.artifacts,
            now=_now,
        )

    return publish_tables


def _now() -> datetime:
    return datetime.now(UTC)

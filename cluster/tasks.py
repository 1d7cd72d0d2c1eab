"""The remote unit: opens what the unit needs on the worker, runs it, and answers with an Outcome; and the
stages that a run has once, before and after its units."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, Literal

import httpx
import pyarrow as pa
import ray

from cluster.permits import ClusterPermits
from engine.catalog import Pipeline
from engine.errors import ConfigurationError, InternalError, MantaError
from engine.gcp.source import open_source
from engine.http import Http, open_client
from engine.log import JsonLog, Log
from engine.oauth import open_auth
from engine.pages.asking import on_behalf_of
from engine.plan import days_between
from engine.publish import publish
from engine.request_auth import RequestAuth, request_auth
from engine.retry import RetryPolicy
from engine.settings import Settings
from engine.types import Discovery, Outcome, Publication, RunRequest, Timing, Unit
from engine.unit import Publish, ask, run_scope, run_unit
from engine.vault import Secret
from engine.workplace import Workplace, open_workplace
from processors import resolve

#: Stands for the credential where a provider asks for none.
NO_CREDENTIAL = "none"


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


@dataclass(frozen=True, slots=True)
class StageTask:
    """A stage of a whole run, by references too: `discover` before it is planned, `run` after its units."""

    settings: Settings
    run_id: str
    request: RunRequest
    stage: Literal["discover", "run"]
    coordinator: Any


@dataclass(frozen=True, slots=True)
class StageOutcome:
    """How a stage ended; like a unit it answers and does not raise."""

    discovery: Discovery | None = None
    timings: tuple[Timing, ...] = ()
    error: MantaError | None = None


@ray.remote(max_retries=0)
def unit_task(task: UnitTask) -> Outcome:
    """Run one attempt at a unit. Never raises; what Ray itself kills is mapped by the driver."""
    return asyncio.run(_attempt(task))


@ray.remote(max_retries=0)
def stage_task(task: StageTask) -> StageOutcome:
    """Run a stage once. Never raises; what Ray itself kills is mapped by the supervisor."""
    return asyncio.run(_stage(task))


async def _stage(task: StageTask) -> StageOutcome:
    request = task.request
    log = JsonLog(sys.stdout.write, now=_now).bind(run_id=task.run_id, org=request.org, stage=task.stage)
    try:
        work = open_workplace(task.settings)
        pipeline = work.catalog.pipeline(request.pipeline)
        given = _Given(
            request.org,
            days_between(request.start, request.end),
            task.run_id,
            request.variables,
            task.coordinator,
        )
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(open_client())
            context = await asyncio.to_thread(_context, given, work, pipeline, client, {}, log)
            if task.stage == "run":
                timings, error = await run_scope(
                    pipeline, resolve=resolve, context=context, rand=random.random
                )
                return StageOutcome(timings=timings, error=error)
            step = pipeline.discover
            if step is None:
                raise InternalError(f"{pipeline.path} has no discover step.")
            marks = await asyncio.to_thread(work.marks.standing, request.org, request.pipeline)
            answer = await ask(
                step,
                {},
                resolve=resolve,
                context={**context, "marks": marks},
                rand=random.random,
            )
            if answer.discovered is None:
                raise ConfigurationError(
                    f"{step.ps_type} discovered nothing it could say.",
                    fix="Return {'discovered': engine.types.Discovery(...)}.",
                    field="discover",
                )
            return StageOutcome(discovery=answer.discovered)
    except MantaError as error:
        return StageOutcome(error=error)
    except Exception as error:  # noqa: BLE001 - a processor may raise anything; the supervisor needs an answer
        return StageOutcome(error=InternalError(f"{request.pipeline}: {type(error).__name__}: {error}"))


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
            given = _Given(unit.org, unit.days, task.run_id, task.variables, task.coordinator)
            context = await asyncio.to_thread(_context, given, work, pipeline, client, https, log)
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


@dataclass(frozen=True, slots=True)
class _Given:
    """Whom a processor works for, whichever task it is in."""

    org: str
    days: tuple[date, ...]
    run_id: str
    variables: Mapping[str, Any]
    coordinator: Any


def _context(
    given: _Given,
    work: Workplace,
    pipeline: Pipeline,
    client: httpx.AsyncClient,
    https: dict[str, Http],
    log: Log,
) -> dict[str, Any]:
    """What processors are given; `https` is filled so that calls are counted on failure too."""
    provider = work.catalog.providers[pipeline.provider]
    secrets: dict[str, Secret] = {}
    if provider.needs_credential:
        secrets = work.tenants.open_active(given.org, pipeline.provider)
        if not secrets:
            raise ConfigurationError(
                f"{given.org} has no active credential for {provider.display_name}.",
                fix=f"Store one: manta credential add {given.org} {provider.name}",
            )
    asking: dict[str, Any] = {
        "policy": RetryPolicy(),
        "rand": random.random,
        "sleep": asyncio.sleep,
        "now": _now,
    }
    auths: dict[str, RequestAuth] = {}
    for name, secret in secrets.items():
        with on_behalf_of(name):
            auths[name] = open_auth(
                provider, secret.reveal(), settings=work.settings, client=client, **asking, log=log
            )
    address = provider.address(work.settings)
    if not provider.needs_credential and address is not None:
        auths[NO_CREDENTIAL] = request_auth(provider)
    for credential_id, auth in auths.items():
        https[credential_id] = Http(
            client,
            provider=provider.name,
            base_url=str(address),
            auth=auth,
            permits=ClusterPermits(given.coordinator, provider.name, credential_id),
            **asking,
            log=log.bind(credential_id=credential_id),
            services=provider.addresses(work.settings),
            official_hosts=provider.official_hosts,
        )
    return {
        "org_slug": given.org,
        "dates": given.days,
        "run_id": given.run_id,
        "pipeline_id": pipeline.id_for(given.org),
        "variables": {**pipeline.variables, **given.variables},
        "http": https,
        "addresses": provider.addresses(work.settings),
        "secrets": secrets,
        "tables": {},
        "bigquery": lambda name: open_source(
            secrets[name].reveal(), work.settings, org=given.org, run_id=given.run_id
        ),
        "warehouse": work.warehouse(given.org),
        "procedures": work.procedures,
        "schemas": work.catalog.schemas,
        "prices": lambda name, first, last: work.prices(given.org, name, first, last),
        "log": log,
        "clock": _now,
    }


def _publisher(task: UnitTask, work: Workplace, pipeline: Pipeline) -> Publish:
    def publish_tables(tables: Mapping[str, pa.Table]) -> tuple[Publication, ...]:
        published = publish(
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
        work.ensure_views(task.unit.org, tables)
        return published

    return publish_tables


def _now() -> datetime:
    return datetime.now(UTC)

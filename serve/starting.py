"""From a request's body to a run on record: what is asked, whether it can be, and what is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastapi.responses import JSONResponse

from engine.catalog import Pipeline
from engine.errors import ConfigurationError, ForbiddenError, StateError, UsageError
from engine.plan import check_range
from engine.runs import Origin, Run
from engine.types import Plan, RunRequest
from serve.auth import Visit
from serve.bodies import Body
from serve.cli import summary
from serve.cli.output import jsonable
from serve.dates import day_range
from serve.deps import Doors
from serve.looking import Seen, facts, status_url
from serve.models import RetryBody, RunBody

TRIGGER = "api"


async def request_of(doors: Doors, visit: Visit, org: str, path: str, body: RunBody) -> RunRequest:
    """What a body asks of a pipeline.

    Raises NotFoundError for a pipeline or organisation, UsageError for days, variables and addresses,
    ConfigurationError when the provider has no active credential, ForbiddenError for addresses without root.
    """
    pipeline = doors.work.catalog.pipeline(path)
    await doors.known_org(org)
    now = doors.now()
    first, last = day_range(
        body.date,
        body.start_date,
        body.end_date,
        closed=doors.work.last_closed_day(path, now=now),
    )
    check_range(first, last, today=doors.work.today(pipeline, now=now))
    _check_variables(body.variables, pipeline)
    if body.endpoints and visit.caller.kind != "root":
        raise ForbiddenError("Only the root key may give endpoints.", fix="Leave endpoints out.")
    doors.settings.with_endpoints(body.endpoints)
    await _check_credential(doors, org, pipeline)
    return RunRequest(
        org, path, first, last, policy=body.policy, variables=body.variables, endpoints=body.endpoints
    )


def _check_variables(given: Mapping[str, Any], pipeline: Pipeline) -> None:
    for name in given:
        if name not in pipeline.variables:
            has = ", ".join(sorted(pipeline.variables))
            raise UsageError(
                f"{pipeline.path} has no variable {name[:100]!r}.",
                fix=f"It has {has}." if has else "It has no variables: leave them out.",
                field="variables",
            )


async def _check_credential(doors: Doors, org: str, pipeline: Pipeline) -> None:
    wanted = (org, pipeline.provider)
    if not doors.work.catalog.providers[pipeline.provider].needs_credential:
        return
    if wanted in doors.directory.current().credentials:
        return
    if wanted not in (await doors.directory.look_again()).credentials:
        provider = doors.work.catalog.providers[pipeline.provider]
        raise ConfigurationError(
            f"{org} has no active credential for {provider.display_name}.",
            fix=f"Store one with POST /api/v1/organizations/{org}/credentials, "
            f"or: manta credential add {org} {provider.name}",
        )


async def begin(
    doors: Doors,
    visit: Visit,
    org: str,
    path: str,
    body: Body[RunBody],
    *,
    idempotency_key: str | None,
) -> JSONResponse:
    """Start what a body asks of a pipeline."""
    request = await request_of(doors, visit, org, path, body.value)
    return await start(doors, visit, request, fingerprint=body.fingerprint, idempotency_key=idempotency_key)


async def start(
    doors: Doors,
    visit: Visit,
    request: RunRequest,
    *,
    fingerprint: str,
    idempotency_key: str | None,
) -> JSONResponse:
    """Put the run on record and answer it: 202 for a new one, 200 for the one there is."""
    audit = visit.on(request.org, request.pipeline)
    claimed = f" ({audit.user_id})" if audit.user_id else ""
    origin = Origin(TRIGGER, visit.caller.actor + claimed, audit, idempotency_key, fingerprint)
    run, created = await doors.cluster.accept(request, origin)
    if created:
        visit.recorded()
    return accepted(run, created=created)


def accepted(run: Run, *, created: bool) -> JSONResponse:
    """The answer to a request for a run."""
    request = run.request
    if created:
        message = f"Accepted: {summary.title(request)}."
    elif run.terminal:
        message = "This request was made before; its run has ended."
    else:
        message = "The same request is under way: this is its run."
    url = status_url(run.id)
    content = {
        "pipeline_logging_id": run.id,
        "pipeline_id": run.pipeline_id,
        "org_slug": request.org,
        "status": run.status,
        "message": message,
        "status_url": url,
    }
    return JSONResponse(content, 202 if created else 200, headers={"Location": url})


async def plan(
    doors: Doors, visit: Visit, org: str, path: str, body: RunBody, *, discover: bool
) -> dict[str, Any]:
    """The plan of the run that this body would start; nothing is started.

    With `discover` the pipeline's source is asked what changed; otherwise its plan is an estimate.
    """
    request = await request_of(doors, visit, org, path, body)
    visit.on(org, path)
    discovered = await doors.cluster.discover(request) if discover else None
    found: Plan = await asyncio.to_thread(doors.work.plan, request, now=doors.now(), discovered=discovered)
    days = sorted(discovered.days) if discovered else None
    facts: dict[str, Any] = jsonable({**summary.plan_facts(found), "discovered_days": days})
    return facts


async def retry(
    doors: Doors, visit: Visit, run: Run, body: Body[RetryBody], *, idempotency_key: str | None
) -> JSONResponse:
    """Run again what failed in a run's range. Raises StateError while it has not ended."""
    if not run.terminal:
        raise StateError(
            f"Run {run.id} has not ended: {run.status}.", fix=f"Wait for it: GET {status_url(run.id)}"
        )
    request = replace(run.request, policy="failed")
    await _check_credential(doors, request.org, doors.work.catalog.pipeline(request.pipeline))
    return await start(doors, visit, request, fingerprint=body.fingerprint, idempotency_key=idempotency_key)


async def cancel(doors: Doors, visit: Visit, seen: Seen) -> dict[str, Any]:
    """Stop a run; that it is being stopped is on record before this answers. Raises StateError."""
    run = seen.run
    cancelled = await doors.cluster.cancel(run.request.org, run.id, audit=visit.on(run.request.org, run.id))
    visit.recorded()
    return facts(cancelled)

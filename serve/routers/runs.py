"""Runs: start, plan, list, show, follow, cancel, try again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query
from fastapi.responses import JSONResponse

from engine.errors import UsageError
from engine.validate import SLUG
from serve import looking, starting
from serve.answers import Accepted, EventPage, PlanAnswer, RunAnswer, RunDetail, RunPage, RunStatus
from serve.auth import Visit, org_or_root
from serve.bodies import Body, documented, read
from serve.dates import DayQuery
from serve.deps import DoorsDep
from serve.models import RetryBody, RunBody
from serve.openapi import LOCATION, problems

router = APIRouter(prefix="/api/v1/pipelines", tags=["runs"])

Starter = Annotated[Visit, Depends(org_or_root("run", "run.start", "run", policy="runs"))]
Planner = Annotated[Visit, Depends(org_or_root("run", "run.plan", "run"))]
Reader = Annotated[Visit, Depends(org_or_root("read", "run.read", "run"))]
Lister = Annotated[Visit, Depends(org_or_root("read", "run.list", "run"))]
Canceller = Annotated[Visit, Depends(org_or_root("run", "run.cancel", "run"))]
Retrier = Annotated[Visit, Depends(org_or_root("run", "run.retry", "run", policy="runs"))]
Org = Annotated[
    str, Path(description="The organisation's slug.", pattern=f"^{SLUG.pattern}$", examples=["acme_corp"])
]
NAME = r"^[A-Za-z0-9_-]+$"
Part = Annotated[str, Path(max_length=100, pattern=NAME)]
RunId = Annotated[
    str,
    Path(
        description="The run's `pipeline_logging_id`.",
        max_length=100,
        pattern=NAME,
        examples=["3f2a9c0d1b4e5f67-12"],
    ),
]
OrgQuery = Annotated[
    str | None,
    Query(description="The organisation's slug; the root key needs it to list.", pattern=f"^{SLUG.pattern}$"),
]
Cursor = Annotated[
    str | None,
    Query(max_length=1000, pattern=r"^[A-Za-z0-9_-]+$", description="`next_cursor` of the page before."),
]
RunRequestBody = Annotated[Body[RunBody], Depends(read(RunBody))]
RetryRequestBody = Annotated[Body[RetryBody], Depends(read(RetryBody))]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="The same key with the same request answers with the same run for 24 hours.",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
    ),
]
BODY = documented(
    RunBody,
    {
        "the last closed day": {},
        "one day": {"date": "2026-01-31"},
        "a range": {"start_date": "2026-01-01", "end_date": "2026-01-31", "policy": "missing"},
    },
    required=False,
)
NOTHING = documented(RetryBody, {"nothing": {}}, required=False)
ACCEPTED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Accepted,
        "description": "The run that this request has already.",
        "headers": LOCATION,
    },
    202: {"model": Accepted, "description": "A new run, on record.", "headers": LOCATION},
    **problems(404, 409),
}
Discover = Annotated[
    bool,
    Query(description="Ask the source what changed, where the pipeline has such a step; else an estimate."),
]
THREE = "/run/{org}/{provider}/{domain}/{pipeline}"
TWO = "/run/{org}/{provider}/{pipeline}"


# The plans come first: `plan` as the last part is never a pipeline's name.
@router.post(f"{THREE}/plan", response_model=PlanAnswer, responses=problems(404, 409), openapi_extra=BODY)
async def plan_domain_run(
    visit: Planner,
    body: RunRequestBody,
    doors: DoorsDep,
    org: Org,
    provider: Part,
    domain: Part,
    pipeline: Part,
    discover: Discover = False,
) -> dict[str, Any]:
    """Say what a run with this body would do, and do nothing."""
    path = f"{provider}/{domain}/{pipeline}"
    return await starting.plan(doors, visit, org, path, body.value, discover=discover)


@router.post(f"{TWO}/plan", response_model=PlanAnswer, responses=problems(404, 409), openapi_extra=BODY)
async def plan_run(
    visit: Planner,
    body: RunRequestBody,
    doors: DoorsDep,
    org: Org,
    provider: Part,
    pipeline: Part,
    discover: Discover = False,
) -> dict[str, Any]:
    """Say what a run with this body would do, and do nothing (pipelines without a domain)."""
    return await starting.plan(doors, visit, org, f"{provider}/{pipeline}", body.value, discover=discover)


@router.post(THREE, status_code=202, response_model=Accepted, responses=ACCEPTED, openapi_extra=BODY)
async def start_domain_run(
    visit: Starter,
    body: RunRequestBody,
    doors: DoorsDep,
    org: Org,
    provider: Part,
    domain: Part,
    pipeline: Part,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Start a run, or answer with the one that is under way for the same request."""
    path = f"{provider}/{domain}/{pipeline}"
    return await starting.begin(doors, visit, org, path, body, idempotency_key=idempotency_key)


@router.post(TWO, status_code=202, response_model=Accepted, responses=ACCEPTED, openapi_extra=BODY)
async def start_run(
    visit: Starter,
    body: RunRequestBody,
    doors: DoorsDep,
    org: Org,
    provider: Part,
    pipeline: Part,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Start a run of a pipeline without a domain."""
    path = f"{provider}/{pipeline}"
    return await starting.begin(doors, visit, org, path, body, idempotency_key=idempotency_key)


@router.get("/runs", response_model=RunPage, responses=problems(404))
async def list_runs(
    visit: Lister,
    doors: DoorsDep,
    org: OrgQuery = None,
    pipeline: Annotated[
        str | None, Query(max_length=300, pattern=r"^[A-Za-z0-9_/-]+$", description="A pipeline's path.")
    ] = None,
    status: Annotated[RunStatus | None, Query(description="Where the run stands.")] = None,
    since: DayQuery = None,
    until: DayQuery = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """List an organisation's runs, newest first; days are those of acceptance, in UTC."""
    if (chosen := visit.caller.org or org) is None:
        raise UsageError("Whose runs?", fix="Give ?org=SLUG with the root key.", field="org")
    filters = looking.Filters(pipeline, status, since, until)
    return await looking.page(doors, chosen, filters, limit=limit, cursor=cursor)


@router.get("/runs/{run_id}", response_model=RunDetail, responses=problems(404))
async def show_run(
    visit: Reader,
    doors: DoorsDep,
    run_id: RunId,
    org: OrgQuery = None,
    detail: Annotated[bool, Query(description="false: the run alone, fast while it is active.")] = True,
) -> dict[str, Any]:
    """Show a run: units, steps, timings, findings, errors each with its fix."""
    seen = await looking.find(doors, visit, run_id, org)
    return await looking.detail(doors, seen, everything=detail)


@router.get("/runs/{run_id}/events", response_model=EventPage, responses=problems(404))
async def list_run_events(
    visit: Reader,
    doors: DoorsDep,
    run_id: RunId,
    org: OrgQuery = None,
    after: Annotated[int, Query(ge=0, lt=2**63, description="The last position seen.")] = 0,
) -> dict[str, Any]:
    """List what happened behind a position, in order."""
    return await looking.events(doors, await looking.find(doors, visit, run_id, org), after)


@router.delete("/runs/{run_id}", status_code=202, response_model=RunAnswer, responses=problems(404, 409))
async def cancel_run(
    visit: Canceller, doors: DoorsDep, run_id: RunId, org: OrgQuery = None
) -> dict[str, Any]:
    """Stop a run. Its units end within seconds; what is published stays, nothing is half published."""
    return await starting.cancel(doors, visit, await looking.find(doors, visit, run_id, org))


@router.post(
    "/runs/{run_id}/retry",
    status_code=202,
    response_model=Accepted,
    responses=ACCEPTED,
    openapi_extra=NOTHING,
)
async def retry_run(
    visit: Retrier,
    body: RetryRequestBody,
    doors: DoorsDep,
    run_id: RunId,
    org: OrgQuery = None,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Run again what failed in the range of a run that has ended."""
    seen = await looking.find(doors, visit, run_id, org)
    return await starting.retry(doors, visit, seen.run, body, idempotency_key=idempotency_key)

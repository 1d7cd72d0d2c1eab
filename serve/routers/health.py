"""Whether the service lives, and whether it can do its work; nobody needs a key to ask."""

from __future__ import annotations

from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from serve.answers import HealthAnswer, LiveAnswer, ReadyAnswer
from serve.deps import DoorsDep, doors_of
from serve.openapi import only
from serve.readiness import Readiness

router = APIRouter(tags=["health"])


async def _readiness(request: Request) -> Readiness:
    kept = request.app.state
    if not hasattr(kept, "readiness"):
        kept.readiness = Readiness(doors_of(request))
    return cast("Readiness", kept.readiness)


@router.get("/health", response_model=HealthAnswer, responses=only(400, 431, 500))
async def health(doors: DoorsDep) -> dict[str, Any]:
    """Say what this is."""
    return {
        "status": "ok",
        "service": "manta",
        "version": doors.version,
        "environment": doors.settings.env,
    }


@router.get("/health/live", response_model=LiveAnswer, responses=only(400, 431, 500))
async def health_live() -> dict[str, str]:
    """Say that this replica lives."""
    return {"status": "ok"}


@router.get(
    "/health/ready",
    response_model=ReadyAnswer,
    responses={
        503: {"model": ReadyAnswer, "description": "Something is red; each check says what and what to do."},
        **only(400, 431, 500),
    },
)
async def health_ready(readiness: Annotated[Readiness, Depends(_readiness)]) -> JSONResponse:
    """Say whether everything is there that work needs; looked at every five seconds at most."""
    checks = await readiness.checks()
    well = all(check.status == "ok" for check in checks)
    content = {
        "status": "ok" if well else "failed",
        "checks": [
            {"name": one.name, "status": one.status, "problem": one.problem, "fix": one.fix} for one in checks
        ],
        "numbers": readiness.numbers,
    }
    return JSONResponse(content, 200 if well else 503)

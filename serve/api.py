"""The run API as one FastAPI application; who serves it is not its business."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse

from engine.errors import MantaError
from serve import openapi, problems
from serve.deps import Doors
from serve.middleware import Caught, Edge
from serve.routers import (
    audit,
    costs,
    credentials,
    health,
    keys,
    metrics,
    migrations,
    organizations,
    pipelines,
    procedures,
    quotas,
    runs,
)

THREADS = 64
TAGS = [
    {"name": "runs", "description": "Start runs and follow them."},
    {"name": "pipelines", "description": "What can be run."},
    {"name": "costs", "description": "What was spent."},
    {"name": "organizations", "description": "Organisations, their keys, credentials, quotas and audit."},
    {"name": "procedures", "description": "Stored procedures, and migrations of what is there already."},
    {"name": "health", "description": "Whether the service works."},
]
EXPOSED = [
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-API-Version",
    "X-Process-Time",
    "X-Request-ID",
]
ALLOWED = [
    "Content-Type",
    "Idempotency-Key",
    "X-API-Key",
    "X-CA-Root-Key",
    "X-Request-ID",
    "X-User-ID",
]
# Runs come before pipelines: `runs` is never a provider's name.
ROUTERS = (
    runs.router,
    pipelines.router,
    costs.router,
    organizations.router,
    keys.router,
    credentials.router,
    quotas.router,
    audit.router,
    procedures.router,
    migrations.router,
    health.router,
    metrics.router,
)


def create_app(doors: Doors) -> FastAPI:
    """The application over these doors; its lifespan follows the directory and writes the last audits."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # asyncio's own pool has a few threads on a small machine, and reads wait long for the warehouse.
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="api")
        asyncio.get_running_loop().set_default_executor(pool)
        await doors.directory.start()
        try:
            yield
        finally:
            await doors.directory.stop()
            try:
                await asyncio.to_thread(doors.audit.close)
            except MantaError as error:
                doors.log.error("audit.close", error=error)
            pool.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title=openapi.TITLE,
        version=doors.version or "0",
        docs_url=None,
        redoc_url=None,
        openapi_tags=TAGS,
        lifespan=lifespan,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
    )
    app.state.doors = doors
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = openapi.document(app)  # type: ignore[method-assign]

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return openapi.page(app)

    # The last one added is the outermost.
    app.add_middleware(Caught, log=doors.log)
    allowed = doors.settings.api_cors_origins or ""
    origins = [origin.strip() for origin in allowed.split(",") if origin.strip()]
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=ALLOWED,
            expose_headers=EXPOSED,
        )
    app.add_middleware(
        Edge,
        max_body_bytes=doors.settings.api_max_body_bytes,
        log=doors.log,
        note=doors.audit.note,
        monotonic=doors.clock,
        echoed=doors.proxied,
    )
    return app

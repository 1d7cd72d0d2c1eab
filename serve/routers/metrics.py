"""Numbers for Prometheus: of the whole cluster, without a tenant's name in them."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from serve.deps import DoorsDep
from serve.openapi import only

router = APIRouter(tags=["health"])
HELP = {
    "active_runs": "Runs that have not ended.",
    "accepted_total": "Runs accepted since the coordinator started.",
    "slots": "Units that may run at once.",
    "held": "Units that hold a slot.",
    "waiting": "Units that wait for a slot.",
}


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **only(400, 431, 500, 503),
    },
)
async def metrics(doors: DoorsDep) -> Response:
    """Answer the cluster's numbers in Prometheus' text format."""
    registry = CollectorRegistry()
    for name, value in (await doors.cluster.health()).items():
        said = HELP.get(name, name.replace("_", " "))
        if name.endswith("_total"):
            Counter(f"manta_{name}", said, registry=registry).inc(value)
        else:
            Gauge(f"manta_{name}", said, registry=registry).set(value)
    age = Gauge("manta_directory_age_seconds", "Since keys were last confirmed.", registry=registry)
    age.set(doors.directory.age_s)
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

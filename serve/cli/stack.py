"""Starting the local stack for `up` and `demo`: services, their addresses, actors, tables, prices."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from serve.cli.output import count, line

if TYPE_CHECKING:
    from cluster.services import Service
    from engine.settings import Settings
    from serve.cli.desk import Desk

OBJECT_STORE_BYTES = 512 * 2**20
#: Providers of providers.yml that the sandbox's port for public-style APIs plays.
SANDBOXED = ("frankfurter", "github", "digitalocean")
#: The first start of both actors on a slow machine.
ACTORS_S = 180.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Where services listen; 0 is any free port, None for the API is what API_PORT says."""

    rest: int = 9650
    grpc: int = 9660
    dashboard: int = 8265
    api: int | None = None


FREE = Ports(0, 0, 0, 0)


def is_embedded(desk: Desk) -> bool:
    """Whether this environment's warehouse is the embedded BigQuery."""
    settings = desk.settings
    return settings.env == "local" and settings.bigquery_project == "local"


def start(
    desk: Desk, *, ports: Ports, cpus: int | None, keep: Mapping[str, str], sandbox: bool = False
) -> tuple[Desk, dict[str, Service]]:
    """Start or join the services of this home, and write their addresses to its stack.env.

    `keep` are settings to write beside the addresses. Returns a desk that knows the addresses, and the
    services.
    """
    from cluster import services
    from cluster.processes import LOOPBACK
    from engine.settings import is_loopback

    settings = desk.settings
    home = settings.home
    before = services.running(home)
    # Actors that outlived a dead warehouse know it by its address: it comes back where it was.
    ports = Ports(
        rest=ports.rest or _port(settings.bigquery_emulator_host),
        grpc=ports.grpc or _port(settings.bigquery_storage_emulator_host),
        dashboard=ports.dashboard,
        api=ports.api,
    )
    found: dict[str, Service] = {}
    if sandbox:
        found["sandbox"] = services.start_sandbox(home)
    if is_embedded(desk):
        found["warehouse"] = services.start_warehouse(
            home, project=settings.bigquery_project, port=ports.rest, grpc_port=ports.grpc
        )
        _say(desk, found["warehouse"], before)
    if settings.env == "local" and not desk.environ.get("RAY_ADDRESS"):
        found["ray"] = services.start_ray(
            home,
            num_cpus=cpus or os.cpu_count() or 1,
            object_store_bytes=OBJECT_STORE_BYTES,
            dashboard_port=ports.dashboard,
        )
        _say(desk, found["ray"], before)
    if sandbox:
        _say(desk, found["sandbox"], before)
    values = {**keep, **addresses(found)}
    if settings.env == "local":
        # The API lives as long as its Ray: where that was joined, it is where it was.
        joined = "ray" in before and settings.manta_api_url
        host = settings.api_host if is_loopback(settings.api_host) else LOOPBACK
        values["MANTA_API_URL"] = joined or f"http://{host}:{_api_port(ports, settings)}"
    services.write_environment(home, values)
    return desk.at(desk.environ), found


def _api_port(ports: Ports, settings: Settings) -> int:
    """The API's port for a new start. Raises ServiceError when a given one is in use."""
    from cluster.processes import free_ports
    from cluster.services import refuse_busy

    if port := settings.api_port if ports.api is None else ports.api:
        refuse_busy("API's", port)
        return port
    return _port(settings.manta_api_url) or free_ports(1)[0]


def _port(address: str | None) -> int:
    """The port of an earlier start, while it is free; else 0, which is any."""
    from cluster.processes import port_is_free

    port = urlsplit(address if address and "//" in address else f"//{address or ''}").port or 0
    return port if port and port_is_free(port) else 0


def addresses(found: Mapping[str, Service]) -> dict[str, str]:
    """Services as settings."""
    values: dict[str, str] = {}
    if warehouse := found.get("warehouse"):
        values["BIGQUERY_EMULATOR_HOST"] = warehouse.endpoints["rest"]
        values["BIGQUERY_STORAGE_EMULATOR_HOST"] = warehouse.endpoints["grpc"]
    if ray := found.get("ray"):
        values["RAY_ADDRESS"] = ray.endpoints["address"]
        values["RAY_DASHBOARD"] = ray.endpoints["dashboard"]
    if sandbox := found.get("sandbox"):
        values["OPENAI_BASE_URL"] = sandbox.endpoints["openai"]
        values["ANTHROPIC_BASE_URL"] = sandbox.endpoints["anthropic"]
        for name in ("GCP_BILLING_BASE_URL", "GCP_COMPUTE_BASE_URL", "GCP_OAUTH_BASE_URL"):
            values[name] = sandbox.endpoints["gcp"]
        if warehouse:
            # The customers' billing exports lie beside the tenants' tables, in projects of their own.
            values["GCP_BIGQUERY_BASE_URL"] = warehouse.endpoints["rest"]
            values["GCP_BIGQUERY_STORAGE_HOST"] = warehouse.endpoints["grpc"]
        rest = sandbox.endpoints["rest"]
        values["PROVIDER_BASE_URLS"] = ",".join(f"{name}={rest}/{name}" for name in SANDBOXED)
    return values


def prepare(desk: Desk) -> None:
    """Central tables, prices if there are none, procedures, coordinator and supervisor, the API before them.

    Raises ConfigurationError without a root key: the API does not start without one.
    """
    from cluster.client import Cluster
    from cluster.connect import connect
    from engine.authentication import hash_root_key
    from engine.root_keys import make_root_key, read_root_keys
    from serve.app import deploy

    settings = desk.settings
    if settings.env == "local" and settings.ca_root_api_key is None:
        path, made = make_root_key(settings.home)
        line(desk.out, f"  root key       {'made' if made else 'kept'} in {path} (only you can read it)")
    root_keys = read_root_keys(settings)
    desk.work.central.ensure()
    listed = desk.work.central.query(
        "SELECT COUNT(*) AS cards FROM model_prices", org=None, purpose="prices-read"
    )
    if not listed["cards"][0].as_py():
        added = desk.work.sync_prices(now=desk.now())
        line(desk.out, f"  price book     {count(added)} prices, synced")
    _sync_procedures(desk)
    connect(settings)
    numbers = asyncio.run(Cluster(settings).health(within_s=ACTORS_S))
    line(desk.out, f"  coordinator    up, {numbers['slots']} slots, {numbers['active_runs']} active runs")
    line(desk.out, "  supervisor     up")
    url = settings.manta_api_url or f"http://{settings.api_host}:{settings.api_port}"
    # Elsewhere the URL may be that of a load balancer.
    port = (urlsplit(url).port if settings.env == "local" else None) or settings.api_port
    deploy(settings.model_copy(update={"api_port": port}), [hash_root_key(key) for key in root_keys])
    line(desk.out, f"  api            {url}, documented at {url}/docs")


def _sync_procedures(desk: Desk) -> None:
    from serve.cli.procedures import record

    synced = desk.work.procedures.sync()
    written = [one for one in synced if one.action != "unchanged"]
    record(desk, synced)
    if written:
        line(desk.out, f"  procedures     {count(len(written))} of {count(len(synced))} written")


def _say(desk: Desk, service: Service, before: Mapping[str, Service]) -> None:
    how = "joined" if service.name in before else "started"
    line(desk.out, f"  {service.name:<14} {how}, pid {service.pid}")
    for name, address in service.endpoints.items():
        line(desk.out, f"  {'':<14} {name} {address}")

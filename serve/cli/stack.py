"""Starting the local stack for `up` and `demo`: services, their addresses, actors, tables, prices."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from serve.cli.output import count, line

if TYPE_CHECKING:
    from cluster.services import Service
    from serve.cli.desk import Desk

ROOT_KEY_BYTES = 32
OBJECT_STORE_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Ports:
    """Where services listen; 0 is any free port."""

    rest: int = 9650
    grpc: int = 9660
    dashboard: int = 8265


FREE = Ports(0, 0, 0)


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

    settings = desk.settings
    home = settings.home
    before = services.running(home)
    # Actors that outlived a dead warehouse know it by its address: it comes back where it was.
    ports = Ports(
        rest=ports.rest or _port(settings.bigquery_emulator_host),
        grpc=ports.grpc or _port(settings.bigquery_storage_emulator_host),
        dashboard=ports.dashboard,
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
    services.write_environment(home, {**keep, **addresses(found)})
    return desk.at(desk.environ), found


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
    return values


def prepare(desk: Desk) -> None:
    """Central tables, prices where there are none, coordinator and supervisor."""
    desk.work.central.ensure()
    listed = desk.work.central.query(
        "SELECT COUNT(*) AS cards FROM model_prices", org=None, purpose="prices-read"
    )
    if not listed["cards"][0].as_py():
        added = desk.work.sync_prices(now=desk.now())
        line(desk.out, f"  price book     {count(added)} prices, synced")
    numbers = desk.runs.health()
    line(desk.out, f"  coordinator    up, {numbers['slots']} slots, {numbers['active_runs']} active runs")
    line(desk.out, "  supervisor     up")


def _say(desk: Desk, service: Service, before: Mapping[str, Service]) -> None:
    how = "joined" if service.name in before else "started"
    line(desk.out, f"  {service.name:<14} {how}, pid {service.pid}")
    for name, address in service.endpoints.items():
        line(desk.out, f"  {'':<14} {name} {address}")


def make_root_key(home: Path) -> tuple[Path, bool]:
    """The file with the API's root key, and whether it was made now; only its owner reads it."""
    path = home / "keys" / "root.key"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path, False
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(ROOT_KEY_BYTES) + "\n")
    return path, True

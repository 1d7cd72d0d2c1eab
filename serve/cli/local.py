"""The stack on this machine: up, down, status."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import MantaError, UsageError
from serve.cli import stack
from serve.cli.desk import Desk, desk_of
from serve.cli.options import AsJson
from serve.cli.output import FAILED, SUCCEEDED, json_line, line, state, table

if TYPE_CHECKING:
    from cluster.services import Service


class PortChoice(StrEnum):
    """Which ports services take."""

    FIXED = "fixed"
    FREE = "free"


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)


def up(
    context: typer.Context,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs Ray may use; default all.")] = None,
    ports: Annotated[
        PortChoice, typer.Option(help="fixed: 9650, 9660, 8265, 8001; free: whatever is free.")
    ] = PortChoice.FIXED,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a real BigQuery is used.")] = False,
) -> None:
    """Start the stack on this machine, or join it.

    Local: the embedded BigQuery, Ray, coordinator, supervisor and the API, all on 127.0.0.1. With a real
    project it names project, location and datasets and asks once.
    """
    from engine.root_keys import read_root_keys
    from engine.settings import check_start

    desk = desk_of(context)
    settings = desk.settings
    line(desk.out, f"manta {settings.env}, data in {settings.home}")
    if not stack.is_embedded(desk):
        check_start(settings)
        if settings.env != "local":
            read_root_keys(settings)
        _confirm(desk, yes=yes)
    desk, _ = stack.start(
        desk, ports=stack.FREE if ports is PortChoice.FREE else stack.Ports(), cpus=cpus, keep={}
    )
    check_start(desk.settings)
    stack.prepare(desk)
    if desk.settings.ray_dashboard:
        line(desk.out, f"  dashboard      {desk.settings.ray_dashboard}; its token: manta status --token")
    line(desk.out, "Ready. First time here? manta init")


def _confirm(desk: Desk, *, yes: bool) -> None:
    """Name the real warehouse and ask once. Raises UsageError for a no, or when nobody can be asked."""
    settings = desk.settings
    datasets = f"{settings.meta_dataset} and *_{settings.dataset_suffix}"
    line(
        desk.out,
        f"  warehouse      BigQuery project {settings.bigquery_project}, {settings.bigquery_location}",
    )
    line(desk.out, f"  datasets       {datasets}; tables are created, queries are billed")
    if yes:
        return
    if not desk.stdin.isatty():
        raise UsageError(
            f"Nobody can be asked whether BigQuery project {settings.bigquery_project} may be used.",
            fix="Add --yes when it may.",
            field="yes",
        )
    if not typer.confirm("Use it?", default=False):
        raise UsageError("Nothing was started.", fix="Set BIGQUERY_PROJECT to the project you mean.")


def down(context: typer.Context) -> None:
    """Stop what `manta up` started here.

    Only the processes of this data folder are stopped. Its data stays.
    """
    stop(desk_of(context))


def stop(desk: Desk) -> None:
    """Stop this home's services and say which."""
    from cluster import services

    home = desk.settings.home
    stopped = services.stop(home)
    (home / "stack.env").unlink(missing_ok=True)
    for service in stopped:
        line(desk.out, f"  {service.name:<14} stopped (pid {service.pid})")
    said = "Stopped; the data stays in" if stopped else "Nothing of this runs: data folder"
    line(desk.out, f"{said} {home}")


def status(
    context: typer.Context,
    token: Annotated[bool, typer.Option("--token", help="Where the dashboard's token is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what runs, where, and how busy it is.

    Exit code 1 when something is down.
    """
    from cluster import ray_node, services

    desk = desk_of(context)
    settings = desk.settings
    if token:
        path = ray_node.token_path(settings.home)
        if as_json:
            json_line(desk.out, {"dashboard": settings.ray_dashboard, "token_file": path.as_posix()})
            return
        line(desk.out, f"Dashboard  {settings.ray_dashboard or 'not running: manta up'}")
        line(desk.out, f"Its token  cat {path}")
        return
    wanted = [
        *(["warehouse"] if stack.is_embedded(desk) else []),
        *(["ray"] if settings.env == "local" else []),
    ]
    found = services.running(settings.home)
    rows = [_service(name, found.get(name)) for name in dict.fromkeys([*wanted, *found])]
    numbers, problem = _numbers(desk) if "ray" in found or settings.env != "local" else (None, "")
    healthy = all(row["up"] for row in rows) and numbers is not None
    if as_json:
        facts = {"env": settings.env, "home": str(settings.home), "services": rows, "coordinator": numbers}
        json_line(
            desk.out,
            {
                **facts,
                "api": settings.manta_api_url,
                "dashboard": settings.ray_dashboard,
                "problem": problem or None,
            },
        )
    else:
        _print_status(desk, rows, numbers, problem)
    raise typer.Exit(SUCCEEDED if healthy else FAILED)


def _service(name: str, service: Service | None) -> dict[str, Any]:
    if service is None:
        return {"name": name, "up": False, "pid": None, "addresses": {}}
    return {"name": name, "up": True, "pid": service.pid, "addresses": dict(service.endpoints)}


def _numbers(desk: Desk) -> tuple[dict[str, int] | None, str]:
    """The coordinator's numbers, or why there are none."""
    from engine.settings import check_start

    try:
        check_start(desk.settings)
        return dict(desk.runs.health()), ""
    except MantaError as error:
        return None, f"{error.message} {error.fix}".strip()


def _print_status(
    desk: Desk, rows: list[dict[str, Any]], numbers: dict[str, int] | None, problem: str
) -> None:
    settings = desk.settings
    line(desk.out, f"manta {settings.env}, data in {settings.home}")
    shown = [
        (
            row["name"],
            state("UP" if row["up"] else "DOWN"),
            row["pid"],
            "\n".join(f"{name} {address}" for name, address in row["addresses"].items()) or None,
        )
        for row in rows
    ]
    table(desk.out, ("service", "state", "pid", "address"), shown, right=("pid",))
    if numbers:
        line(
            desk.out,
            f"coordinator: {numbers['active_runs']} active runs, {numbers['held']} of "
            f"{numbers['slots']} slots held, {numbers['waiting']} units waiting",
        )
    elif problem:
        line(desk.out, f"coordinator: {problem}")
    if settings.manta_api_url:
        line(desk.out, f"api: {settings.manta_api_url} (every path: {settings.manta_api_url}/docs)")
    if settings.ray_dashboard:
        line(desk.out, f"dashboard: {settings.ray_dashboard} (its token: manta status --token)")
    if not all(row["up"] for row in rows):
        line(desk.out, "start what is down: manta up")

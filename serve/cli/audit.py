"""The audit trail of an organisation."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Annotated

import typer

from serve.cli import arguments
from serve.cli.desk import desk_of
from serve.cli.options import AsJson
from serve.cli.output import json_line, line, state, table


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("audit")(audit)


def audit(
    context: typer.Context,
    org: Annotated[str, typer.Argument(metavar="ORG", help="Its slug; - for requests that named none.")],
    since: Annotated[str | None, typer.Option(help="First UTC day, YYYY-MM-DD.")] = None,
    until: Annotated[str | None, typer.Option(help="Last UTC day.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show who did what in an organisation, newest first.

    Changes, and requests to the API that read something or were refused.
    """
    from engine.audit_log import read

    desk = desk_of(context)
    if org != "-":
        desk.work.tenants.get(org)
    found = read(
        desk.work.central,
        org,
        since=_midnight(since, "--since") if since else None,
        until=_end(until) if until else None,
        limit=limit,
    )
    if as_json:
        for entry in found:
            json_line(desk.out, entry)
        return
    if not found:
        line(desk.out, "Nothing is on record.")
        return
    rows = [
        (
            f"{entry.created_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            entry.actor,
            entry.action,
            entry.resource_id,
            state(entry.status),
            entry.ip_address,
        )
        for entry in found
    ]
    table(desk.out, ("UTC", "who", "what", "which", "status", "from"), rows)


def _midnight(text: str, option: str) -> datetime:
    return datetime.combine(arguments.day(text, option=option), time.min, UTC)


def _end(text: str) -> datetime:
    return datetime.combine(arguments.day(text, option="--until"), time.max, UTC)

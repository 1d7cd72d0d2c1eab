"""`manta export`: costs as a file for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.errors import UsageError
from serve.cli import arguments
from serve.cli.desk import desk_of
from serve.cli.options import AsJson, Slug
from serve.cli.output import count, days, json_line, line


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("export")(export)


def export(
    context: typer.Context,
    org: Slug,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write; its ending says .parquet or .csv.")
    ],
    focus: Annotated[
        bool, typer.Option("--focus", help="All costs in the FOCUS 1.3 standard, one charge a row.")
    ] = False,
    start: Annotated[str | None, typer.Option(help="First usage day; default the last closed one.")] = None,
    end: Annotated[str | None, typer.Option(help="Last usage day; default the last closed one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write an organisation's costs into one file.

    The file is there whole or not at all; one of that name is replaced.
    """
    from engine.focus.export import VIEW, check_file, export_charges

    desk = desk_of(context)
    if not focus:
        raise UsageError("What to export is not said.", fix="Give --focus.", field="focus")
    check_file(output)
    closed = arguments.last_closed_day(desk.now(), "UTC")
    first, last = arguments.day_range(None, start, end, closed=closed)
    if last < first:
        raise UsageError(f"--end {last} lies before --start {first}.", fix="Swap them.", field="end")
    slug = desk.work.tenants.get(org).slug
    view = desk.work.catalog.schemas[VIEW]
    rows = export_charges(desk.work.warehouse(slug), view, start=first, end=last, file=output)
    if as_json:
        said = {"org_slug": slug, "start": first, "end": last, "file": str(output), "rows": rows}
        json_line(desk.out, said)
        return
    line(desk.out, f"{count(rows)} charges of {slug}, {days(first, last)}, in {output}")

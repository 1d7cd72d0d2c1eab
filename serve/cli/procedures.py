"""Stored procedures: what stands in the warehouse beside the files, and syncing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from serve.cli.desk import Desk, desk_of
from serve.cli.options import AsJson
from serve.cli.output import FAILED, json_line, line, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.procedures.sync import Synced

NOBODY = "-"

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Procedures; all without it.")]
Domain = Annotated[str | None, typer.Option("--domain", help="Only those of this folder of procedures/.")]

procedures_app = typer.Typer(help="Stored procedures: list, diff, sync.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    procedures_app.command("list")(procedures_list)
    procedures_app.command("diff")(procedures_diff)
    procedures_app.command("sync")(procedures_sync)
    app.add_typer(procedures_app, name="procedures")


def procedures_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List procedures and how the warehouse differs."""
    from serve.procedure_answers import procedure_facts

    desk = desk_of(context)
    found = desk.work.procedures.compare()
    if as_json:
        for one in found:
            json_line(desk.out, {**procedure_facts(one)})
        return
    if not found:
        line(desk.out, "There is no procedure, neither in procedures/ nor in the warehouse.")
        return
    rows = [(one.name, one.state, one.file, ", ".join(map(str, one.arguments))) for one in found]
    table(desk.out, ("procedure", "state", "file", "parameters"), rows)
    if any(one.state in ("changed", "drifted", "missing") for one in found):
        line(desk.out, "  next, make the warehouse as the files say: manta procedures sync")


def procedures_diff(context: typer.Context, names: Names = None, as_json: AsJson = False) -> None:
    """Show what differs between warehouse and files.

    Exit code 1 when something does.
    """
    from serve.procedure_answers import procedure_facts

    desk = desk_of(context)
    procedures = desk.work.procedures
    found = [procedures.show(name) for name in names] if names else procedures.compare()
    differing = [one for one in found if one.state != "current"]
    if as_json:
        for one in differing:
            json_line(desk.out, procedure_facts(one))
    elif not differing:
        line(desk.out, "The warehouse is as the files say.")
    else:
        for one in differing:
            line(desk.out, f"{one.name}: {one.state} ({one.file})", style="bold")
            line(desk.out, one.diff.rstrip("\n"))
    if differing:
        raise typer.Exit(FAILED)


def procedures_sync(
    context: typer.Context,
    names: Names = None,
    domain: Domain = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and compare; write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the warehouse as the procedure files say.

    What is as it should be is left alone; when one file is wrong, nothing is written.
    """
    from serve.procedure_answers import synced_facts

    desk = desk_of(context)
    desk.work.central.ensure()
    found = desk.work.procedures.sync(names=names or (), domain=domain, dry_run=dry_run)
    if not dry_run:
        record(desk, found)
    if as_json:
        for one in found:
            json_line(desk.out, {**synced_facts(one), "dry_run": dry_run})
        return
    for one in found:
        if one.action != "unchanged":
            line(desk.out, f"{one.name}: {'would be ' if dry_run else ''}{one.action} from {one.file}")
        if one.before == "drifted":
            line(desk.out, one.diff.rstrip("\n"))
    same = sum(one.action == "unchanged" for one in found)
    line(desk.out, f"{len(found) - same} {'to write' if dry_run else 'written'}, {same} as they should be.")


def record(desk: Desk, synced: Sequence[Synced]) -> None:
    """Put on record which procedures a sync of this terminal wrote."""
    from engine.audit_log import REQUESTS, AuditLog

    with AuditLog(lambda rows: desk.work.central.append(REQUESTS, rows), now=desk.now) as log:
        for one in synced:
            if one.action != "unchanged":
                log.note(desk.audit(NOBODY, "procedure.sync", "procedure", one.name, detail=one.action))

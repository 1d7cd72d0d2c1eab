"""`manta migrate`: what is pending in which dataset, and applying it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from serve.cli.desk import Desk, desk_of
from serve.cli.options import AsJson
from serve.cli.output import FAILED, count, json_line, line, table

if TYPE_CHECKING:
    from engine.audit import Audit
    from engine.migrations.report import Outcome, Report


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("migrate")(migrate)


def migrate(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A migration; all that are pending without it.")
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it; without it, only say what would be.")
    ] = False,
    org: Annotated[
        list[str] | None, typer.Option("--org", help="Only this organisation's dataset; can be given again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring datasets up to date; a dry run unless --apply.

    A dataset that fails or refuses keeps the others from nothing. Exit code 1 when one does.
    """
    desk = desk_of(context)
    desk.work.central.ensure()
    for slug in org or ():
        desk.work.tenants.get(slug)

    def audit_of(dataset_of: str, migration: str) -> Audit:
        return desk.audit(dataset_of, "migration.execute", "migration", migration)

    report = desk.work.migrations.run(name, orgs=org or (), dry_run=not apply, audit_of=audit_of)
    if as_json:
        from serve.procedure_answers import execution_facts

        for file in report.migrations:
            json_line(desk.out, execution_facts(file, report))
    else:
        _say(desk, report)
    if not report.complete:
        raise typer.Exit(FAILED)


def _say(desk: Desk, report: Report) -> None:
    if not report.migrations:
        line(desk.out, "There is no migration to apply.")
        return
    for file in report.migrations:
        found = [one for one in report.outcomes if one.migration == file.name]
        states = Counter(one.state for one in found)
        said = ", ".join(f"{count(number)} {state}" for state, number in sorted(states.items()))
        line(desk.out, f"{file.name} ({file.scope}): {said or 'no dataset'}", style="bold")
        if report.dry_run and any(one.state in ("pending", "skipped") for one in found):
            for part in file.parts:
                line(desk.out, f"  {file.file}:{part.line}")
                for text in part.sql.split("\n"):
                    line(desk.out, f"    {text}")
        _datasets(desk, found, dry_run=report.dry_run)
    if report.dry_run and any(one.state == "pending" for one in report.outcomes):
        line(desk.out, "Nothing was changed. To do it, add --apply.")


def _datasets(desk: Desk, found: list[Outcome], *, dry_run: bool) -> None:
    shown = [one for one in found if one.state != "unchanged"]
    if not shown:
        return
    rows = [
        (
            one.dataset,
            one.state,
            f"{one.done}/{one.statements}",
            ", ".join(
                f"{at.table}{'' if at.written else ' (read)'} {_rows(at.rows, exists=at.exists)}"
                for at in one.touched
            )
            or None,
        )
        for one in shown
    ]
    columns = ("dataset", "state", "statements", "touches")
    table(desk.out, columns if dry_run else columns[:3], [row if dry_run else row[:3] for row in rows])
    for one in shown:
        if one.error:
            line(desk.err, f"manta: {one.dataset}: {one.error}")


def _rows(rows: int | None, *, exists: bool) -> str:
    if not exists:
        return "not there"
    return "view" if rows is None else f"{count(rows)} rows"

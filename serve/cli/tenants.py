"""Organisations: add, list, suspend, resume, remove, purge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import StateError, UsageError
from serve.cli.desk import Desk, desk_of
from serve.cli.options import AsJson, Slug
from serve.cli.output import FAILED, count, json_line, line, state, table

if TYPE_CHECKING:
    from engine.export import Exported
    from engine.life import Purged, Removal
    from engine.tenants import Org

#: How long a removal waits for cancelled runs to end.
END_LOOKS = 120
BETWEEN_LOOKS_S = 0.5

org_app = typer.Typer(help="Organisations: add, list, suspend, remove.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    org_app.command("add")(org_add)
    org_app.command("list")(org_list)
    org_app.command("suspend")(org_suspend)
    org_app.command("resume")(org_resume)
    org_app.command("remove")(org_remove)
    org_app.command("purge")(org_purge)
    app.add_typer(org_app, name="org")


def org_add(
    context: typer.Context,
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="Lowercase letters, digits and _.")],
    name: Annotated[str | None, typer.Option(help="Its name for people; default the slug.")] = None,
    email: Annotated[
        str | None, typer.Option(help="Who is told of failures; default DEFAULT_ADMIN_EMAIL.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add an organisation and its dataset.

    The same again changes nothing.
    """
    desk = desk_of(context)
    desk.work.central.ensure()
    org = desk.work.tenants.add(
        slug, name=name or slug, admin_email=email, audit=desk.audit(slug, "org.add", "organisation")
    )
    if as_json:
        json_line(desk.out, org)
        return
    line(desk.out, f"Organisation {org.slug} ({org.name}) keeps its tables in {org.dataset}.")
    line(desk.out, f"  next, store a key: manta credential add {org.slug} openai")


def org_list(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Suspended and removed ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the active organisations."""
    desk = desk_of(context)
    orgs = desk.work.tenants.every() if every else desk.work.tenants.active()
    if as_json:
        for org in orgs:
            json_line(desk.out, org)
        return
    if not orgs:
        line(desk.out, "No organisations yet. Add one: manta org add SLUG --name NAME --email ADDRESS")
        return
    rows = [(org.slug, org.name, org.admin_email, org.dataset, state(_standing(org))) for org in orgs]
    table(desk.out, ("organisation", "name", "admin", "dataset", "status"), rows)


def _standing(org: Org) -> str:
    if org.status == "REMOVED" and org.purge_after is None:
        return "PURGED"
    return org.status


def org_suspend(context: typer.Context, org: Slug, as_json: AsJson = False) -> None:
    """Refuse an organisation's new runs.

    What it runs now is finished; its keys and data stay.
    """
    desk = desk_of(context)
    desk.work.central.ensure()
    now = desk.work.life.suspend(org, desk.audit(org, "org.suspend", "organisation"))
    if as_json:
        json_line(desk.out, now)
        return
    line(desk.out, f"{org} is suspended: new runs are refused {desk.in_force}.")


def org_resume(context: typer.Context, org: Slug, as_json: AsJson = False) -> None:
    """Take a suspended organisation's runs again."""
    desk = desk_of(context)
    desk.work.central.ensure()
    now = desk.work.life.resume(org, desk.audit(org, "org.resume", "organisation"))
    if as_json:
        json_line(desk.out, now)
        return
    line(desk.out, f"{org} is active: runs are accepted {desk.in_force}.")


def org_remove(
    context: typer.Context,
    org: Slug,
    grace_days: Annotated[int, typer.Option(min=0, max=3650, help="Days that its data is kept.")] = 30,
    export: Annotated[Path | None, typer.Option(help="Write its tables here, as Parquet.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove an organisation for good.

    Revokes its API keys, destroys the keys of its credentials and cancels its runs at once; its data is
    dropped by `manta org purge` after the grace period. Again finishes what an earlier call left.
    """
    desk = desk_of(context)
    desk.work.central.ensure()
    life = desk.work.life
    planned = life.plan_removal(org, grace_days=grace_days)
    if dry_run:
        _say_removal(desk, planned, as_json=as_json, dry_run=True)
        return
    if not yes:
        _confirm(desk, planned)
    removed = life.remove(
        org,
        grace_days=grace_days,
        audit=desk.audit(org, "org.remove", "organisation"),
        cancel=lambda run_id: desk.runs.cancel(org, run_id),
    )
    still = _ended(desk, org) if removed.runs else ()
    files: tuple[Exported, ...] = ()
    if export is not None and not still:
        files = life.export(org, export)
    _say_removal(desk, removed, as_json=as_json, files=files)
    if still:
        raise StateError(
            f"{org} is removed, but run {still[0]} has not ended yet.",
            fix="Give the same command again in a minute"
            + (": nothing was exported." if export else " to see that it has."),
        )


def _confirm(desk: Desk, planned: Removal) -> None:
    if not desk.stdin.isatty():
        raise UsageError(
            f"Removing {planned.org} cannot be undone.", fix="Add --yes when it is meant.", field="yes"
        )
    _say_removal(desk, planned, as_json=False, dry_run=True)
    if not typer.confirm("Remove it? Keys and credentials cannot be brought back.", default=False):
        raise UsageError("Nothing was removed.", fix="See what would go: manta org remove ORG --dry-run")


def _ended(desk: Desk, org: str) -> tuple[str, ...]:
    """Runs that have not ended after a minute."""
    for _ in range(END_LOOKS):
        if not (left := desk.work.life.active_runs(org)):
            return ()
        desk.sleep(BETWEEN_LOOKS_S)
    return left


def _say_removal(
    desk: Desk,
    removal: Removal,
    *,
    as_json: bool,
    dry_run: bool = False,
    files: tuple[Exported, ...] = (),
) -> None:
    if as_json:
        json_line(desk.out, {"removal": removal, "dry_run": dry_run, "exported": files})
        return
    would = "would be " if dry_run else ""
    said = "would be removed" if dry_run else "is removed"
    line(desk.out, f"{removal.org} {said}.")
    line(desk.out, f"  API keys     {count(removal.keys)} {would}revoked")
    line(desk.out, f"  credentials  {count(removal.credentials)} {would}destroyed")
    if removal.pending:
        pending = f"{count(removal.pending)} data keys"
        wait = "would be overwritten" if dry_run else "PENDING: manta org purge overwrites them in two hours"
        line(desk.out, f"               {pending} {wait}")
    line(desk.out, f"  runs         {count(len(removal.runs))} {would}cancelled")
    line(desk.out, f"  tables       {count(len(removal.tables))} in {removal.dataset}")
    for file in files:
        line(desk.out, f"  exported     {file.file} ({count(file.rows)} rows)")
    line(desk.out, f"  data         kept until {removal.purge_after:%Y-%m-%d %H:%M} UTC")


def org_purge(
    context: typer.Context,
    org: Annotated[str | None, typer.Argument(metavar="[ORG]", help="Only this one; default all.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go and do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Drop what removed organisations have left.

    Datasets and stored files whose grace period is over, and data keys that could not be overwritten before.
    Run it daily. Exit code 1 when an organisation that is due has to wait.
    """
    desk = desk_of(context)
    desk.work.central.ensure()
    if org is not None:
        desk.work.tenants.get(org)
    done = desk.work.life.purge(
        now=desk.now(),
        only=org,
        audit_of=lambda slug: desk.audit(slug, "org.purge", "organisation"),
        dry_run=dry_run,
    )
    for one in done:
        if as_json:
            json_line(desk.out, {**_facts(one), "dry_run": dry_run})
        else:
            line(desk.out, _said(one, dry_run=dry_run))
    if not done and not as_json:
        line(desk.out, "No removed organisation is left to purge.")
    if any(one.due and one.waits_for for one in done):
        raise typer.Exit(FAILED)


def _facts(one: Purged) -> dict[str, object]:
    return {
        "org_slug": one.org,
        "dataset": one.dataset,
        "dropped": one.dropped,
        "pending": one.pending,
        "waits_for": one.waits_for,
    }


def _said(one: Purged, *, dry_run: bool) -> str:
    done = f"{one.dataset} dropped" if one.dropped else f"{one.dataset} kept"
    if dry_run and not one.waits_for:
        done = f"{one.dataset} would be dropped"
    keys = f", {count(one.pending)} data keys left" if one.pending else ""
    wait = f"; waits for {one.waits_for}" if one.waits_for else ""
    return f"{one.org}: {done}{keys}{wait}"

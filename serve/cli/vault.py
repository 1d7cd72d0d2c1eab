"""Keys that keep keys: which master key holds what, and rotation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from serve.cli.desk import Desk, desk_of
from serve.cli.options import AsJson
from serve.cli.output import FAILED, count, json_line, line, table

if TYPE_CHECKING:
    from engine.audit import Audit
    from engine.rotation import Rotation


vault_app = typer.Typer(help="Encryption of stored keys: status, rotate.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    vault_app.command("status")(vault_status)
    vault_app.command("rotate")(vault_rotate)
    app.add_typer(vault_app, name="vault")


def vault_status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show how many stored keys each master key holds.

    Only what is in use counts. Exit code 1 when a master key that is named is not at hand.
    """
    from engine.rotation import API_KEYS, CREDENTIALS, survey

    desk = desk_of(context)
    desk.work.central.ensure()
    holdings = survey(desk.work.central, desk.work.vault)
    if as_json:
        for holding in holdings:
            json_line(desk.out, holding)
    elif not holdings:
        line(desk.out, "There is no master key yet; the first stored key makes it.")
    else:
        rows = [
            (
                one.key_name,
                "current" if one.current else ("former" if one.at_hand else "missing"),
                count(one.rows.get(CREDENTIALS.table, 0)),
                count(one.rows.get(API_KEYS.table, 0)),
            )
            for one in holdings
        ]
        heads = ("master key", "state", "credentials", "API keys")
        table(desk.out, heads, rows, right=heads[2:])
        if any(not one.current and one.at_hand for one in holdings):
            line(desk.out, "  next, move them to the current key: manta vault rotate")
    if not all(one.at_hand for one in holdings):
        line(desk.err, "manta: keys under a missing master key stay closed; bring it back: docs/vault.md")
        raise typer.Exit(FAILED)


def vault_rotate(
    context: typer.Context,
    data_keys: Annotated[
        bool, typer.Option("--data-keys", help="Encrypt everything anew, under new data keys.")
    ] = False,
    new_master: Annotated[
        bool, typer.Option("--new-master", help="First make a new master key (KEY_STORE=file).")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Open everything, write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move stored keys to the current master key.

    Killed, it is run again, without --new-master. Exit code 1 when something does not open.
    """
    from engine.errors import UsageError
    from engine.rotation import rotate, standing

    desk = desk_of(context)
    if new_master and desk.settings.key_store != "file":
        raise UsageError(
            "Cloud KMS makes the versions of its keys itself.",
            fix="gcloud kms keys versions create --primary, then manta vault rotate; see docs/vault.md.",
            field="--new-master",
        )

    def audit_of(org: str, resource: str, resource_id: str) -> Audit:
        return desk.audit(org, "credential.rotate", resource, resource_id)

    central = desk.work.central
    central.ensure()
    rotation = rotate(
        central,
        desk.work.vault,
        what="data" if data_keys else "master",
        orgs=standing(central),
        now=desk.now,
        audit_of=audit_of,
        new_master=new_master,
        dry_run=dry_run,
    )
    if as_json:
        json_line(desk.out, rotation)
    else:
        _say(desk, rotation, new_master=new_master)
    if rotation.refused:
        raise typer.Exit(FAILED)


def _say(desk: Desk, rotation: Rotation, *, new_master: bool) -> None:
    from engine.rotation import API_KEYS, CREDENTIALS

    numbers = [rotation.sealed.get(place.table, 0) for place in (CREDENTIALS, API_KEYS)]
    done = "would be sealed anew" if rotation.dry_run else "sealed anew"
    if any(numbers):
        line(desk.out, f"{count(numbers[0])} credentials and {count(numbers[1])} API keys {done}.")
    elif not rotation.refused:
        line(desk.out, f"Nothing to do: all is under {rotation.master_key or 'no master key yet'}.")
    if rotation.left:
        line(desk.out, f"{count(rotation.left)} changed meanwhile: run `manta vault rotate` once more.")
    for one in rotation.refused:
        line(desk.err, f"manta: {one.org}: {one.table} {one.id} stays as it is: {one.reason}")
    if new_master and not rotation.dry_run:
        line(desk.out, f"The master key is now {rotation.master_key}, in {desk.settings.key_file}.")
        line(desk.out, "  next, back it up: without it nothing stored opens")

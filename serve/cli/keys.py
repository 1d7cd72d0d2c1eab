"""API keys: of organisations (add, list, revoke), and the operator's root key."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import StateError, UsageError
from serve.cli.desk import Desk, desk_of
from serve.cli.options import AsJson, Slug
from serve.cli.output import json_line, line, state, table

if TYPE_CHECKING:
    from engine.api_keys import ApiKey


key_app = typer.Typer(help="API keys: add, list, revoke, root.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    key_app.command("add")(key_add)
    key_app.command("list")(key_list)
    key_app.command("revoke")(key_revoke)
    key_app.command("root")(key_root)
    app.add_typer(key_app, name="key")


def key_add(
    context: typer.Context,
    org: Slug,
    name: Annotated[str, typer.Option(help="A name for people: who uses it.")] = "default",
    scope: Annotated[
        list[str] | None, typer.Option(help="run, read or admin (both); repeatable. Default run and read.")
    ] = None,
    expires_days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="Refuse it after so many days; default never.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key for an organisation.

    It is shown this once: what is kept cannot be turned back into it.
    """
    desk = desk_of(context)
    if desk.work.tenants.get(org).status == "REMOVED":
        raise StateError(f"{org} has been removed.", fix="Keys are for organisations that are there.")
    expires_at = desk.now() + timedelta(days=expires_days) if expires_days else None
    key, text = desk.work.api_keys.add(
        org,
        name=name,
        scopes=scope or ("run", "read"),
        expires_at=expires_at,
        audit=desk.audit(org, "key.add", "api_key"),
    )
    if as_json:
        json_line(desk.out, {**_facts(key), "key": text})
        return
    line(desk.out, text)
    line(desk.out, f"That is key {key.key_id} ({key.name}) of {org}, for {', '.join(key.scopes)}.")
    line(desk.out, "Keep it now: it cannot be shown again.")
    line(desk.out, f"It works {desk.in_force}, as the header X-API-Key.")


def key_list(context: typer.Context, org: Slug, as_json: AsJson = False) -> None:
    """List an organisation's API keys; never a key's text."""
    desk = desk_of(context)
    desk.work.tenants.get(org)
    found = desk.work.api_keys.list(org)
    if as_json:
        for key in found:
            json_line(desk.out, _facts(key))
        return
    if not found:
        line(desk.out, f"{org} has no API keys. Make one: manta key add {org}")
        return
    rows = [
        (
            key.key_id,
            key.name,
            ", ".join(key.scopes),
            state(_state(desk, key)),
            f"{key.created_at:%Y-%m-%d}",
            f"{key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else None,
        )
        for key in found
    ]
    table(desk.out, ("key", "name", "scopes", "state", "since", "expires"), rows)


def key_revoke(
    context: typer.Context,
    org: Slug,
    key: Annotated[str, typer.Argument(metavar="KEY_ID", help="Its id: manta key list.")],
    as_json: AsJson = False,
) -> None:
    """Take an API key out of use for good.

    Runs that it started go on.
    """
    desk = desk_of(context)
    desk.work.tenants.get(org)
    revoked = desk.work.api_keys.revoke(org, key, audit=desk.audit(org, "key.revoke", "api_key", key))
    if as_json:
        json_line(desk.out, _facts(revoked))
        return
    line(desk.out, f"Key {revoked.key_id} ({revoked.name}) of {org} is revoked.")
    line(desk.out, f"The API refuses it {desk.in_force}.")


def key_root(
    context: typer.Context,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Make a new root key; the former stays valid.")
    ] = False,
    retire: Annotated[bool, typer.Option("--retire", help="End the former root key.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say where the root key is, or change it.

    Changing takes three steps: --rotate, bring everyone to the new key, --retire. The running API knows a
    change once it has been started again.
    """
    from engine.root_keys import read_root_keys, retire_root_file, root_key_file, rotate_root_file

    desk = desk_of(context)
    settings = desk.settings
    in_file = settings.env == "local" and settings.ca_root_api_key is None
    if rotate and retire:
        raise UsageError(
            "--rotate and --retire are two steps.", fix="Rotate first, retire when all have the new key."
        )
    if (rotate or retire) and not in_file:
        raise UsageError(
            "The root key is given by CA_ROOT_API_KEY, which Manta does not write.",
            fix="Export the new key as CA_ROOT_API_KEY and the former as CA_ROOT_API_KEY_PREVIOUS; "
            "to retire it, unset the latter.",
        )
    if rotate:
        rotate_root_file(settings.home)
    if retire:
        retire_root_file(settings.home)
    valid = len(read_root_keys(settings))
    where = root_key_file(settings.home).as_posix() if in_file else "CA_ROOT_API_KEY"
    if as_json:
        json_line(desk.out, {"where": where, "valid_keys": valid})
        return
    if rotate:
        line(desk.out, f"A new root key stands on the first line of {where}.")
    if retire:
        line(desk.out, f"The former root key is gone from {where}.")
    if rotate or retire:
        line(desk.out, "The running API knows it once it has been started again: manta up")
    said = "two are valid, the newer first" if valid > 1 else "one is valid"
    line(desk.out, f"Root key: {where} ({said}).")


def _state(desk: Desk, key: ApiKey) -> str:
    if not key.is_active:
        return "revoked"
    return "expired" if key.expires_at and key.expires_at <= desk.now() else "active"


def _facts(key: ApiKey) -> dict[str, object]:
    return {
        "org_slug": key.org,
        "org_api_key_id": key.key_id,
        "name": key.name,
        "scopes": key.scopes,
        "is_active": key.is_active,
        "expires_at": key.expires_at,
        "created_at": key.created_at,
    }

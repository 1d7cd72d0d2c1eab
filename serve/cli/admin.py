"""What an operator keeps in order: configs, credentials, prices."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from engine.errors import NotFoundError, UsageError
from serve.cli import arguments
from serve.cli.desk import Desk, desk_of
from serve.cli.options import AsJson, Slug
from serve.cli.output import FAILED, count, json_line, line, number_text, state, table

ProviderName = Annotated[str, typer.Argument(metavar="PROVIDER", help="Such as openai or anthropic.")]
#: Meters that count tokens are shown per million, as the providers' price lists do.
MILLION = 1_000_000
PER_PIECE = ("web_search", "file_search", "code_session", "character", "second", "image")

credential_app = typer.Typer(help="Provider keys, encrypted: add, list, off.", no_args_is_help=True)
prices_app = typer.Typer(help="The price book: sync, show.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("validate")(validate)
    credential_app.command("add")(credential_add)
    credential_app.command("list")(credential_list)
    credential_app.command("off")(credential_off)
    prices_app.command("sync")(prices_sync)
    prices_app.command("show")(prices_show)
    app.add_typer(credential_app, name="credential")
    app.add_typer(prices_app, name="prices")


def validate(context: typer.Context, as_json: AsJson = False) -> None:
    """Check every config, processor and template.

    Prints file:line: field: problem: fix for each problem. Exit code 1 when there is one.
    """
    # Here and below: what these need takes a second to import, and `manta --help` must not.
    from engine.catalog import read_catalog
    from engine.validate import validate as find_problems
    from processors import resolve

    desk = desk_of(context)
    root = desk.settings.root
    problems = find_problems(root, resolve=resolve)
    for problem in problems:
        if as_json:
            json_line(desk.out, problem)
        else:
            line(desk.out, str(problem))
    if problems:
        if not as_json:
            plural = "problem" if len(problems) == 1 else "problems"
            line(desk.err, f"manta: {len(problems)} {plural}")
        raise typer.Exit(FAILED)
    catalog = read_catalog(root).catalog
    if as_json:
        return
    line(desk.out, f"{len(catalog.pipelines)} pipelines, {len(catalog.schemas)} schemas: no problem found")


def credential_add(
    context: typer.Context,
    org: Slug,
    provider: ProviderName,
    name: Annotated[str, typer.Option(help="A name for people.")] = "default",
    as_json: AsJson = False,
) -> None:
    """Store a provider's admin key, encrypted.

    The key is read from stdin, or asked for without echo; it is never an argument.
    """
    desk = desk_of(context)
    desk.work.tenants.get(org)
    secret = read_secret(desk, f"{provider} admin key for {org}")
    credential_id = desk.work.tenants.add_credential(
        org, provider, secret, name=name, audit=desk.audit(org, "credential.add", "credential")
    )
    if as_json:
        facts = {"org_slug": org, "provider": provider, "name": name, "credential_id": credential_id}
        json_line(desk.out, facts)
        return
    line(desk.out, f"Stored as credential {credential_id} ({name}) of {org} for {provider}.")


def read_secret(desk: Desk, what: str) -> str:
    """One line from stdin, or a JSON key's lines; on a terminal asked for without echo.

    Raises UsageError when there is none.
    """
    if desk.stdin.isatty():
        secret = getpass.getpass(f"{what} (not shown): ").strip()
    else:
        secret = desk.stdin.readline().strip()
        if secret.startswith("{"):
            secret = (secret + desk.stdin.read()).strip()
    if not secret:
        raise UsageError(
            "No key came in on stdin.",
            fix="Pipe it in, for example from a file: manta credential add ORG PROVIDER < key.txt",
        )
    return secret


def credential_list(context: typer.Context, org: Slug, as_json: AsJson = False) -> None:
    """List an organisation's credentials; never a secret."""
    desk = desk_of(context)
    desk.work.tenants.get(org)
    found = desk.work.tenants.credentials(org)
    if as_json:
        for one in found:
            json_line(desk.out, one)
        return
    if not found:
        line(desk.out, f"{org} has no credentials. Store one: manta credential add {org} openai")
        return
    rows = [
        (
            one.credential_id,
            one.provider,
            one.name,
            "active" if one.is_active else "off",
            f"{one.created_at:%Y-%m-%d}",
        )
        for one in found
    ]
    table(desk.out, ("credential", "provider", "name", "state", "since"), rows)


def credential_off(
    context: typer.Context,
    org: Slug,
    credential: Annotated[str, typer.Argument(metavar="CREDENTIAL", help="Its id: manta credential list.")],
    as_json: AsJson = False,
) -> None:
    """Use a credential no more.

    Later runs do without it; what was loaded with it stays until its days are loaded again.
    """
    desk = desk_of(context)
    desk.work.tenants.get(org)
    desk.work.tenants.deactivate(
        org, credential, audit=desk.audit(org, "credential.off", "credential", credential)
    )
    if as_json:
        json_line(desk.out, {"org_slug": org, "credential_id": credential, "is_active": False})
        return
    line(desk.out, f"Credential {credential} of {org} is off.")


def prices_sync(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the price book up to its sources.

    They are genai-prices, configs/system/prices and the organisations' overrides; rows are only added.
    """
    desk = desk_of(context)
    desk.work.central.ensure()
    changed = desk.work.sync_prices(now=desk.now(), dry_run=dry_run)
    if as_json:
        json_line(desk.out, {"rows": changed, "dry_run": dry_run})
        return
    if not changed:
        line(desk.out, "The price book is up to date.")
        return
    said = "would be added" if dry_run else "added"
    line(desk.out, f"{count(changed)} price rows {said}; nothing is ever changed or removed.")


def prices_show(
    context: typer.Context,
    provider: ProviderName,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="One model; default all.")] = None,
    date: Annotated[str | None, typer.Option(help="Prices of this usage day; default today.")] = None,
    org: Annotated[str | None, typer.Option(help="As this organisation pays them.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the rates in force on a day.

    In USD per million tokens, or per piece, with their sources.
    """
    desk = desk_of(context)
    if provider not in desk.work.catalog.providers:
        known = ", ".join(sorted(desk.work.catalog.providers))
        raise NotFoundError(
            f"There is no provider {provider!r}.", fix=f"Use one of {known}.", field="provider"
        )
    if org is not None:
        desk.work.tenants.get(org)
    wanted = arguments.day(date, option="--date") if date else desk.now().date()
    # No slug begins with a dash: then only list prices are found.
    book = desk.work.prices(org or "-", provider, wanted, wanted)
    cards = [card for card in book.cards if card.valid_on(wanted) and model in (None, card.model)]
    if not cards:
        raise NotFoundError(
            f"No price of {provider} for {model or 'any model'} on {wanted}.",
            fix=f"See the names the book knows: manta prices show {provider}",
            field="model",
        )
    if as_json:
        for card in cards:
            json_line(desk.out, {**_card_facts(card), "rates": dict(card.rates)})
        return
    rows = [
        (*_card_names(card), meter, _shown(meter, rate))
        for card in cards
        for meter, rate in card.rates.items()
    ]
    table(desk.out, ("model", "tier", "meter", "USD"), rows, right=("USD",))
    line(desk.out, "Tokens per million, everything else per piece. Sources:")
    for source in sorted({card.source for card in cards}):
        line(desk.out, f"  {source}")


def _card_facts(card: object) -> dict[str, object]:
    names = ("provider", "model", "tier", "context_window", "inference_geo", "speed", "org_slug")
    more = ("valid_from", "valid_to", "currency", "source", "price_id")
    return {name: getattr(card, name) for name in (*names, *more)}


def _card_names(card: object) -> tuple[object, object]:
    facts = _card_facts(card)
    narrowed = [facts[name] for name in ("tier", "context_window", "inference_geo", "speed")]
    own = " *" if facts["org_slug"] else ""
    return facts["model"], state(" ".join(str(part) for part in narrowed if part) + own)


def _shown(meter: str, rate: object) -> str:
    from decimal import Decimal

    assert isinstance(rate, Decimal)  # noqa: S101 - for the type checker; RateCard holds nothing else
    return number_text(rate if meter in PER_PIECE else rate * MILLION)

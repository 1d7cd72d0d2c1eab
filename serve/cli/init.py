"""`manta init`: from a key to the first cost table."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from engine.errors import ConfigurationError, NotFoundError, UsageError
from serve.cli import cost
from serve.cli.admin import read_secret
from serve.cli.desk import Desk, desk_of
from serve.cli.output import count, line
from serve.cli.runs import start_and_follow

if TYPE_CHECKING:
    from engine.access import Access
    from engine.catalog import Provider
    from engine.tenants import Org


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("init")(init)


def init(
    context: typer.Context,
    org: Annotated[str | None, typer.Option(help="The organisation's slug, such as acme_corp.")] = None,
    provider: Annotated[str | None, typer.Option(help="openai or anthropic.")] = None,
    name: Annotated[str | None, typer.Option(help="The organisation's name; default the slug.")] = None,
    email: Annotated[
        str | None, typer.Option(help="Who is told of failures; default DEFAULT_ADMIN_EMAIL.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=31, help="How many closed days to load.")] = 7,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Do not ask whether another host than the provider's is meant."),
    ] = False,
) -> None:
    """Set up an organisation and see its cost.

    Checks and stores its admin key, loads the last days and shows what they cost. Asks for what is not
    given; the key is read from stdin or asked for without echo.
    """
    desk = desk_of(context)
    work = desk.work
    work.central.ensure()
    slug = org or _ask(desk, "Organisation (slug, such as acme_corp)", option="--org")
    there = known_org(desk, slug)
    chosen = provider or _ask(
        desk, f"Provider ({', '.join(sorted(work.catalog.providers))})", option="--provider"
    )
    if chosen not in work.catalog.providers:
        known = ", ".join(sorted(work.catalog.providers))
        raise NotFoundError(f"There is no provider {chosen!r}.", fix=f"Use one of {known}.", field="provider")
    known_provider = work.catalog.providers[chosen]
    address = email or (there.admin_email if there else work.settings.default_admin_email)
    address = check_email(address or _ask(desk, "Admin e-mail", option="--email"))
    _confirm_host(desk, known_provider, yes=yes)
    secret = read_secret(desk, f"{known_provider.display_name} admin key")
    refuse_ordinary(known_provider, secret, base_url=known_provider.address(work.settings))
    _say_access(desk, known_provider, asyncio.run(_check(desk, known_provider, secret)))
    work.tenants.add(slug, name=name or (there.name if there else slug), admin_email=address)
    line(desk.out, f"Organisation {slug}: tables in {work.settings.dataset(slug)}")
    keep_key(desk, slug, chosen, secret)
    code = _load(desk, slug, chosen, days=days)
    raise typer.Exit(code)


def _ask(desk: Desk, what: str, *, option: str) -> str:
    """Ask on a terminal. Raises UsageError where nobody can be asked."""
    if not desk.stdin.isatty():
        raise UsageError(f"{option} is missing, and there is no terminal to ask.", fix=f"Give {option}.")
    return str(typer.prompt(what)).strip()


def known_org(desk: Desk, slug: str) -> Org | None:
    """The organisation when it is there already; its name and address then need not be given again.

    Raises UsageError for a slug that cannot be: before a key is asked for, not after it was sent.
    """
    from engine.validate import slug_problem

    if said := slug_problem(slug, desk.settings.root):
        raise UsageError(f"{said}.", fix="Choose another slug, such as acme_corp.", field="org_slug")
    try:
        return desk.work.tenants.get(slug)
    except NotFoundError:
        return None


def check_email(address: str) -> str:
    """The address. Raises UsageError when it cannot be one."""
    from engine.tenants import EMAIL

    if not EMAIL.fullmatch(address):
        raise UsageError(f"{address!r} is no e-mail address.", fix="Give --email.", field="admin_email")
    return address


def _confirm_host(desk: Desk, provider: Provider, *, yes: bool) -> None:
    """Name a host that is not the provider's own before a key is sent there."""
    from engine.settings import variable

    base_url = provider.address(desk.settings)
    if base_url is None or urlsplit(base_url).hostname in provider.official_hosts:
        return
    setting = variable(provider.setting or "provider_base_urls")
    line(
        desk.out,
        f"{setting} is {base_url}, not {provider.display_name}'s own {provider.official_hosts[0]}: "
        "the key will be sent there.",
    )
    if yes:
        return
    if not desk.stdin.isatty():
        raise UsageError(f"Nobody can be asked whether {base_url} is meant.", fix="Add --yes when it is.")
    if not typer.confirm("Is that meant?", default=False):
        raise UsageError("Nothing was sent.", fix=f"Unset {setting} to use the provider's own host.")


def refuse_ordinary(provider: Provider, secret: str, *, base_url: str | None) -> None:
    """Refuse an ordinary key with the way to an Admin key. Raises ConfigurationError."""
    key = provider.key
    if key and not secret.startswith(key.admin_prefix) and secret.startswith(key.ordinary_prefixes):
        raise ConfigurationError(
            f"{provider.display_name} needs an Admin key, which begins with {key.admin_prefix}; "
            "this is an ordinary key, which may not read usage.",
            fix=f"Make an Admin key at {key.where}",
            field="key",
        )
    provider.check_key(secret, base_url=base_url)


async def _check(desk: Desk, provider: Provider, secret: str) -> Access:
    from engine.access import OneCall, check_access
    from engine.http import Http, open_client
    from engine.log import JsonLog
    from engine.request_auth import request_auth
    from engine.retry import RetryPolicy
    from serve.cli.arguments import last_closed_day

    async with open_client() as client:
        http = Http(
            client,
            provider=provider.name,
            base_url=str(provider.address(desk.settings)),
            auth=request_auth(provider, secret),
            permits=OneCall(),
            policy=RetryPolicy(max_attempts=3, max_wait_s=30),
            rand=random.random,
            sleep=asyncio.sleep,
            now=desk.now,
            log=JsonLog(lambda _: None, now=desk.now),
        )
        return await check_access(http, day=last_closed_day(desk.now(), provider.day_timezone))


def _say_access(desk: Desk, provider: Provider, access: Access) -> None:
    used = f"{count(len(access.models))} models were used" if access.models else "nothing was used"
    line(desk.out, f"The key reads {provider.display_name}'s organisation usage: {used} on {access.day}.")


def keep_key(desk: Desk, org: str, provider: str, secret: str) -> None:
    """Store a key unless it is there. Raises UsageError for a second: one account must not count twice."""
    known = desk.work.tenants.open_active(org, provider)
    if any(found.reveal() == secret for found in known.values()):
        return
    if known:
        raise UsageError(
            f"{org} has another active credential for {provider}.",
            fix=f"If this key is of another account, add it: manta credential add {org} {provider}",
            field="org",
        )
    credential_id = desk.work.tenants.add_credential(org, provider, secret)
    line(desk.out, f"The key is stored encrypted, as credential {credential_id}.")


def _load(desk: Desk, org: str, provider: str, *, days: int) -> int:
    """Run the provider's pipelines over the last closed days and show the cost."""
    from engine.types import RunRequest

    requests = []
    for path, pipeline in sorted(desk.work.catalog.pipelines.items()):
        if pipeline.provider == provider:
            last = desk.work.last_closed_day(path, now=desk.now())
            requests.append(RunRequest(org, path, last - timedelta(days=days - 1), last))
    code = start_and_follow(desk, requests)
    since, until = requests[0].start, requests[0].end
    line(desk.out)
    cost.show(
        desk,
        cost.spent(desk, [org], since=since, until=until, by=cost.By.MODEL),
        since=since,
        until=until,
        by=cost.By.MODEL,
    )
    line(desk.out, f'More: manta cost {org} --by project    manta query {org} "SELECT ..."')
    return code

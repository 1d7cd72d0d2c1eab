"""Plans and quotas: how many runs an organisation may start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import UsageError
from serve.cli.desk import Desk, desk_of
from serve.cli.options import AsJson, Slug
from serve.cli.output import count, json_line, line, table

if TYPE_CHECKING:
    from engine.plans import Subscription

UNLIMITED = "unlimited"

plan_app = typer.Typer(help="Plans: list, set.", no_args_is_help=True)
quota_app = typer.Typer(help="Limits on an organisation's runs: show, set.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    plan_app.command("list")(plan_list)
    plan_app.command("set")(plan_set)
    quota_app.command("show")(quota_show)
    quota_app.command("set")(quota_set)
    app.add_typer(plan_app, name="plan")
    app.add_typer(quota_app, name="quota")


def plan_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List the plans and what they allow."""
    from engine.catalog import Catalog

    desk = desk_of(context)
    # Not the workplace's catalog: this needs no warehouse.
    plans = Catalog.load(desk.settings.root).plans
    if as_json:
        for name, limits in plans.plans.items():
            json_line(desk.out, {"plan": name, "is_default": name == plans.default, "limits": limits})
        return
    rows = [
        (name, _shown(limits.daily), _shown(limits.monthly), _shown(limits.concurrent))
        for name, limits in plans.plans.items()
    ]
    right = ("runs a day", "a month", "at once")
    table(desk.out, ("plan", *right), rows, right=right)
    line(
        desk.out, f"Without a plan of its own an organisation has {plans.default}. Days and months are UTC's."
    )


def plan_set(
    context: typer.Context,
    org: Slug,
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="Its name: manta plan list.")],
    as_json: AsJson = False,
) -> None:
    """Give an organisation a plan.

    Its limits become the plan's; quotas of its own end.
    """
    desk = _opened(context, org)
    audit = desk.audit(org, "plan.set", "subscription", org, detail=f"plan={plan.upper()}")
    _said(desk, desk.work.subscriptions.set_plan(org, plan.upper(), audit=audit), as_json=as_json)


def quota_show(context: typer.Context, org: Slug, as_json: AsJson = False) -> None:
    """Show an organisation's limits and what is used."""
    from engine.usage import recorded_usage

    desk = desk_of(context)
    desk.work.tenants.get(org)
    found = desk.work.subscriptions.get(org)
    used = recorded_usage(desk.work.central, org, now=desk.now())
    if as_json:
        json_line(desk.out, {**_facts(found), "used": used})
        return
    limits = found.limits
    lines = (
        ("today", used.today, limits.daily),
        ("this month", used.month, limits.monthly),
        ("at once", used.concurrent, limits.concurrent),
    )
    rows = [(name, count(taken), _shown(limit), _left(limit, taken)) for name, taken, limit in lines]
    own = ", with limits of its own" if found.is_custom else ""
    line(desk.out, f"{org} is on plan {found.plan}{own}. Days and months are UTC's.")
    table(desk.out, ("runs", "used", "allowed", "left"), rows, right=("used", "allowed", "left"))


def quota_set(
    context: typer.Context,
    org: Slug,
    daily: Annotated[str | None, typer.Option(help="Runs a UTC day, or unlimited.")] = None,
    monthly: Annotated[str | None, typer.Option(help="Runs a UTC month, or unlimited.")] = None,
    concurrent: Annotated[str | None, typer.Option(help="Unfinished runs at once, or unlimited.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give an organisation limits apart from its plan's.

    What is not given stays as it is; manta plan set takes them back.
    """
    from engine.plans import KEEP

    texts = {"daily": daily, "monthly": monthly, "concurrent": concurrent}
    wanted = {name: _limit(name, text) for name, text in texts.items() if text is not None}
    if not wanted:
        raise UsageError("No limit is given.", fix="Give --daily, --monthly or --concurrent.", field="daily")
    desk = _opened(context, org)
    detail = " ".join(f"{name}={UNLIMITED if limit is None else limit}" for name, limit in wanted.items())
    changed = desk.work.subscriptions.set_quota(
        org,
        daily=wanted.get("daily", KEEP),
        monthly=wanted.get("monthly", KEEP),
        concurrent=wanted.get("concurrent", KEEP),
        audit=desk.audit(org, "quota.set", "subscription", org, detail=detail),
    )
    _said(desk, changed, as_json=as_json)


def _opened(context: typer.Context, org: str) -> Desk:
    desk = desk_of(context)
    desk.work.central.ensure()
    desk.work.tenants.get(org)
    return desk


def _said(desk: Desk, found: Subscription, *, as_json: bool) -> None:
    if as_json:
        json_line(desk.out, _facts(found))
        return
    limits = found.limits
    line(
        desk.out,
        f"{found.org} is on plan {found.plan}: {_shown(limits.daily)} runs a day, {_shown(limits.monthly)} "
        f"a month, {_shown(limits.concurrent)} at once.",
    )
    line(desk.out, f"  in force {desk.in_force}; runs that are under way go on")


def _facts(found: Subscription) -> dict[str, object]:
    own = {"plan": found.plan, "is_custom": found.is_custom, "limits": found.limits}
    return {"org_slug": found.org, **own}


def _limit(name: str, text: str) -> int | None:
    if text.lower() == UNLIMITED:
        return None
    if not (text.isascii() and text.isdigit()):
        raise UsageError(
            f"--{name} {text}: is no number of runs.", fix=f"Give a whole number or {UNLIMITED}.", field=name
        )
    return int(text)


def _shown(limit: int | None) -> str:
    return UNLIMITED if limit is None else count(limit)


def _left(limit: int | None, used: int) -> str:
    return UNLIMITED if limit is None else count(max(0, limit - used))

"""SaaS plans: import, add, list, end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import UsageError
from serve.cli import arguments
from serve.cli.desk import Desk, desk_of
from serve.cli.options import AsJson, Slug
from serve.cli.output import FAILED, count, json_line, line, money, table

if TYPE_CHECKING:
    from engine.saas.costs import Segment
    from engine.saas.plans import SaasPlan
    from engine.saas.versions import PlanBook

#: Changed rows that are listed for people.
SHOWN = 20
PIPELINE = "saas_subscription/costs/saas_cost"
Subscription = Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help="Your id of it, such as slack.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")]
Text = str | None

saas_app = typer.Typer(help="SaaS subscriptions: plan.", no_args_is_help=True)
plan_app = typer.Typer(help="SaaS plans: import, add, list, end.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    plan_app.command("import")(plan_import)
    plan_app.command("add")(plan_add)
    plan_app.command("list")(plan_list)
    plan_app.command("end")(plan_end)
    saas_app.add_typer(plan_app, name="plan")
    app.add_typer(saas_app, name="saas")


def plan_import(
    context: typer.Context,
    org: Slug,
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV with a header line; - is stdin.")],
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take plans in from a CSV file.

    Rows that stand already are left; plans that the file lacks stay. Mistakes are listed as
    file:line: field: problem: fix, and then nothing is taken in. Exit code 1.
    """
    from engine.saas.csv_file import read_plans

    desk = desk_of(context)
    name = "stdin" if file == "-" else file
    read = read_plans(_text(desk, file), name=name)
    if read.problems:
        for problem in read.problems:
            if as_json:
                json_line(desk.out, problem)
            else:
                line(desk.out, str(problem))
        if not as_json:
            plural = "problem" if len(read.problems) == 1 else "problems"
            line(desk.err, f"manta: {len(read.problems)} {plural}, nothing was taken in")
        raise typer.Exit(FAILED)
    _carry_out(desk, org, lambda book: book.news(read.plans), dry_run=dry_run, as_json=as_json)


def plan_add(
    context: typer.Context,
    org: Slug,
    subscription: Subscription,
    effective_from: Annotated[Text, typer.Option(help="First day of these terms; default --start.")] = None,
    start: Annotated[Text, typer.Option(help="First day of the subscription.")] = None,
    end: Annotated[Text, typer.Option(help="Last day, if it is known.")] = None,
    trial_end: Annotated[Text, typer.Option(help="Last day of a free trial.")] = None,
    vendor: Annotated[Text, typer.Option(help="Who sells it.")] = None,
    plan: Annotated[Text, typer.Option(help="The vendor's name for the plan.")] = None,
    category: Annotated[Text, typer.Option(help="What it is for.")] = None,
    cycle: Annotated[
        Text, typer.Option(help="weekly, monthly, quarterly, semi_annual, annual, custom.")
    ] = None,
    custom_days: Annotated[Text, typer.Option(help="Days of a custom term.")] = None,
    anchor_day: Annotated[Text, typer.Option(help="Day of the month terms begin on.")] = None,
    anchor_month: Annotated[Text, typer.Option(help="A month terms begin in, 1 to 12.")] = None,
    price: Annotated[Text, typer.Option(help="Price of a term, for one seat or flat.")] = None,
    currency: Annotated[Text, typer.Option(help="Its currency, such as EUR.")] = None,
    seats: Annotated[Text, typer.Option(help="Number of seats.")] = None,
    flat: Annotated[bool | None, typer.Option("--flat/--per-seat", help="How the price counts.")] = None,
    discount: Annotated[Text, typer.Option(help="Such as 15% or 100.00 off a term, or none.")] = None,
    fiscal_year_start: Annotated[Text, typer.Option(help="Month the fiscal year begins in.")] = None,
    department: Annotated[Text, typer.Option(help="Department that uses it.")] = None,
    team: Annotated[Text, typer.Option(help="Team that uses it.")] = None,
    cost_center: Annotated[Text, typer.Option(help="Cost centre that pays.")] = None,
    owner: Annotated[Text, typer.Option(help="E-mail address of who answers for it.")] = None,
    contract: Annotated[Text, typer.Option(help="The contract's number.")] = None,
    notes: Annotated[Text, typer.Option(help="Free text.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Add a plan, or new terms of one.

    With --effective-from these hold from that day on; what is left out stays as before it.
    """
    given: dict[str, Any] = {
        "effective_from": effective_from,
        "start_date": start,
        "end_date": end,
        "trial_end_date": trial_end,
        "vendor": vendor,
        "plan_name": plan,
        "category": category,
        "billing_cycle": cycle,
        "custom_days": custom_days,
        "billing_anchor_day": anchor_day,
        "billing_anchor_month": anchor_month,
        "unit_price": price,
        "currency": currency,
        "seats": seats,
        "pricing_model": None if flat is None else "FLAT_FEE" if flat else "PER_SEAT",
        "fiscal_year_start_month": fiscal_year_start,
        "department": department,
        "team": team,
        "cost_center": cost_center,
        "owner_email": owner,
        "contract_id": contract,
        "notes": notes,
    }
    fields = {name: value for name, value in given.items() if value is not None} | _discount(discount)
    days = {"effective_from": "--effective-from", "start_date": "--start", "end_date": "--end"}
    for name, option in {**days, "trial_end_date": "--trial-end"}.items():
        if name in fields:
            fields[name] = arguments.day(fields[name], option=option)
    if effective_from is None and start is None:
        raise UsageError(
            "Neither --start nor --effective-from is given.",
            fix="Give the first day of the subscription, or of its new terms.",
            field="start",
        )
    desk = desk_of(context)
    _carry_out(
        desk,
        org,
        lambda book: book.news([book.agreed(subscription, fields)]),
        dry_run=dry_run,
        as_json=as_json,
    )


def plan_list(
    context: typer.Context,
    org: Slug,
    every: Annotated[bool, typer.Option("--all", help="Ended plans and former terms too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List an organisation's SaaS plans."""
    desk = desk_of(context)
    desk.work.tenants.get(org)
    today = desk.now().date()
    rows = [row for found in desk.work.saas_plans(org).book().subscriptions().values() for row in found]
    shown = [row for row in rows if every or _state(row, today) != "ended"]
    if as_json:
        for row in shown:
            json_line(desk.out, {**row.plan.model_dump(), "state": _state(row, today), "until": row.until})
        return
    if not shown:
        line(desk.out, f"{org} has no SaaS plans. Take some in: manta saas plan import {org} FILE.csv")
        return
    columns = ("subscription", "plan", "from", "last day", "term", "seats", "a term", "state")
    table(desk.out, columns, [_row(row, today) for row in shown], right=("seats", "a term"))


def plan_end(
    context: typer.Context,
    org: Slug,
    subscription: Subscription,
    on: Annotated[str, typer.Option(help="Its last day.")],
    at_term_end: Annotated[
        bool, typer.Option("--at-term-end", help="Not before the term around it is over.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """End a subscription.

    Days after --on cost nothing; what was agreed for later is taken back.
    """
    last_day = arguments.day(on, option="--on")
    _carry_out(
        desk_of(context),
        org,
        lambda book: book.ending(subscription, last_day, at_term_end=at_term_end),
        dry_run=dry_run,
        as_json=as_json,
    )


def _carry_out(
    desk: Desk,
    org: str,
    wanted: Callable[[PlanBook], Sequence[SaasPlan]],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    desk.work.tenants.get(org)
    plans = desk.work.saas_plans(org)
    before = plans.book()
    changed = wanted(before) if dry_run else plans.change(wanted, by=f"cli:{desk.who}")
    if changed and not dry_run:
        _on_record(desk, org, changed)
    if as_json:
        for plan in changed:
            json_line(desk.out, {"dry_run": dry_run, **plan.model_dump()})
        return
    for plan in changed[:SHOWN]:
        line(desk.out, f"{plan.subscription_id} from {plan.effective_from}: {_said(plan)}")
    if len(changed) > SHOWN:
        line(desk.out, f"... and {count(len(changed) - SHOWN)} more (--json lists all)")
    if not changed:
        line(desk.out, "Everything stands already: nothing to do.")
        return
    plural = "row" if len(changed) == 1 else "rows"
    line(desk.out, f"{len(changed)} {plural} {'would be' if dry_run else 'are'} recorded for {org}.")
    first = before.since(changed)
    if first < desk.now().date():
        again = f"manta run {org} {PIPELINE} --start {first} --policy all"
        line(desk.out, f"  costs of past days come with: {again}")


def _on_record(desk: Desk, org: str, changed: Sequence[SaasPlan]) -> None:
    """Put the change on the audit trail; each row says who wrote it, too."""
    from engine.audit_log import REQUESTS, AuditLog

    one = changed[0].subscription_id if len({plan.subscription_id for plan in changed}) == 1 else None
    with AuditLog(lambda rows: desk.work.central.append(REQUESTS, rows), now=desk.now) as log:
        log.note(desk.audit(org, "saas_plan.change", "saas_plan", one, detail=f"rows={len(changed)}"))


def _text(desk: Desk, file: str) -> str:
    """The file's text. Raises UsageError for one that cannot be read."""
    if file == "-":
        return desk.stdin.read()
    try:
        # With its own line ends: a cell may hold some.
        with Path(file).open(encoding="utf-8", newline="") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise UsageError(f"{file}: {said}.", fix="Give a CSV file saved as UTF-8.", field="file") from error


def _discount(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    if text == "none":
        return {"discount_type": None, "discount_value": None}
    kind = "percent" if text.endswith("%") else "fixed"
    return {"discount_type": kind, "discount_value": text.removesuffix("%").strip()}


def _said(plan: SaasPlan) -> str:
    if plan.status == "VOID":
        return "taken back"
    term = f"{money(plan.cycle_cost, plan.currency)} a term, {plan.billing_cycle}"
    return f"{term}, last day {plan.end_date}" if plan.end_date else term


def _state(row: Segment, today: date) -> str:
    if row.first > today:
        return "upcoming"
    if row.until is not None and row.until <= today:
        return "ended"
    return "trial" if today < row.plan.paid_from else "active"


def _row(row: Segment, today: date) -> tuple[object, ...]:
    from engine.saas.costs import ONE_DAY

    plan = row.plan
    seats = count(plan.seats) if plan.pricing_model == "PER_SEAT" else None
    last_day = row.until - ONE_DAY if row.until else None
    return (
        plan.subscription_id,
        f"{plan.vendor} {plan.plan_name}",
        row.first,
        last_day,
        plan.billing_cycle,
        seats,
        money(plan.cycle_cost, plan.currency),
        _state(row, today),
    )

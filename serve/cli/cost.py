"""`manta cost`: what was spent, against the period before."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import UsageError
from serve import cost_rows
from serve.cli import arguments
from serve.cli.desk import Desk, desk_of
from serve.cli.output import change, days, json_line, line, money, number_text, short, table

if TYPE_CHECKING:
    import pyarrow as pa

SUMMED = ("cost", "cost_before", "tokens", "unpriced_tokens", "unpriced_rows")
AMOUNTS = ("cost", "cost_before", "change", "change_percent", "tokens", "unpriced_tokens", "unpriced_rows")


class By(StrEnum):
    """What to group by."""

    PROVIDER = "provider"
    MODEL = "model"
    PROJECT = "project"
    API_KEY = "api_key"
    DAY = "day"


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("cost")(cost)


def cost(
    context: typer.Context,
    org: Annotated[str | None, typer.Argument(metavar="ORG", help="The organisation's slug.")] = None,
    all_orgs: Annotated[bool, typer.Option("--all-orgs", help="Every active organisation.")] = False,
    since: Annotated[str | None, typer.Option(help="First day; default 30 closed days in all.")] = None,
    until: Annotated[str | None, typer.Option(help="Last day; default the last closed day (UTC).")] = None,
    by: Annotated[By, typer.Option(help="What to group by.")] = By.MODEL,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with exact amounts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a group, exact amounts.")] = False,
) -> None:
    """Show what was spent, and how that changed.

    Compares with the equally long period before.

    Tokens that no known price fits are counted apart, never guessed.
    """
    desk = desk_of(context)
    if (org is None) != all_orgs:
        raise UsageError(
            "Give either an organisation or --all-orgs.", fix="For example: manta cost acme_corp", field="org"
        )
    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other.", fix="Give one of them.", field="csv")
    first, last = period(desk, since, until)
    orgs = (
        [one.slug for one in desk.work.tenants.active()] if org is None else [desk.work.tenants.get(org).slug]
    )
    found = spent(desk, orgs, since=first, until=last, by=by)
    if as_json:
        for row in rows_of(found, by=by):
            json_line(desk.out, row)
    elif as_csv:
        line(desk.out, as_csv_text(rows_of(found, by=by), by=by))
    else:
        show(desk, found, since=first, until=last, by=by)


def period(desk: Desk, since: str | None, until: str | None) -> tuple[date, date]:
    """The days asked for; without any the last 30 closed ones. Raises UsageError."""
    last = arguments.day(until, option="--until") if until else None
    first = arguments.day(since, option="--since") if since else None
    return cost_rows.period(first, last, today=desk.now().date())


def spent(desk: Desk, orgs: Sequence[str], *, since: date, until: date, by: By) -> dict[str, pa.Table]:
    """The spend of each organisation."""
    return cost_rows.spent(desk.work, orgs, since=since, until=until, by=by.value)


def rows_of(found: dict[str, pa.Table], *, by: By) -> Iterable[dict[str, Any]]:
    """One exact row per organisation and group, for programs."""
    return cost_rows.rows_of(found, by=by.value)


def as_csv_text(rows: Iterable[dict[str, Any]], *, by: By) -> str:
    """Rows as CSV (RFC 4180), amounts in full."""
    named = [] if by is By.PROVIDER else [by.value]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["org_slug", "provider", *named, "currency", *AMOUNTS])
    for row in rows:
        writer.writerow([number_text(v) if isinstance(v, Decimal) else v for v in row.values()])
    return text.getvalue().removesuffix("\n")


def show(
    desk: Desk, found: dict[str, pa.Table], *, since: date, until: date, by: By, top: int | None = None
) -> None:
    """The cost table for people; with `top` only the dearest groups of each organisation and provider."""
    from engine.costs import change_percent, totals

    length = (until - since).days + 1
    before = days(since - timedelta(days=length), since - timedelta(days=1))
    line(desk.out, f"Cost {days(since, until)} by {by.value}, change against {before}", style="bold")
    several = len(found) > 1
    names = [*(["organisation"] if several else []), "provider", *([] if by is By.PROVIDER else [by.value])]
    columns = (*names, "cost", "change", "unpriced")
    rows: list[list[object]] = []
    for org, spend in found.items():
        rows += [_row(org, row, several=several, by=by) for row in _shortened(spend.to_pylist(), top)]
    if not rows:
        line(
            desk.out,
            "Nothing spent, and nothing loaded that says otherwise. Load days: manta run ORG PIPELINE",
        )
        return
    merged = totals(found.values())
    footer: list[object] | None = None
    if len(merged) == 1:
        whole = merged[0]
        share = change_percent(whole.cost, whole.cost_before)
        blank = [""] * (len(names) - 1)
        footer = ["total", *blank, money(whole.cost, whole.currency), change(share), _tokens(asdict(whole))]
    table(desk.out, columns, rows, right=("cost", "change", "unpriced"), footer=footer)
    for whole in merged if len(merged) > 1 else ():
        share = change_percent(whole.cost, whole.cost_before)
        line(desk.out, f"total {money(whole.cost, whole.currency)} ({change(share)})")
    if any(whole.unpriced_rows for whole in merged):
        line(desk.out, "unpriced: tokens that no known price fits; no amount includes them")


def _shortened(rows: list[dict[str, Any]], top: int | None) -> list[dict[str, Any]]:
    """The dearest `top` rows of each provider, each provider's rest summed up behind them."""
    if top is None:
        return rows
    kept: list[dict[str, Any]] = []
    for provider in sorted({row["provider"] for row in rows}):
        own = [row for row in rows if row["provider"] == provider]
        kept += own[:top]
        for currency in sorted({row["currency"] for row in own[top:]}):
            rest = [row for row in own[top:] if row["currency"] == currency]
            sums = {name: sum(row[name] for row in rest) for name in SUMMED}
            kept.append({**rest[0], **sums, "key": f"({len(rest)} more)"})
    return kept


def _row(org: str, row: dict[str, Any], *, several: bool, by: By) -> list[object]:
    from engine.costs import change_percent

    return [
        *([org] if several else []),
        row["provider"],
        *([] if by is By.PROVIDER else [row["key"]]),
        money(Decimal(row["cost"]), row["currency"]),
        change(change_percent(Decimal(row["cost"]), Decimal(row["cost_before"]))),
        _tokens(row),
    ]


def _tokens(row: dict[str, Any]) -> str:
    """Unpriced tokens; rows where what is unpriced is not counted in tokens."""
    if row["unpriced_tokens"]:
        return short(row["unpriced_tokens"])
    if not row["unpriced_rows"]:
        return ""
    return f"{short(row['unpriced_rows'])} {'row' if row['unpriced_rows'] == 1 else 'rows'}"

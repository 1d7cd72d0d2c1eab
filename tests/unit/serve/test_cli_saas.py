"""manta saas plan: what is taken in, what is said, and that a dry run or a mistake changes nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from engine.saas.plans import SaasPlan
from engine.saas.versions import PlanBook, Version
from serve.cli.main import run
from tests.unit.serve.doubles import Table, a_table

CSV = """subscription_id,vendor,plan_name,start_date,billing_cycle,unit_price,seats,currency
slack,Slack,Business+,2026-01-31,monthly,12.50,40,EUR
jira,Atlassian,Standard,2027-02-01,annual,1200,1,USD
"""


AGAIN = "manta run acme_corp saas_subscription/costs/saas_cost --start 2026-01-31 --policy all"


class MemoryPlans:
    """The plans of one organisation, in a list."""

    def __init__(self) -> None:
        self.rows: list[Version] = []
        self.by: list[str] = []
        self.audited: list[dict[str, Any]] = []

    def book(self) -> PlanBook:
        return PlanBook.of(self.rows)

    def change(self, wanted: Callable[[PlanBook], Sequence[SaasPlan]], *, by: str) -> tuple[SaasPlan, ...]:
        book = self.book()
        plans = tuple(wanted(book))
        self.rows += book.numbered(plans)
        self.by.append(by)
        return plans


#: The catalog takes long to read: one desk for all, with other streams for each call.
TABLE = a_table(width=120)


def saas(*words: str, stdin: str = "", plans: MemoryPlans | None = None) -> tuple[int, Table]:
    held = plans or MemoryPlans()
    TABLE.work.saas_plans = lambda org: held
    TABLE.work.central = SimpleNamespace(append=lambda table, rows: held.audited.extend(rows))
    desk = replace(
        TABLE.desk,
        stdin=io.StringIO(stdin),
        out=Console(file=io.StringIO(), width=120, highlight=False),
        err=Console(file=io.StringIO(), width=120, highlight=False),
    )
    return run(["saas", "plan", *words], desk), Table(desk, TABLE.runs, TABLE.work)


def test_a_file_is_taken_in_once(tmp_path: Path) -> None:
    file = tmp_path / "plans.csv"
    file.write_text(CSV)
    held = MemoryPlans()
    code, table = saas("import", "acme_corp", str(file), "--dry-run", plans=held)
    assert (code, held.rows) == (0, [])
    assert "2 rows would be recorded for acme_corp." in table.out
    code, table = saas("import", "acme_corp", str(file), plans=held)
    assert (code, len(held.rows), held.by) == (0, 2, ["cli:tess"])
    assert table.out.splitlines() == [
        "slack from 2026-01-31: 500.00 EUR a term, monthly",
        "jira from 2027-02-01: $1,200.00 a term, annual",
        "2 rows are recorded for acme_corp.",
        f"  costs of past days come with: {AGAIN}",
    ]
    code, table = saas("import", "acme_corp", "-", stdin=CSV, plans=held)
    assert (code, len(held.rows)) == (0, 2)
    (entry,) = held.audited
    assert (entry["org_slug"], entry["action"], entry["actor"], entry["detail"]) == (
        "acme_corp",
        "saas_plan.change",
        "cli:tess",
        "rows=2",
    )
    assert table.out == "Everything stands already: nothing to do.\n"


def test_one_mistake_and_nothing_is_taken_in() -> None:
    held = MemoryPlans()
    code, table = saas("import", "acme_corp", "-", stdin=CSV.replace(",40,", ",-4,"), plans=held)
    assert (code, held.rows) == (1, [])
    assert table.out.startswith("stdin:2: seats: ")
    assert table.err == "manta: 1 problem, nothing was taken in\n"
    code, table = saas("import", "acme_corp", "-", "--json", stdin=CSV.replace("USD", "USX"), plans=held)
    found = json.loads(table.out)
    assert (code, found["line"], found["field"]) == (1, 3, "currency")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("import", "acme_corp", "/nonexistent/plans.csv"), "No such file"),
        (("import", "nobody", "-"), "no organisation 'nobody'"),
        (("add", "acme_corp", "zoom", "--price", "10"), "Neither --start nor --effective-from"),
        (("add", "acme_corp", "zoom", "--start", "2026-02-30"), "February 2026 has 28 days"),
        (("add", "acme_corp", "zoom", "--start", "2026-02-01"), "vendor: is missing"),
        (("end", "acme_corp", "zoom", "--on", "2026-02-01"), "no subscription 'zoom'"),
    ],
)
def test_what_cannot_be_is_said_in_two_lines(words: tuple[str, ...], said: str) -> None:
    code, table = saas(*words, stdin=CSV)
    assert code == 2
    assert said in table.err
    assert "fix: " in table.err


def test_a_subscription_from_its_first_terms_to_its_end() -> None:
    held = MemoryPlans()
    first = "--vendor Zoom --plan Pro --price 15 --currency USD --cycle monthly --seats 4 --discount 10%"
    assert saas("add", "acme_corp", "zoom", "--start", "2026-01-01", *first.split(), plans=held)[0] == 0
    assert (
        saas("add", "acme_corp", "zoom", "--effective-from", "2026-04-01", "--seats", "9", plans=held)[0] == 0
    )
    code, table = saas("list", "acme_corp", "--all", "--json", plans=held)
    rows = [json.loads(row) for row in table.out.splitlines()]
    assert [(row["effective_from"], row["seats"], row["discount_value"]) for row in rows] == [
        ("2026-01-01", 4, "10"),
        ("2026-04-01", 9, "10"),
    ]
    # Today is 15 March 2026.
    assert [row["state"] for row in rows] == ["active", "upcoming"]
    code, table = saas("end", "acme_corp", "zoom", "--on", "2026-02-10", "--at-term-end", plans=held)
    assert code == 0
    assert "zoom from 2026-01-01: $54.00 a term, monthly, last day 2026-02-28" in table.out
    assert "zoom from 2026-04-01: taken back" in table.out
    assert "--start 2026-02-01 --policy all" in table.out
    assert "has no SaaS plans" in saas("list", "acme_corp", plans=held)[1].out
    assert "2026-02-28" in saas("list", "acme_corp", "--all", plans=held)[1].out

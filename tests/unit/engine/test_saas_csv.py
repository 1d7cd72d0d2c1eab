"""Plans from CSV: what is read, and every mistake with its line."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from engine.saas.csv_file import read_plans

HEADER = "subscription_id,vendor,plan_name,start_date,end_date,billing_cycle,unit_price,seats,currency,notes"
GOOD = "slack,Slack,Business+,2026-01-31,,monthly,12.50,40,EUR,"

EXPECTED = """
end_date: 2026-01-31 lies before start_date 2026-02-01: write the last day, on or after the first
seats: input should be greater than or equal to 0: correct the value
start_date: 01/02/2026 is no day: write it as YYYY-MM-DD, such as 2026-01-31
currency: 'XXQ' is no currency of ISO 4217: write its code, such as USD or EUR
unit_price: input should be a valid decimal: correct the value
file: has 2 cells, the header 10: quote cells that hold commas
effective_from: slack from 2026-01-31 stands on line 2 already: keep one, or change its effective_from
""".strip().splitlines()


def problems(*lines: str, header: str = HEADER) -> list[str]:
    return [str(one) for one in read_plans("\n".join([header, *lines]), name="plans.csv").problems]


def test_a_file_is_read_in_our_spelling() -> None:
    text = f"\ufeff{HEADER},discount_type,discount_value\r\n{GOOD.replace('EUR', 'eur')},Percent,15\r\n\r\n"
    text += 'jira,Atlassian,"Jira, Standard",2026-02-01,2027-01-31,Semi-Annual,'
    text += '1.000000001,,USD,"two\nlines",,\r\n'
    read = read_plans(text, name="plans.csv")
    assert read.problems == ()
    slack, jira = read.plans
    assert (slack.currency, slack.discount_type, slack.discount_value) == ("EUR", "percent", Decimal(15))
    assert (slack.effective_from, slack.end_date, slack.notes) == (date(2026, 1, 31), None, None)
    assert (jira.billing_cycle, jira.seats, jira.unit_price) == ("semi_annual", 1, Decimal("1.000000001"))
    assert (jira.plan_name, jira.notes) == ("Jira, Standard", "two\nlines")
    assert read.lines == (2, 4)


def test_every_mistake_is_told_with_its_line() -> None:
    found = problems(
        GOOD,
        "jira,Atlassian,Standard,2026-02-01,2026-01-31,monthly,10,5,USD,",
        'zoom,Zoom,Pro,2026-02-01,,monthly,10,5,USD,"one\ntwo"',
        "figma,Figma,Pro,2026-02-01,,monthly,10,-5,USD,",
        "notion,Notion,Plus,01/02/2026,,monthly,10,5,USD,",
        "miro,Miro,Team,2026-02-01,,monthly,ten,5,XXQ,",
        "short,Row",
        GOOD,
    )
    assert [one.partition(": ")[0] for one in found] == [f"plans.csv:{n}" for n in (3, 6, 7, 8, 8, 9, 10)]
    assert [one.partition(": ")[2] for one in found] == EXPECTED


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "plans.csv:1: file: holds no header line"),
        (HEADER.replace("seats", "seat"), "plans.csv:1: seat: unknown column: did you mean seats?"),
        (HEADER.replace(",currency", ""), "plans.csv:1: currency: the column is missing: add it"),
        (f"{HEADER},notes", "plans.csv:1: notes: the column appears twice"),
    ],
)
def test_a_header_that_does_not_fit(header: str, said: str) -> None:
    (found,) = problems(GOOD, header=header)
    assert found.startswith(said)


def test_a_quote_that_never_ends() -> None:
    (found,) = problems(GOOD, 'jira,"Atlassian')
    assert found.startswith("plans.csv:3: file: no CSV")

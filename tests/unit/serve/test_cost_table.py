"""How `manta cost` looks and what its programs' formats hold."""

from __future__ import annotations

import csv
import io
from datetime import date
from decimal import Decimal

import pyarrow as pa

from engine.costs import SPEND, change_percent
from serve.cli import cost
from tests.unit.serve.doubles import a_table

SINCE, UNTIL = date(2026, 3, 8), date(2026, 3, 14)


def spend(*rows: tuple[str, str | None, str, str, int]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "provider": provider,
                "key": key,
                "currency": "USD",
                "cost": Decimal(now),
                "cost_before": Decimal(before),
                "tokens": 5,
                "unpriced_tokens": unpriced,
                "unpriced_rows": 1 if unpriced else 0,
            }
            for provider, key, now, before, unpriced in rows
        ],
        schema=SPEND,
    )


WEEK = {
    "acme_corp": spend(
        ("openai", "gpt-a", "10.1", "5.05", 0),
        ("anthropic", "claude-opus-4-1-20250805", "7", "14", 0),
        ("openai", "gpt-b", "0.2", "0", 0),
        ("openai", None, "0.1", "0", 12_345_678),
    ),
    "globex": spend(("openai", "gpt-a", "0.000000001", "0", 0)),
}


def test_it_fits_80_columns_with_change_and_exact_total() -> None:
    table = a_table()
    cost.show(table.desk, WEEK, since=SINCE, until=UNTIL, by=cost.By.MODEL)
    lines = table.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "change against 2026-03-01..2026-03-07" in lines[0]
    (dear,) = [line for line in lines if "gpt-a" in line and "acme" in line]
    assert dear.split() == ["acme_corp", "openai", "gpt-a", "$10.10", "+100.0", "%"]
    (halved,) = [line for line in lines if "claude" in line]
    assert "-50.0 %" in halved
    (total,) = [line for line in lines if line.lstrip().startswith("total")]
    assert "$17.40" in total
    assert "12.3M" in total


def test_the_rest_of_each_provider_stands_behind_its_top() -> None:
    table = a_table()
    cost.show(table.desk, WEEK, since=SINCE, until=UNTIL, by=cost.By.MODEL, top=1)
    shown = [line.split()[:4] for line in table.out.splitlines() if line.startswith("acme_corp")]
    assert shown == [
        ["acme_corp", "anthropic", "claude-opus-4-1-20250805", "$7.00"],
        ["acme_corp", "openai", "gpt-a", "$10.10"],
        ["acme_corp", "openai", "(2", "more)"],
    ]
    assert "$0.30" in table.out


def test_csv_is_exact() -> None:
    text = cost.as_csv_text(cost.rows_of(WEEK, by=cost.By.MODEL), by=cost.By.MODEL)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0] == {
        "org_slug": "acme_corp",
        "provider": "openai",
        "model": "gpt-a",
        "currency": "USD",
        "cost": "10.1",
        "cost_before": "5.05",
        "change": "5.05",
        "change_percent": "100",
        "tokens": "5",
        "unpriced_tokens": "0",
        "unpriced_rows": "0",
    }
    assert rows[-1]["cost"] == "0.000000001"
    assert rows[-1]["change_percent"] == ""


def test_nothing_spent_is_said() -> None:
    table = a_table()
    cost.show(table.desk, {"acme_corp": SPEND.empty_table()}, since=SINCE, until=UNTIL, by=cost.By.DAY)
    assert "Nothing spent" in table.out


def test_change_percent() -> None:
    assert change_percent(Decimal(1), Decimal(0)) is None
    assert change_percent(Decimal(0), Decimal(0)) == 0
    assert change_percent(Decimal(1), Decimal(3)) == Decimal("-66.7")
    assert change_percent(Decimal("1e27"), Decimal("0.000000001")) > 0

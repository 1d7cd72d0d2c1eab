"""Validate charges of every source with the FinOps Foundation's own validator: `make focus`.

    python -m tests.focus.validate [--rows 400] [--keep FOLDER]

The validator exits 0 whatever it finds, so its totals and its failed rules are read. Without a network it
knows FOCUS 1.2; the columns that 1.3 added are held by `engine.focus.checks`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from logging import getLogger
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.focus.columns import COLUMNS
from engine.focus.shape import ARROW
from processors.anthropic.cost import MODEL as ANTHROPIC
from processors.focus.convert import get_engine
from processors.openai.cost import MODEL as OPENAI
from tests.focus import rows

ROOT = Path(__file__).parents[2]
VALIDATOR = ROOT / ".tools" / "focus"
TOTALS = re.compile(r"^Total: (\d+) \| Pass: (\d+) \| Fail: (\d+) \| Skipped: (\d+)$", re.MULTILINE)
FAILED = re.compile(r"^- ([A-Za-z]+-[A-Z]-\d+-[A-Z]):", re.MULTILINE)
#: Rules of the 1.2 model that fail on correct data. They are two branches of one OR, checked as if each had
#: to hold for every row: one fails where an invoice is named, the other where none is.
KNOWN_FALSE: Mapping[str, str] = {
    "InvoiceId-C-004-C": "demands that InvoiceId is NULL in every row, also where the invoice is known",
    "InvoiceId-C-005-C": "demands that InvoiceId is not NULL in any row, also where there is no invoice yet",
}
#: What our sources can do: not account names, zones, capacity reservations, commitments, other currencies.
CRITERIA = (
    "MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED",
    "MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED",
    "NEGOTIATED_PRICING_SUPPORTED",
    "PUBLIC_PRICE_LIST_SUPPORTED",
    "REGION_SUPPORTED",
    "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED",
    "SUB_ACCOUNT_SUPPORTED",
    "TAGGING_SUPPORTED",
    "UNIT_PRICING_SUPPORTED",
    "USAGE_MEASUREMENT_SUPPORTED",
)


class _Log:
    def info(self, event: str, **fields: object) -> None:
        getLogger("focus").info("%s %s", event, fields)


def charges(source: str, count: int) -> pa.Table:
    """What the processor makes of generated rows of a source."""
    if source in ("openai", "anthropic"):
        model = OPENAI if source == "openai" else ANTHROPIC
        usage, costs = rows.ai(model, count, seed=1)
        tables = {model.usage_table: usage, model.cost_table: costs}
    elif source == "gcp":
        tables = {"gcp_billing_daily_raw": rows.gcp(count, seed=1)}
    else:
        tables = {"saas_subscription_plan_costs_daily": rows.saas(max(count // 20, 5), seed=1)}
    context: dict[str, Any] = {
        "tables": tables,
        "dates": (rows.FIRST, rows.FIRST + timedelta(days=2)),
        "prices": lambda provider, first, last: rows.book(provider),
        "log": _Log(),
    }
    result = asyncio.run(get_engine().execute({"source": source}, context))
    made: pa.Table = result["tables"][f"focus_{source}_daily"]
    return made


def validate(file: Path, *criteria: str) -> tuple[str, set[str]]:
    """The validator's totals and the rules that failed, without those that only sum up others."""
    found = subprocess.run(
        [
            VALIDATOR / "bin" / "focus-validator",
            *("--data-file", file, "--validate-version", "1.2", "--block-download"),
            *("--focus-dataset", "CostAndUsage"),
            *(("--applicability-criteria", ",".join(criteria)) if criteria else ()),
        ],
        # It opens its list of currencies relative to where it is run.
        cwd=next(VALIDATOR.glob("lib/python3.*/site-packages")),
        capture_output=True,
        text=True,
        check=False,
    )
    totals = TOTALS.search(found.stdout)
    if totals is None:
        sys.exit(f"focus: the validator said no totals.\n{found.stdout[-2000:]}{found.stderr[-2000:]}")
    failed = set(FAILED.findall(found.stdout))
    if int(totals[3]) and not failed:
        sys.exit(f"focus: {totals[0]}, and no rule is named.\n{found.stdout[-2000:]}")
    return totals[0], failed


def main() -> int:
    """Validate each source twice: with the mandatory rules, and with those of what the sources can do."""
    options = argparse.ArgumentParser(prog="python -m tests.focus.validate", description=__doc__)
    options.add_argument("--rows", type=int, default=400, help="generated rows a source")
    options.add_argument("--keep", type=Path, help="folder that keeps the Parquet files")
    given = options.parse_args()
    wrong: set[str] = set()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for source in ("openai", "anthropic", "gcp", "saas_subscription"):
            file = (folder / f"focus_{source}.parquet").resolve()
            made = charges(source, given.rows)
            pq.write_table(made.cast(ARROW), file)
            for name, criteria in (("mandatory", ()), ("supported", CRITERIA)):
                totals, failed = validate(file, *criteria)
                print(f"{source:<18} {name:<10} {made.num_rows:>6} charges  {totals}")
                for rule in sorted(failed):
                    print(f"  {rule}: " + KNOWN_FALSE.get(rule, "FAILED"))
                wrong |= failed - set(KNOWN_FALSE)
    print(
        f"{len(COLUMNS)} columns; the validator knows the 57 of FOCUS 1.2, see docs/focus.md for the others"
    )
    if wrong:
        print(f"focus: failed rules: {', '.join(sorted(wrong))}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

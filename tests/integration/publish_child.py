"""Publishes in processes that may be killed: one that has imported everything forks one for each case.

A line of JSON on stdin is a list of cases, run at the same time; a line on stdout is the list of their ends:
0, a positive exit code, or minus the signal.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa

from engine.artifacts import Artifacts
from engine.catalog import Catalog
from engine.central import Central
from engine.clients import connect
from engine.ledger import Ledger
from engine.publish import publish
from engine.schemas import Schema
from engine.types import Publication, Unit
from engine.warehouse import Warehouse

FIRST_DAY = date(2025, 12, 1)
CLOCK = datetime(2025, 12, 20, 12, tzinfo=UTC)
SCHEMA = Schema.model_validate(
    {
        "table": "cost_daily",
        "scope": "tenant",
        "description": "Every type that BigQuery and Manta share.",
        "partition": "usage_date",
        "cluster": ["model"],
        "key": ["usage_date", "model"],
        "columns": [
            {"name": "usage_date", "type": "DATE", "mode": "REQUIRED", "description": "Day."},
            {"name": "model", "type": "STRING", "mode": "REQUIRED", "description": "Model."},
            {"name": "cost", "type": "NUMERIC", "description": "Money."},
            {"name": "tokens", "type": "INT64", "description": "Count."},
            {"name": "batch", "type": "BOOL", "description": "Flag."},
            {"name": "share", "type": "FLOAT64", "description": "Fraction."},
            {"name": "digest", "type": "BYTES", "description": "Bytes."},
            {"name": "seen_at", "type": "TIMESTAMP", "description": "Instant."},
            {"name": "tags", "type": "STRING", "mode": "REPEATED", "description": "List."},
            {"name": "x_org_slug", "type": "STRING", "mode": "REQUIRED", "description": "Organisation."},
            {"name": "x_run_id", "type": "STRING", "mode": "REQUIRED", "description": "Run."},
        ],
    }
)


@dataclass(frozen=True)
class Case:
    """One publish: `days` counts from FIRST_DAY, `salt` makes the content; `kill_pid` 0 is itself."""

    rest: str
    grpc: str
    root: str
    org: str
    artifacts: str
    days: tuple[int, ...]
    salt: int
    run_id: str = "run-1"
    rows: int = 3
    kill_at: str = ""
    kill_pid: int = 0
    result: str = ""


def day(number: int) -> date:
    return FIRST_DAY + timedelta(days=number)


def unit(org: str, days: Sequence[int]) -> Unit:
    return Unit(org, "openai/cost/usage_cost", tuple(day(number) for number in days))


def table(org: str, days: Sequence[int], salt: int, *, rows: int = 3, run_id: str = "run-1") -> pa.Table:
    """`rows` rows a day, whose every value depends on the salt; the first row is all NULL where it may be."""
    made = [
        {
            "usage_date": day(number),
            "model": f"modèle-{index}",
            "cost": Decimal(index * 1000 + salt).scaleb(-9) if index else None,
            "tokens": index * salt if index else None,
            "batch": bool((index + salt) % 2) if index else None,
            "share": -0.0 if index == 1 else salt / 7 if index else None,
            "digest": bytes([salt % 256, 0, 255]) if index else None,
            "seen_at": CLOCK + timedelta(microseconds=salt) if index else None,
            "tags": ["a", f"t{salt}"][:index],
            "x_org_slug": org,
            "x_run_id": run_id,
        }
        for number in days
        for index in range(rows)
    ]
    return pa.Table.from_pylist(made, schema=pa.schema([f.with_nullable(True) for f in SCHEMA.arrow]))


def run(case: Case, *, at: Callable[[str], None] | None = None) -> tuple[Publication, ...]:
    """Publish the case with clients of its own."""
    clients = connect(
        project="local",
        rest_host=case.rest,
        grpc_host=case.grpc,
        credentials="anonymous",
        transport="plaintext",
    )
    central = Central(clients, schemas=Catalog.load(Path(case.root)).schemas, maximum_bytes_billed=10**10)
    warehouse = Warehouse(clients, org=case.org, dataset=f"{case.org}_local", maximum_bytes_billed=10**10)
    return publish(
        unit(case.org, case.days),
        {SCHEMA.table: table(case.org, case.days, case.salt, rows=case.rows, run_id=case.run_id)},
        schemas={SCHEMA.table: SCHEMA},
        checks={},
        run_id=case.run_id,
        attempt=1,
        provisional=frozenset(),
        warehouse=warehouse,
        ledger=Ledger(central),
        artifacts=Artifacts(case.artifacts),
        now=lambda: datetime.now(UTC),
        at=at or _killer(case),
    )


def _killer(case: Case) -> Callable[[str], None]:
    struck: list[str] = []

    def at(point: str) -> None:
        if point == case.kill_at and not struck:
            struck.append(point)
            os.kill(case.kill_pid or os.getpid(), signal.SIGKILL)

    return at


def _fork(case: Case) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        answers = run(case)
        if case.result:
            Path(case.result).write_text(json.dumps([answer.how for answer in answers]), encoding="utf-8")
        code = 0
    except BaseException as error:  # noqa: BLE001  (a forked process must end here, whatever happens)
        sys.stderr.write(f"{case.org} {case.kill_at}: {error!r}\n")
    finally:
        # Not sys.exit: the forked interpreter must not run the parent's clean-up.
        os._exit(code)


def line(cases: Sequence[Case]) -> str:
    return json.dumps([asdict(case) for case in cases]) + "\n"


def main() -> None:
    for text in sys.stdin:
        pids = [_fork(Case(**{**given, "days": tuple(given["days"])})) for given in json.loads(text)]
        ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        sys.stdout.write(json.dumps(ends) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

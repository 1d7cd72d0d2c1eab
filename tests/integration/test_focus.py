"""FOCUS on the embedded BigQuery: published tables, the view over them, files out of it."""

from __future__ import annotations

import csv
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from engine.artifacts import Artifacts
from engine.errors import ConfigurationError, NotFoundError, UsageError
from engine.focus import ai, gcp
from engine.focus.export import VIEW, check_file, export_charges
from engine.ledger import Ledger
from engine.publish import publish
from engine.schemas import Schema
from engine.types import Unit
from engine.unit import add_lineage
from engine.views import ensure_view
from engine.warehouse import Warehouse
from processors.openai.cost import MODEL
from tests.focus import rows

DAYS = tuple(rows.FIRST + timedelta(days=n) for n in range(3))
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def made(org: str, schemas: dict[str, Schema]) -> dict[str, pa.Table]:
    """Charges of two sources with their lineage."""
    usage, costs = rows.ai(MODEL, 60, seed=9)
    charges = {
        "focus_openai_daily": ai.convert(ai.OPENAI, MODEL, usage, costs, rows.book("openai"))[0],
        "focus_gcp_daily": gcp.convert(rows.gcp(60, seed=9)),
    }
    who = {"org_slug": org, "pipeline_id": "p", "run_id": "r", "clock": lambda: NOW}
    return {name: add_lineage(table, schemas[name], who) for name, table in charges.items()}


def total(table: pa.Table, column: str = "BilledCost") -> Any:
    return pc.sum(table[column].cast(pa.decimal128(38, 9))).as_py()


def test_published_seen_through_the_view_and_exported(
    org: str, warehouse: Warehouse, ledger: Ledger, schemas: dict[str, Schema], tmp_path: Path
) -> None:
    charges = made(org, schemas)

    def publish_all() -> set[str]:
        return {
            found.how
            for name, table in charges.items()
            for found in publish(
                Unit(org, name, DAYS),
                {name: table},
                schemas={name: schemas[name]},
                checks={},
                run_id="r",
                attempt=1,
                provisional=frozenset(),
                warehouse=warehouse,
                ledger=ledger,
                artifacts=Artifacts(str(tmp_path / "artifacts")),
                # Staging tables expire by the server's clock.
                now=lambda: datetime.now(UTC),
            )
        }

    assert publish_all() == {"loaded"}
    assert publish_all() == {"unchanged"}
    view = schemas[VIEW]
    for source in view.sources:
        warehouse.ensure_table(schemas[source])
    ensure_view(warehouse, view)
    together = sum(total(table) for table in charges.values())

    parquet, text = tmp_path / "a.parquet", tmp_path / "a.csv"
    count = export_charges(warehouse, view, start=DAYS[0] - timedelta(days=9), end=DAYS[-1], file=parquet)
    found = pq.read_table(parquet)
    assert count == found.num_rows == sum(table.num_rows for table in charges.values())
    assert found.schema.remove_metadata() == view.arrow
    assert total(found) == together
    given = {row["x_ChargeId"]: row for table in charges.values() for row in table.to_pylist()}
    assert {row["x_ChargeId"]: row for row in found.to_pylist()} == given

    assert export_charges(warehouse, view, start=DAYS[0], end=DAYS[-1], file=text) == count
    with text.open(newline="", encoding="utf-8") as lines:
        read = list(csv.DictReader(lines))
    assert list(read[0]) == view.arrow.names
    assert sum(Decimal(row["BilledCost"]) for row in read) == together
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["ChargePeriodStart"]) for row in read)
    assert {row["InvoiceId"] for row in read} == {""}
    assert [row["x_ChargeId"] for row in read] == found["x_ChargeId"].to_pylist()

    one = export_charges(warehouse, view, start=DAYS[1], end=DAYS[1], file=parquet)
    assert 0 < one < count
    assert sorted(path.name for path in tmp_path.glob("*a.*")) == ["a.csv", "a.parquet"]


def test_an_organisation_without_charges_is_told_and_no_file_is_left(
    warehouse: Warehouse, schemas: dict[str, Schema], tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match="has no FOCUS charges") as missing:
        export_charges(warehouse, schemas[VIEW], start=DAYS[0], end=DAYS[0], file=tmp_path / "a.csv")
    assert "manta run" in missing.value.fix
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(
    warehouse: Warehouse, schemas: dict[str, Schema], tmp_path: Path
) -> None:
    file = tmp_path / "no" / "such" / "a.csv"
    with pytest.raises(ConfigurationError, match="cannot be written") as refused:
        export_charges(warehouse, schemas[VIEW], start=DAYS[0], end=DAYS[0], file=file)
    assert refused.value.field == "output"


def test_a_name_without_a_format() -> None:
    with pytest.raises(UsageError, match="says no format"):
        check_file(Path("costs.xlsx"))
    check_file(Path("Costs.CSV"))

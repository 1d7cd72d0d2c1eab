"""A central dataset of its own with procedures from a folder of files, and a tenant to call them for."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.clients import Clients
from engine.foreign import Patience
from engine.procedures.files import read_procedures
from engine.procedures.sync import Procedures
from engine.schemas import Schema
from engine.warehouse import Dataset, Warehouse
from processors.generic.procedure_executor import get_engine

BYTES_BILLED = 10**10
TABLE = "demo_days"
SCHEMA = Schema.model_validate(
    {
        "table": TABLE,
        "scope": "tenant",
        "description": "Made by a procedure.",
        "partition": "usage_date",
        "key": ["usage_date", "plan_id"],
        "columns": [
            {"name": name, "type": kind, "mode": mode, "description": "x"}
            for name, kind, mode in (
                ("usage_date", "DATE", "REQUIRED"),
                ("plan_id", "STRING", "REQUIRED"),
                ("daily_cost", "NUMERIC", "NULLABLE"),
                ("x_org_slug", "STRING", "REQUIRED"),
                ("x_credential_id", "STRING", "REQUIRED"),
            )
        ],
    }
)


class Log:
    """Takes what is logged."""

    def info(self, event: str, **facts: object) -> None:
        """Forget it."""


@dataclass
class Place:
    """Files, the dataset they are synced to, and how to call what stands there."""

    root: Path
    dataset: Dataset
    procedures: Procedures = field(init=False)

    def __post_init__(self) -> None:
        self.procedures = Procedures(self.dataset, read=lambda: read_procedures(self.root))

    def write(self, name: str, parameters: str, body: str) -> Path:
        """Write procedures/demo/`name`.sql."""
        path = self.root / "procedures" / "demo" / f"{name}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"CREATE OR REPLACE PROCEDURE demo_{name}({parameters})\nBEGIN\n{body}\nEND;\n")
        return path

    async def call(self, warehouse: Warehouse, config: dict[str, Any]) -> dict[str, Any]:
        """Run the executor's step as a unit of that tenant would."""
        context = {
            "org_slug": warehouse.org,
            "run_id": "run-1",
            "procedures": self.procedures,
            "schemas": {TABLE: SCHEMA},
            "warehouse": warehouse,
            "log": Log(),
            "clock": lambda: datetime.now(UTC),
        }
        return await get_engine().execute(config, context)


def a_place(clients: Clients, root: Path) -> Place:
    """A new one, without files."""
    dataset = Dataset(
        clients,
        dataset=f"central_{uuid.uuid4().hex[:12]}",
        location="US",
        maximum_bytes_billed=BYTES_BILLED,
        labels={},
        patience=Patience(),
    )
    dataset.ensure_dataset()
    return Place(root, dataset)

"""`gcp.bq_discover`: which usage days of the billing export changed since the last run.

An export only grows, by load partitions: one whose largest `export_time` or number of rows is another than
its mark has taken in rows, of whatever usage days they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import date
from typing import Any

from engine.gcp import sql
from engine.gcp.exports import Export, ExportConfig, exports
from engine.pages.asking import midnight, on_behalf_of
from engine.types import Discovery, Mark

PS_TYPE = "gcp.bq_discover"
#: Load partitions that one statement asks the usage days of.
AT_ONCE = 1000

type Marks = Mapping[tuple[str, str, object], Mark]


class BillingChanges:
    """Compares each load partition with its mark in `org_meta_source_marks`."""

    #: `manta validate` checks a step's config against it.
    config_model = ExportConfig

    async def execute(self, step_config: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the usage days touched and the new marks; raises the engine's errors."""
        config = ExportConfig.read(step_config, ps_type=PS_TYPE)
        opened: list[Export] = []
        try:
            found = await asyncio.to_thread(_look, config, context, opened)
        except asyncio.CancelledError:
            for export in opened:
                export.source.stop.set()
            raise
        metrics = {"load_partitions": len(found.marks), "usage_days": len(found.days)}
        return {"status": "SUCCESS", "discovered": found, "metrics": metrics, "error": None}


def _look(config: ExportConfig, context: Mapping[str, Any], opened: list[Export]) -> Discovery:
    found = exports(
        config,
        org=context["org_slug"],
        credentials=tuple(context["secrets"]),
        connect=context["bigquery"],
    )
    opened += found
    days: set[date] = set()
    marks: list[Mark] = []
    for export in found:
        with on_behalf_of(export.credential_id):
            now = _marks(export)
            _say_what_is_gone(export, now, context)
            changed = [mark for mark in now if _differs(mark, context["marks"])]
            days |= _days(export, changed)
            marks += changed
    context["log"].info("gcp.bq_discover.read", load_partitions=len(marks), usage_days=len(days))
    return Discovery(frozenset(days), tuple(marks))


def _marks(export: Export) -> list[Mark]:
    statement, parameters = sql.changes(export.table)
    rows = export.source.query(
        statement, parameters, purpose="billing-changes", location=export.table.location
    )
    return [
        Mark(
            credential_id=export.credential_id,
            source=export.table.address,
            load_partition=row["load_partition"],
            max_export_time=row["max_export_time"] or midnight(row["load_partition"]),
            rows=row["row_count"],
        )
        for row in rows
    ]


def _differs(mark: Mark, standing: Marks) -> bool:
    there = standing.get(mark.key)
    return there is None or (there.max_export_time, there.rows) != (mark.max_export_time, mark.rows)


def _days(export: Export, changed: list[Mark]) -> set[date]:
    partitions = sorted(mark.load_partition for mark in changed)
    found: set[date] = set()
    for start in range(0, len(partitions), AT_ONCE):
        statement, parameters = sql.usage_days(export.table, partitions[start : start + AT_ONCE])
        rows = export.source.query(
            statement, parameters, purpose="billing-days", location=export.table.location
        )
        found |= {row["usage_date"] for row in rows}
    return found


def _say_what_is_gone(export: Export, now: list[Mark], context: Mapping[str, Any]) -> None:
    """Load partitions that had a mark and are no more: their rows stay as they were published."""
    there = {mark.key for mark in now}
    mine = (export.credential_id, export.table.address)
    if gone := sorted(str(key[2]) for key in context["marks"] if key[:2] == mine and key not in there):
        context["log"].warning(
            "gcp.bq_discover.partitions_gone",
            export=export.table.address,
            partitions=len(gone),
            first=gone[0],
            last=gone[-1],
        )


def get_engine() -> BillingChanges:
    """Return the processor."""
    return BillingChanges()

"""`gcp.bq_etl`: the billing export's rows of the unit's usage days, as `gcp_billing_daily_raw`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from engine.errors import TransientError
from engine.gcp import sql
from engine.gcp.exports import Export, ExportConfig, exports
from engine.gcp.rows import Gathered, sorted_days
from engine.gcp.tables import described
from engine.pages.asking import on_behalf_of
from engine.types import Finding

PS_TYPE = "gcp.bq_etl"
TABLE = "gcp_billing_daily_raw"


class BillingExport:
    """Reads every export of the tenant, wherever its rows of the unit's days were loaded."""

    #: `manta validate` checks a step's config against it.
    config_model = ExportConfig

    async def execute(self, step_config: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the table `gcp_billing_daily_raw`; raises the engine's errors, naming the credential."""
        config = ExportConfig.read(step_config, ps_type=PS_TYPE)
        opened: list[Export] = []
        try:
            return await asyncio.to_thread(_read, config, context, opened)
        except asyncio.CancelledError:
            # The thread cannot be stopped from here; it sees this between two batches, and cancels its query.
            for export in opened:
                export.source.stop.set()
            raise


def _read(config: ExportConfig, context: Mapping[str, Any], opened: list[Export]) -> dict[str, Any]:
    days: Sequence[date] = context["dates"]
    found = exports(
        config,
        org=context["org_slug"],
        credentials=tuple(context["secrets"]),
        connect=context["bigquery"],
    )
    opened += found
    gathered = Gathered()
    findings: list[Finding] = []
    partitions = 0
    for export in found:
        with on_behalf_of(export.credential_id):
            located = _located(export, days)
            findings += _findings(export, days, located)
            lie = sorted_days(located)
            partitions += len(lie)
            if lie:
                _take(gathered, export, days, located)
    table = gathered.table()
    context["log"].info("gcp.bq_etl.read", rows=table.num_rows, exports=len(found), days=len(days))
    return {
        "status": "SUCCESS",
        "tables": {TABLE: table},
        "metrics": {"rows": table.num_rows, "exports": len(found), "load_partitions": partitions},
        "findings": findings,
        "error": None,
    }


def _take(
    gathered: Gathered, export: Export, days: Sequence[date], located: Sequence[Mapping[str, Any]]
) -> None:
    statement, parameters = sql.rows(export.table, days, sorted_days(located))
    came = 0
    for batch in export.source.stream(
        statement, parameters, purpose="billing-rows", location=export.table.location
    ):
        came += gathered.take(batch, credential_id=export.credential_id, address=export.table.address)
    # An export only grows: more may have come since they were counted, never fewer.
    if came < (counted := sum(row["row_count"] for row in located)):
        raise TransientError(
            f"{export.table.address}: {came} rows came of {counted} that are there.",
            fix="It is tried again; if it stays, look whether rows of the export were deleted.",
        )


def _located(export: Export, days: Sequence[date]) -> list[dict[str, Any]]:
    statement, parameters = sql.located(export.table, days)
    return export.source.query(
        statement, parameters, purpose="billing-locate", location=export.table.location
    )


def _findings(
    export: Export, days: Sequence[date], located: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    table = export.table
    rows = sum(row["row_count"] for row in located)

    def found(code: str, detail: str, *, day: date = days[0], rows: int = rows) -> Finding:
        return Finding(code=code, subject=table.address, table=TABLE, day=day, rows=rows, detail=detail)

    if table.unknown:
        yield found("unknown_export_columns", f"Not taken: {', '.join(table.unknown)}.")
    if table.misfits:
        yield found("export_columns_of_other_type", f"Read as NULL: {', '.join(table.misfits)}.")
    if export.also:
        yield found(
            "same_export_twice", f"Read once; credential {', '.join(export.also)} leads to the same table."
        )
    if table.expires_days is not None:
        yield found(
            "export_expires",
            f"Load partitions are deleted after {table.expires_days} days: a usage day that is restated "
            "after that loses the rows that are gone.",
        )
    if export.beside is not None:
        yield from _only_beside(export, days, {row["usage_date"] for row in located}, found)


def _only_beside(export: Export, days: Sequence[date], there: set[date], found: Any) -> Iterator[Finding]:
    """Days that the standard export has and the detailed one, begun later, has not."""
    address = str(export.beside)
    source, location = export.source, export.table.location
    beside = described(address, "standard", table=source.table(address), location=location)
    statement, parameters = sql.located(beside, days)
    counts: dict[date, int] = {}
    for row in source.query(statement, parameters, purpose="billing-beside", location=location):
        counts[row["usage_date"]] = counts.get(row["usage_date"], 0) + row["row_count"]
    for day in sorted(set(counts) - there):
        yield found(
            "only_in_standard_export",
            f"{address} has this day and the detailed export, which is read, has not; run it with "
            "--var export=standard.",
            day=day,
            rows=counts[day],
        )


def get_engine() -> BillingExport:
    """Return the processor."""
    return BillingExport()

"""A question in a person's own SQL about one tenant: read statements only, and this tenant's tables only.

Two guards stand before it runs. BigQuery itself says, in a dry run, what kind of statement it is and which
tables and routines it reaches, views resolved: anything but one SELECT, and anything outside the tenant's
dataset, is refused. What a dry run does not list (INFORMATION_SCHEMA, EXTERNAL_QUERY) is refused by its name,
but for the three views that describe the tenant's own dataset.
"""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
from google.cloud import bigquery

from engine.errors import ConfigurationError, MantaError, NotFoundError, UsageError
from engine.warehouse import CALL_TIMEOUT_S, Warehouse

OWN_VIEWS = ("TABLES", "COLUMNS", "PARTITIONS")
ONE_SELECT = "Write one SELECT or WITH statement."
# Comments and literals go, so that a name in them counts for nothing.
_NOISE = re.compile(
    r"--[^\n]*|\#[^\n]*|/\*.*?\*/"
    r"|\"\"\".*?\"\"\"|'''.*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'",
    re.DOTALL,
)
_OWN_VIEW = re.compile(rf"(?<![.\w\-])INFORMATION_SCHEMA\s*\.\s*(?:{'|'.join(OWN_VIEWS)})\b", re.IGNORECASE)
_OUTSIDE = re.compile(r"\b(INFORMATION_SCHEMA|EXTERNAL_QUERY|__TABLES(?:_SUMMARY)?__)\b", re.IGNORECASE)
_READING = re.compile(r"[\s(]*(?:SELECT|WITH|FROM)\b", re.IGNORECASE)
_DOING = re.compile(r"^(?:The question|Query question in \S+): ")
_WIRE = re.compile(r"^(?:\d{3} )?(?:GET|POST) \S+: ")


def ask(warehouse: Warehouse, sql: str) -> pa.Table:
    """Run one reading statement; bare table names are the tenant's.

    Raises UsageError for a statement that does not only read, that reaches outside the tenant's dataset, or
    that BigQuery refuses (with its words).
    """
    _refuse_by_name(sql)
    try:
        _refuse_by_dry_run(warehouse, _dry_run(warehouse, sql))
        return warehouse.query(sql, purpose="question")
    except UsageError:
        raise
    except ConfigurationError as error:
        raise _said(error) from error


def _refuse_by_name(sql: str) -> None:
    bare = _NOISE.sub(" ", sql)
    if not _READING.match(bare):
        word = (bare.split() or ["nothing"])[0].upper()
        raise UsageError(
            f"Only statements that read are run; this one begins with {word}.", fix=ONE_SELECT, field="sql"
        )
    # Backticks go too, so that quoting hides no name.
    if outside := _OUTSIDE.search(_OWN_VIEW.sub(" ", bare.replace("`", ""))):
        raise UsageError(
            f"{outside[1].upper()} reaches beyond the organisation's dataset.",
            fix="Of INFORMATION_SCHEMA only "
            + ", ".join(OWN_VIEWS)
            + " may be read, without a dataset before it.",
            field="sql",
        )


def _dry_run(warehouse: Warehouse, sql: str) -> Any:
    config = bigquery.QueryJobConfig(
        default_dataset=f"{warehouse.project}.{warehouse.dataset}", dry_run=True, use_query_cache=False
    )
    return warehouse.patience.insist(
        "The question",
        lambda: warehouse.clients.bigquery.query(
            sql,
            job_config=config,
            location=warehouse.location,
            retry=None,  # type: ignore[arg-type]
            job_retry=None,
            timeout=CALL_TIMEOUT_S,
        ),
    )


def _refuse_by_dry_run(warehouse: Warehouse, job: Any) -> None:
    if job.statement_type != "SELECT":
        raise UsageError(
            f"Only statements that read are run; BigQuery calls it {job.statement_type or 'no SELECT'}.",
            fix=ONE_SELECT,
            field="sql",
        )
    # The client has no property for routines, although the resource documents them like the tables.
    routines = job._properties.get("statistics", {}).get("query", {}).get("referencedRoutines", ())
    reached = [(table.project, table.dataset_id, table.table_id) for table in job.referenced_tables]
    reached += [(r.get("projectId"), r.get("datasetId"), r.get("routineId")) for r in routines]
    for project, dataset, name in reached:
        if (project, dataset) != (warehouse.project, warehouse.dataset):
            raise UsageError(
                f"{dataset}.{name} is outside {warehouse.org}'s dataset {warehouse.dataset}.",
                fix="Ask about the organisation's own tables; their bare names are enough.",
                field="sql",
            )


def _said(error: MantaError) -> MantaError:
    """BigQuery's own words, without what was being done, the call's address and the job's."""
    words = _WIRE.sub("", _DOING.sub("", error.message))
    words = re.sub(r"\s*(?:Location|Job ID): \S+", "", words).strip().rstrip(".")
    fix = "Correct the statement."
    if isinstance(error, NotFoundError):
        fix = "See the organisation's tables: SELECT table_name FROM INFORMATION_SCHEMA.TABLES"
    return UsageError(f"BigQuery says: {words}.", fix=fix, field="sql")

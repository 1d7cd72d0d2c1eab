"""A question in a person's own SQL about one tenant: read statements only, and this tenant's tables only.

Two guards stand before it runs. BigQuery itself says, in a dry run, what kind of statement it is and which
tables and routines it reaches, views resolved: anything but one SELECT, and anything outside the tenant's
dataset, is refused. What a dry run does not list (INFORMATION_SCHEMA, EXTERNAL_QUERY, functions of the
embedded engine that read files) is refused by its name, but for the three views of the tenant's own dataset.
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
# Comments and literals go, so that a name in them counts for nothing. Quoted names stay (group 1): where a
# comment or a literal seems to begin in one, none does, and what comes after it must not be hidden.
_NOISE = re.compile(
    r"(`(?:\\.|[^`\\])*`)|--[^\n]*|\#[^\n]*|/\*.*?\*/"
    r"|\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'",
    re.DOTALL,
)
_OWN_VIEW = re.compile(rf"(?<![.\w\-])INFORMATION_SCHEMA\s*\.\s*(?:{'|'.join(OWN_VIEWS)})\b", re.IGNORECASE)
_OUTSIDE = re.compile(r"\b(INFORMATION_SCHEMA|EXTERNAL_QUERY|__TABLES(?:_SUMMARY)?__)\b", re.IGNORECASE)
# Functions of DuckDB, to which the embedded BigQuery hands them on: they read files, settings and other
# tenants' tables, and no dry run lists what they reach. BigQuery itself knows none of them.
_FOREIGN = re.compile(
    r"\b(read_\w+|\w+_scan(?:_\w+)?|(?:duckdb|ducklake|parquet|pragma|iceberg|show)_\w+|st_read\w*|shapefile_meta"
    r"|st_drivers|glob|query|query_table|sniff_csv|json_execute_serialized_sql|show|database_list|database_size"
    r"|(?:table|storage|metadata)_info|which_secret|current_setting|getvariable|getenv|python_map_function)\s*\(",
    re.IGNORECASE,
)
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
    bare = _NOISE.sub(lambda found: found[1] or " ", sql)
    if not _READING.match(bare):
        word = (bare.split() or ["nothing"])[0].upper()
        raise UsageError(
            f"Only statements that read are run; this one begins with {word}.", fix=ONE_SELECT, field="sql"
        )
    if "\\" in bare:
        raise UsageError("A quoted name holds an escape.", fix="Write the name itself.", field="sql")
    # Backticks go too, so that quoting hides no name.
    unquoted = bare.replace("`", "")
    if foreign := _FOREIGN.search(unquoted):
        raise UsageError(
            f"{foreign[1]} is no function of BigQuery.",
            fix="Ask about the organisation's own tables.",
            field="sql",
        )
    if outside := _OUTSIDE.search(_OWN_VIEW.sub(" ", unquoted)):
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

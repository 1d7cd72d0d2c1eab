"""Views: the SELECT of a schema file over tables of its own dataset, created again when it changes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress

from engine.errors import NotFoundError
from engine.foreign import Conflict
from engine.schemas import SOURCE, Schema
from engine.warehouse import CALL_TIMEOUT_S, NO_RETRY, Dataset

# BigQuery may give back another text than it was given, so a label says what the view was made from.
LABEL = "manta-view"


def definition(schema: Schema, project: str, dataset: str) -> tuple[str, str]:
    """The statement that makes the view and what its label says.

    Every table has its full name: a view knows no default dataset.
    """

    def full(match: re.Match[str]) -> str:
        name = match["name"]
        return f"{match['before']}`{project}.{dataset}.{name}`" if name in schema.sources else match[0]

    select = SOURCE.sub(full, schema.view or "").strip()
    columns = ", ".join(f"{c.name} OPTIONS(description={_text(c.description)})" for c in schema.columns)
    options = f"description={_text(schema.description)}"
    fingerprint = hashlib.sha256(f"{columns}\n{options}\n{select}".encode()).hexdigest()[:32]
    statement = (
        f"CREATE OR REPLACE VIEW `{project}.{dataset}.{schema.table}` ({columns}) "
        f'OPTIONS({options}, labels=[("{LABEL}", "{fingerprint}")]) AS {select}'
    )
    return statement, fingerprint


def ensure_view(dataset: Dataset, schema: Schema) -> None:
    """Create the view, or replace one that was made from another text; its tables must be there."""
    path = f"{dataset.project}.{dataset.dataset}.{schema.table}"
    statement, fingerprint = definition(schema, dataset.project, dataset.dataset)
    try:
        found = dataset.insist(
            f"Looking for view {schema.table}",
            lambda: dataset.clients.bigquery.get_table(path, retry=NO_RETRY, timeout=CALL_TIMEOUT_S),
        )
        if (found.labels or {}).get(LABEL) == fingerprint:
            return
    except NotFoundError:
        pass
    # Another process that makes the same view is as good; carried out twice it is harmless.
    with suppress(Conflict):
        dataset.query(statement, purpose="view")


def views_over(tables: Iterable[str], schemas: Mapping[str, Schema]) -> list[Schema]:
    """The tenant views that read any of these tables, by name."""
    wanted = frozenset(tables)
    found = (schema for schema in schemas.values() if schema.scope == "tenant" and schema.sources & wanted)
    return sorted(found, key=lambda schema: schema.table)


def _text(words: str) -> str:
    # BigQuery reads JSON's escapes.
    return json.dumps(words, ensure_ascii=False)

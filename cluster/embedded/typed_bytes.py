"""BYTES in typed files: Parquet holds them as bytes, and local-bigquery would decode them as base64 text."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from local_bigquery.jobs import load, runner

_typed: ContextVar[bool] = ContextVar("typed", default=False)
_decoded, _run = load._decoded, load.run


def install() -> None:
    """Have load jobs decode base64 only where the file format is text."""
    load._decoded, load.run = decoded, run
    runner.HANDLERS["load"] = run


def run(cur: Any, config: Any, upload: str | None) -> Any:
    """Run a load job, remembering whether its format carries types."""
    token = _typed.set((config.sourceFormat or "CSV") not in load.TEXT_FORMATS)
    try:
        return _run(cur, config, upload)
    finally:
        _typed.reset(token)


def decoded(expression: str, field: Any, depth: int = 0) -> str:
    """The SQL that turns a file's value into a column's."""
    if field.type == "BYTES" and field.mode != "REPEATED" and _typed.get():
        return expression
    sql: str = _decoded(expression, field, depth)
    return sql

"""`manta query`: a question in SQL about one organisation."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any

import typer

from serve.cli.desk import desk_of
from serve.cli.output import json_line, jsonable, line, number_text, table

ROWS_SHOWN = 200


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("query")(query)


def query(
    context: typer.Context,
    org: Annotated[str, typer.Argument(metavar="ORG", help="The organisation's slug.")],
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT or WITH statement.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a row; NUMERIC and DATE as strings.")
    ] = False,
) -> None:
    """Ask BigQuery about one organisation.

    Bare table names are its own. Only reading statements are run, and only its own dataset is reached.
    """
    from engine.questions import ask

    desk = desk_of(context)
    desk.work.tenants.get(org)
    found = ask(desk.work.warehouse(org), sql)
    if as_json:
        for row in found.to_pylist():
            json_line(desk.out, row)
        return
    names = found.column_names
    right = [name for name, kind in zip(names, found.schema.types, strict=True) if _is_number(str(kind))]
    rows = [[shown(value) for value in row.values()] for row in found.slice(0, ROWS_SHOWN).to_pylist()]
    table(desk.out, names, rows, right=right)
    if found.num_rows > ROWS_SHOWN:
        line(desk.err, f"manta: {ROWS_SHOWN} of {found.num_rows:,} rows shown; --json prints all")


def _is_number(kind: str) -> bool:
    return kind.startswith(("int", "decimal", "double", "float"))


def shown(value: Any) -> str | None:
    """A cell of the table; None is SQL's NULL."""
    match value:
        case None:
            return None
        case Decimal():
            return number_text(value)
        case datetime() | date():
            return str(value)
        case bool() | list() | dict():
            return json.dumps(jsonable(value), ensure_ascii=False)
        case _:
            return str(jsonable(value))

"""One CALL of a stored procedure: typed parameters in, child jobs and BigQuery's error with its line out."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any

from engine.errors import ConfigurationError, MantaError, UsageError
from engine.jobs import Typed
from engine.procedures.files import Argument
from engine.procedures.states import Stored
from engine.procedures.sync import line_of
from engine.warehouse import CALL_TIMEOUT_S, NO_RETRY, Warehouse

#: More of them are counted, not listed: a loop makes one per statement and round.
CHILDREN_SHOWN = 50
#: Digits before and after the point that BigQuery keeps.
_DIGITS = {"NUMERIC": (29, 9), "BIGNUMERIC": (38, 38)}


@dataclass(frozen=True, slots=True)
class ChildJob:
    """One statement that a script ran: `rows` it changed, `ms` it took; `line` counts in the procedure."""

    job_id: str
    statement_type: str
    rows: int | None
    ms: int | None
    line: int | None = None
    procedure: str | None = None
    failed: bool = False

    def as_json(self) -> dict[str, Any]:
        """What the step log keeps of it."""
        return {
            "job_id": self.job_id,
            "statement_type": self.statement_type,
            "rows": self.rows,
            "ms": self.ms,
        }


def bound(arguments: Sequence[Argument], given: Mapping[str, Any], *, procedure: str) -> dict[str, Typed]:
    """The values of a call in the order of the procedure's parameters.

    Raises UsageError for a parameter that is missing, unknown, or given a value of another type.
    """
    names = [argument.name for argument in arguments]
    if unknown := sorted(set(given) - set(names)):
        raise UsageError(
            f"{procedure} has no parameter {', '.join(unknown)}.",
            fix=f"It takes {', '.join(map(str, arguments)) or 'none'}.",
            field=f"config.parameters.{unknown[0]}",
        )
    if missing := [argument for argument in arguments if argument.name not in given]:
        raise UsageError(
            f"{procedure} needs {', '.join(map(str, missing))}.",
            fix="Add it to the step's parameters.",
            field="config.parameters",
        )
    return {one.name: typed(one, given[one.name], procedure=procedure) for one in arguments}


def typed(argument: Argument, value: Any, *, procedure: str) -> Typed:
    """A config's value as the parameter's type. Raises UsageError naming the parameter."""
    if isinstance(value, Typed):
        return value
    if isinstance(value, Mapping) and set(value) == {"type", "value"}:
        if str(value["type"]).upper() != argument.type:
            raise _wrong(argument, value, procedure, f"is declared {argument.type}, not {value['type']}")
        value = value["value"]
    element = argument.type.removeprefix("ARRAY<").removesuffix(">")
    try:
        if element == argument.type or value is None:
            return Typed(argument.type, None if value is None else _scalar(argument.type, value))
        if not isinstance(value, list | tuple):
            raise ValueError("is no list")
        if None in value:
            raise ValueError("holds a NULL, which an ARRAY cannot")
        return Typed(argument.type, [_scalar(element, one) for one in value])
    except (ValueError, TypeError, InvalidOperation, binascii.Error) as error:
        raise _wrong(argument, value, procedure, str(error) or "cannot be converted") from None


def _wrong(argument: Argument, value: Any, procedure: str, said: str) -> UsageError:
    return UsageError(
        f"Parameter {argument.name} of {procedure}, {str(value)[:80]!r}, {said}.",
        fix=f"Give it a {argument.type}.",
        field=f"config.parameters.{argument.name}",
    )


def _scalar(kind: str, value: Any) -> Any:
    """The value as Python's type of a BigQuery type; raises ValueError with the reason."""
    if kind in _DIGITS:
        return _decimal(kind, value)
    if kind == "JSON":
        return value if isinstance(value, str) else json.dumps(value)
    if kind == "BYTES" and isinstance(value, str):
        return base64.b64decode(value, validate=True)
    parse: Any = {"DATE": date, "TIMESTAMP": datetime, "DATETIME": datetime, "TIME": time}.get(kind)
    if parse is not None and isinstance(value, str):
        value = parse.fromisoformat(value)
    wanted = {"STRING": str, "INT64": int, "BOOL": bool, "FLOAT64": (float, int), "BYTES": bytes}
    types: Any = parse or wanted[kind]
    same_but_other = (kind == "DATE" and isinstance(value, datetime)) or (
        kind in ("INT64", "FLOAT64") and isinstance(value, bool)
    )
    if not isinstance(value, types) or same_but_other:
        raise ValueError(f"is a {type(value).__name__}, not a {kind}")
    if isinstance(value, datetime) and (value.tzinfo is None) != (kind == "DATETIME"):
        raise ValueError("needs a time zone" if kind == "TIMESTAMP" else "must have no time zone")
    return value


def _decimal(kind: str, value: Any) -> Decimal:
    if isinstance(value, bool | float) or not isinstance(value, int | str | Decimal):
        raise ValueError(f"is a {type(value).__name__}; write it in quotes, since {kind} is never a float")
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError("is no number")
    whole, fraction = _DIGITS[kind]
    _, digits, exponent = number.as_tuple()
    places = -int(exponent)
    if places > fraction or len(digits) - places > whole:
        raise ValueError(f"has more digits than {kind} keeps ({whole} before the point, {fraction} after)")
    return number


def statement(reference: str, values: Mapping[str, Typed]) -> tuple[str, dict[str, Typed]]:
    """The CALL and its query parameters, one for each of the procedure's."""
    # Not by their own names: the embedded BigQuery would take them for those of a USING within.
    sent = {f"call_{name}": value for name, value in values.items()}
    return f"CALL `{reference}`({', '.join(f'@{name}' for name in sent)})", sent


def children(warehouse: Warehouse, job_id: str) -> tuple[ChildJob, ...]:
    """The statements that a script's job ran, in their order."""
    found = warehouse.insist(
        f"Listing the child jobs of {job_id}",
        lambda: list(
            warehouse.clients.bigquery.list_jobs(
                parent_job=job_id, retry=NO_RETRY, timeout=CALL_TIMEOUT_S, all_users=True
            )
        ),
    )
    made = [child_of(job) for job in sorted(found, key=lambda job: (job.created is None, job.created))]
    return tuple(made)


def child_of(job: Any) -> ChildJob:
    """Read a client's job object, without a call."""
    frames = list(getattr(job.script_statistics, "stack_frames", ()) or ()) if job.script_statistics else []
    frame = frames[0] if frames else None
    took = (job.ended - job.started).total_seconds() if job.ended and job.started else None
    return ChildJob(
        job_id=job.job_id,
        statement_type=getattr(job, "statement_type", None) or job.job_type.upper(),
        rows=getattr(job, "num_dml_affected_rows", None),
        ms=round(took * 1000) if took is not None else None,
        line=frame.start_line if frame else None,
        procedure=(frame.procedure_id or None) if frame else None,
        failed=job.error_result is not None,
    )


def metrics(jobs: Sequence[ChildJob]) -> dict[str, Any]:
    """Rows affected and the child jobs, as the step log keeps them."""
    counted = [job.rows for job in jobs if job.rows is not None]
    return {
        "rows_affected": sum(counted),
        "child_jobs": len(jobs),
        "statements": [job.as_json() for job in jobs[:CHILDREN_SHOWN]],
    }


def explained(error: MantaError, stored: Stored, jobs: Sequence[ChildJob]) -> MantaError:
    """The job's error with the procedure's name and the line of its file, as far as BigQuery says it.

    Same class, so that what is worth another try stays so.
    """
    line = next((job.line for job in reversed(jobs) if job.failed and job.line), None)
    line = line or line_of(error.message)
    place = ""
    if stored.file and stored.body_line:
        place = f" ({stored.file}:{stored.body_line - 1 + line})" if line else f" ({stored.file})"
    elif line:
        place = f" (line {line} of its body)"
    told = replace_message(error, f"Procedure {stored.name} failed{place}: {error.message}")
    if isinstance(told, ConfigurationError):
        told.fix = "Correct the procedure or what it was given; see docs/procedures.md."
    return told


def replace_message(error: MantaError, message: str) -> MantaError:
    """The same error in other words."""
    state = {**vars(error), "message": message}
    made = type(error).__new__(type(error), message)
    vars(made).update(state)
    return made

"""BigQuery jobs as values: state, labels, typed parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from google.cloud import bigquery

from engine.errors import ConfigurationError, InternalError, MantaError, NotFoundError, TransientError
from engine.foreign import Conflict, passes

LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")


class JobExists(Conflict):
    """The job id has been used; the job that has it may be ours, see its labels."""

    code = "job_exists"


@dataclass(frozen=True, slots=True)
class Typed:
    """A parameter's value and the BigQuery type it is sent as: "NUMERIC", "ARRAY<DATE>"; None is NULL."""

    type: str
    value: Any


@dataclass(frozen=True, slots=True)
class JobState:
    """A job as BigQuery last showed it; only `done` may be trusted."""

    job_id: str
    done: bool
    error: MantaError | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def state_of(job: Any) -> JobState:
    """Read a client's job object, without a call."""
    done = job.state == "DONE"
    error = _error(job.job_id, job.error_result) if done and job.error_result else None
    return JobState(job_id=job.job_id, done=done, error=error, labels=dict(job.labels or {}))


def _error(job_id: str, said: Mapping[str, Any]) -> MantaError:
    reason, message = str(said.get("reason", "")), str(said.get("message", ""))
    text = f"BigQuery job {job_id} failed ({reason}): {message}"
    if passes(reason, message):
        return TransientError(text, fix="Try again.")
    if reason == "notFound":
        return NotFoundError(text, fix="Create what is missing, or correct the name.")
    return ConfigurationError(text, fix="Correct the statement, the data or the table's schema.")


def checked_labels(*parts: Mapping[str, str]) -> dict[str, str]:
    """Merge labels and refuse what BigQuery would refuse (the embedded one would not).

    Raises InternalError naming the label.
    """
    merged: dict[str, str] = {}
    for part in parts:
        merged.update(part)
    for key, value in merged.items():
        if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
            raise InternalError(
                f"Label {key}={value!r} is none that BigQuery takes.",
                fix="Use lowercase letters, digits, '-' and '_', at most 63.",
            )
    return merged


def parameters_of(given: Mapping[str, object] | None) -> list[Any]:
    """Turn named values into typed query parameters; sequences become arrays, None a STRING.

    Raises InternalError for a value that has no BigQuery type, or an empty sequence.
    """
    return [_parameter(name, value) for name, value in (given or {}).items()]


def _parameter(name: str, value: Any) -> Any:
    if isinstance(value, Typed):
        element = value.type.removeprefix("ARRAY<").removesuffix(">")
        if element != value.type:
            return bigquery.ArrayQueryParameter(name, element, list(value.value or ()))
        return bigquery.ScalarQueryParameter(name, value.type, value.value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        if not value:
            raise InternalError(
                f"Parameter @{name} is an empty sequence and so has no type.", fix="Leave it out."
            )
        return bigquery.ArrayQueryParameter(name, _type(name, value[0]), list(value))
    if value is None:
        return bigquery.ScalarQueryParameter(name, "STRING", None)
    return bigquery.ScalarQueryParameter(name, _type(name, value), value)


def _type(name: str, value: object) -> str:
    # bool before int and datetime before date: each is the other's subclass.
    for kind, bigquery_type in (
        (bool, "BOOL"),
        (int, "INT64"),
        (float, "FLOAT64"),
        (Decimal, "NUMERIC"),
        (str, "STRING"),
        (bytes, "BYTES"),
        (datetime, "TIMESTAMP"),
        (date, "DATE"),
    ):
        if isinstance(value, kind):
            return bigquery_type
    raise InternalError(
        f"Parameter @{name} is a {type(value).__name__}, which has no BigQuery type.", fix="Convert it first."
    )

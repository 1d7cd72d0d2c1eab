"""A call's parameters as typed values, and what child jobs and errors tell."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from google.cloud.bigquery.job import QueryJob

from engine.clients import connect
from engine.errors import ConfigurationError, TransientError, UsageError
from engine.jobs import Typed, parameters_of
from engine.procedures.calls import bound, child_of, explained, metrics, statement, typed
from engine.procedures.files import Argument, Definition
from engine.procedures.states import Stored

DAY = date(2025, 12, 8)


def given(kind: str, value: Any) -> Any:
    return typed(Argument("x", kind), value, procedure="demo").value


@pytest.mark.parametrize(
    ("kind", "value", "becomes"),
    [
        ("DATE", DAY, DAY),
        ("DATE", "2025-12-08", DAY),
        ("INT64", 7, 7),
        ("BOOL", True, True),
        ("STRING", "a", "a"),
        ("FLOAT64", 1, 1),
        ("NUMERIC", "0.000000001", Decimal("0.000000001")),
        ("NUMERIC", Decimal("1.50"), Decimal("1.50")),
        ("NUMERIC", -3, Decimal(-3)),
        ("BIGNUMERIC", "0.0000000000000000001", Decimal("0.0000000000000000001")),
        ("TIMESTAMP", "2025-12-08T01:00:00Z", datetime(2025, 12, 8, 1, tzinfo=UTC)),
        ("DATETIME", "2025-12-08T01:00:00", datetime.fromisoformat("2025-12-08T01:00:00")),
        ("TIME", "01:02:03", time(1, 2, 3)),
        ("JSON", {"a": [1]}, '{"a": [1]}'),
        ("BYTES", "YWI=", b"ab"),
        ("ARRAY<DATE>", ["2025-12-08", DAY], [DAY, DAY]),
        ("ARRAY<STRING>", [], []),
        ("DATE", None, None),
        ("ARRAY<INT64>", None, None),
        ("NUMERIC", {"type": "NUMERIC", "value": "1.5"}, Decimal("1.5")),
        ("DATE", {"type": "date", "value": None}, None),
    ],
)
def test_values_take_the_parameters_type(kind: str, value: Any, becomes: Any) -> None:
    found = given(kind, value)
    assert found == becomes
    assert type(found) is type(becomes)


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("NUMERIC", 1.5, "never a float"),
        ("NUMERIC", True, "never a float"),
        ("NUMERIC", "0.0000000001", "more digits than NUMERIC keeps"),
        ("NUMERIC", "1" * 30, "more digits"),
        ("NUMERIC", "NaN", "is no number"),
        ("NUMERIC", "1,5", "1,5"),
        ("DATE", "2025-02-30", "2025-02-30"),
        ("DATE", datetime(2025, 1, 1, tzinfo=UTC), "not a DATE"),
        ("DATE", 20250101, "is a int, not a DATE"),
        ("INT64", "7", "is a str, not a INT64"),
        ("INT64", True, "not a INT64"),
        ("BOOL", 1, "not a BOOL"),
        ("STRING", DAY, "not a STRING"),
        ("TIMESTAMP", "2025-12-08T01:00:00", "needs a time zone"),
        ("DATETIME", "2025-12-08T01:00:00Z", "must have no time zone"),
        ("ARRAY<DATE>", "2025-12-08", "is no list"),
        ("ARRAY<DATE>", [None], "NULL"),
        ("BYTES", "no base64!", "x"),
        ("DATE", {"type": "STRING", "value": "2025-12-08"}, "is declared DATE, not STRING"),
    ],
)
def test_another_type_is_refused_by_name(kind: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        given(kind, value)
    assert said in raised.value.message
    assert "Parameter x of demo" in raised.value.message
    assert raised.value.field == "config.parameters.x"


ARGUMENTS = (Argument("dataset", "STRING"), Argument("day", "DATE"))


def test_values_stand_in_the_procedures_order_and_none_in_the_text() -> None:
    values = bound(ARGUMENTS, {"day": "2025-12-08", "dataset": "a'b"}, procedure="demo")
    assert list(values) == ["dataset", "day"]
    sql, parameters = statement("p.d.demo", values)
    assert sql == "CALL `p.d.demo`(@call_dataset, @call_day)"
    sent = [one.to_api_repr() for one in parameters_of(parameters)]
    assert [one["name"] for one in sent] == ["call_dataset", "call_day"]
    assert [one["parameterType"]["type"] for one in sent] == ["STRING", "DATE"]
    assert sent[0]["parameterValue"] == {"value": "a'b"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dataset": "a"}, "demo needs day DATE"),
        ({"dataset": "a", "day": DAY, "dya": DAY}, "demo has no parameter dya"),
    ],
)
def test_missing_and_unknown_parameters_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        bound(ARGUMENTS, values, procedure="demo")
    assert said in raised.value.message


def test_arrays_and_nulls_are_sent_with_their_type() -> None:
    sent = [
        one.to_api_repr()
        for one in parameters_of({"a": Typed("ARRAY<DATE>", []), "b": Typed("NUMERIC", None)})
    ]
    assert sent[0]["parameterType"] == {"type": "ARRAY", "arrayType": {"type": "DATE"}}
    assert sent[1]["parameterType"] == {"type": "NUMERIC"}
    assert sent[1]["parameterValue"] == {"value": None}


#: Makes no call: jobs only ask it for its project.
CLIENT = connect(
    project="p",
    rest_host="http://127.0.0.1:1",
    grpc_host="127.0.0.1:1",
    credentials="anonymous",
    transport="plaintext",
).bigquery


def job(number: int, **statistics: Any) -> Any:
    """A child job as BigQuery's REST API documents it."""
    failed = statistics.pop("failed", None)
    return QueryJob.from_api_repr(
        {
            "jobReference": {"projectId": "p", "jobId": f"script_job_{number}", "location": "US"},
            "configuration": {"query": {"query": "SELECT 1"}},
            "status": {"state": "DONE", **({"errorResult": failed} if failed else {})},
            "statistics": {"startTime": "1000", "endTime": "1250", "parentJobId": "call", **statistics},
        },
        CLIENT,
    )


INSERTED = {"query": {"statementType": "INSERT", "numDmlAffectedRows": "5"}}
FAILED = {
    "query": {"statementType": "SELECT"},
    "scriptStatistics": {
        "evaluationKind": "STATEMENT",
        "stackFrames": [
            {
                "startLine": 4,
                "startColumn": 3,
                "endLine": 5,
                "endColumn": 1,
                "procedureId": "demo",
                "text": "x",
            }
        ],
    },
    "failed": {"reason": "invalidQuery", "message": "Unrecognized name: nope at [1:8]"},
}


def test_child_jobs_say_rows_and_time() -> None:
    found = metrics([child_of(job(1, **INSERTED)), child_of(job(2, query={"statementType": "SELECT"}))])
    assert found["rows_affected"] == 5
    assert found["child_jobs"] == 2
    assert found["statements"][0] == {
        "job_id": "script_job_1",
        "statement_type": "INSERT",
        "rows": 5,
        "ms": 250,
    }


def stored(file: str | None = "procedures/demo/days.sql", body_line: int | None = 10) -> Stored:
    return Stored("demo_days", Definition((), ""), "0" * 64, file, body_line, None, None)


def test_an_error_names_the_line_of_the_file_that_the_stack_frame_says() -> None:
    error = ConfigurationError("BigQuery job call failed: Unrecognized name: nope at [1:8]", fix="x")
    told = explained(error, stored(), [child_of(job(1, **INSERTED)), child_of(job(2, **FAILED))])
    assert isinstance(told, ConfigurationError)
    assert told.message.startswith("Procedure demo_days failed (procedures/demo/days.sql:13): BigQuery job")
    assert "Unrecognized name: nope" in told.message


@pytest.mark.parametrize(
    ("message", "found", "place"),
    [
        ("bad at [p.d.demo_days:3:5]", stored(), "(procedures/demo/days.sql:12)"),
        ("bad", stored(), "(procedures/demo/days.sql)"),
        ("bad at [3:5]", stored(None, None), "(line 3 of its body)"),
    ],
)
def test_without_a_frame_the_message_itself_may_say_it(message: str, found: Stored, place: str) -> None:
    error = TransientError(message)
    told = explained(error, found, [])
    assert isinstance(told, TransientError)
    assert told.message == f"Procedure demo_days failed {place}: {message}"

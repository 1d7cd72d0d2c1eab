"""The protocol's pure core keeps its promises for any ledger, and the hash sees content and nothing else."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.content_hash import content_hash
from engine.errors import InternalError, TransientError
from engine.jobs import JobState
from engine.ledger import State, Target, read_head
from engine.moves import INTENT_LABEL, Nothing, Record, Submit, Wait, Wish, next_move
from engine.parts import split
from engine.schemas import Schema

#: The machine may be busy; what is tested is not its speed.
patient = settings(deadline=None)

DAYS = [date(2025, 12, 1) + timedelta(days=number) for number in range(4)]
TARGET = Target("acme", "acme_local", "t_daily")


def row(day: date, version: int, attempt: int, intent: str, state: State, content: str) -> dict[str, Any]:
    return {
        "day": day,
        "table_version": version,
        "attempt": attempt,
        "intent_id": intent,
        "state": state.value,
        "job_id": TARGET.job_id(version, attempt),
        "content_hash": content,
        "schema_version": 1,
        "row_count": 1,
        "provisional": content.endswith("?"),
        "pipeline": "p",
        "run_id": "run",
        "artifact_uri": "file",
    }


CONTENTS = st.sampled_from(["A", "B", "C", "A?", "B?"])
DAY_SETS = st.sets(st.sampled_from(DAYS), min_size=1)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[date, str], int, int, list[str]]:
    """Rows that runs of the protocol may leave: (rows, truth by day, version, attempt, open intents)."""
    rows: list[dict[str, Any]] = []
    truth: dict[date, str] = {}

    def attempts(version: int, failures: int) -> None:
        for attempt in range(1, failures + 1):
            for state in (State.INTENT, State.FAILED):
                rows.extend(
                    row(day, version, attempt, f"f{version}-{attempt}", state, "F") for day in DAYS[:2]
                )

    version = draw(st.integers(0, 4))
    for number in range(1, version + 1):
        failures = draw(st.integers(0, 2))
        attempts(number, failures)
        content = {day: draw(CONTENTS) for day in draw(DAY_SETS)}
        for state in (State.INTENT, State.COMMITTED, *draw(st.sampled_from([(), (State.COMMITTED,)]))):
            rows.extend(row(d, number, failures + 1, f"w{number}", state, c) for d, c in content.items())
        truth |= content
    failures = draw(st.integers(0, 2))
    attempts(version + 1, failures)
    names = draw(st.lists(st.sampled_from(["x", "y", "z"]), unique=True))
    for name in names:
        rows.extend(row(day, version + 1, failures + 1, name, State.INTENT, name) for day in DAYS[:2])
    for found in rows:
        found["head_version"] = version
    return draw(st.permutations(rows)), truth, version, failures + 1, sorted(names)


WISHES = st.builds(
    lambda contents: [
        Wish(day, c.rstrip("?"), c.endswith("?")) for day, c in zip(DAYS, contents, strict=True)
    ],
    st.lists(CONTENTS, min_size=len(DAYS), max_size=len(DAYS)),
)


@patient
@given(histories())
def test_the_head_is_read_from_rows_in_any_order(history: Any) -> None:
    rows, truth, version, attempt, open_names = history

    head = read_head(rows, DAYS)

    assert (head.version, head.attempt) == (version, attempt)
    assert {day: found.content_hash for day, found in head.published.items()} == truth
    assert [intent.id for intent in head.open] == open_names


@patient
@given(histories(), WISHES)
def test_without_a_job_the_very_next_id_is_used_and_only_for_what_differs(
    history: Any, wishes: list[Wish]
) -> None:
    rows, _, version, attempt, _ = history
    head = read_head(rows, DAYS)

    move = next_move(head, None, wishes)

    if isinstance(move, Submit):
        assert (move.version, move.attempt) == (version + 1, attempt)
    else:
        assert isinstance(move, Nothing)
    left = [wish for wish in wishes if not isinstance(move, Submit) or wish.day not in move.days]
    assert all(head.published[wish.day].content_hash == wish.content_hash for wish in left)
    assert all(wish.day not in head.doubtful for wish in left)
    assert all(wish.provisional or not head.published[wish.day].provisional for wish in left)


@patient
@given(histories(), WISHES)
def test_after_the_submitted_days_are_committed_nothing_is_left(history: Any, wishes: list[Wish]) -> None:
    rows, _, version, attempt, _ = history
    move = next_move(read_head(rows, DAYS), None, wishes)
    assume(isinstance(move, Submit))
    assert isinstance(move, Submit)
    won = [
        row(w.day, version + 1, attempt, "won", State.COMMITTED, w.content_hash)
        for w in wishes
        if w.day in move.days
    ]
    for new, wish in zip(won, [w for w in wishes if w.day in move.days], strict=True):
        new["provisional"] = wish.provisional

    after = read_head([{**found, "head_version": version + 1} for found in [*rows, *won]], DAYS)

    assert after.version == version + 1
    assert next_move(after, None, wishes) == Nothing()


@patient
@given(histories(), WISHES, st.sampled_from([None, TransientError("no")]), st.data())
def test_a_job_at_the_next_id_comes_before_any_wish(
    history: Any, wishes: list[Wish], error: TransientError | None, data: st.DataObject
) -> None:
    rows, _, _, _, open_names = history
    assume(open_names)
    head = read_head(rows, DAYS)
    winner = data.draw(st.sampled_from(open_names))
    labels = {INTENT_LABEL: winner}

    assert next_move(head, JobState("j", done=False, labels=labels), wishes) == Wait("j")
    move = next_move(head, JobState("j", done=True, error=error, labels=labels), wishes)

    assert isinstance(move, Record)
    assert (move.intent.id, move.error) == (winner, error)
    assert {intent.id for intent in move.lost} == set(open_names) - {winner}


@patient
@given(histories(), WISHES)
def test_a_job_that_nobody_intended_is_our_fault(history: Any, wishes: list[Wish]) -> None:
    head = read_head(history[0], DAYS)

    with pytest.raises(InternalError):
        next_move(head, JobState("j", done=True, labels={INTENT_LABEL: "unheard-of"}), wishes)


def test_a_ledger_with_a_gap_is_refused() -> None:
    rows = [row(DAYS[0], 3, 1, "i", State.INTENT, "A") | {"head_version": 1}]

    with pytest.raises(InternalError, match="above 2"):
        read_head(rows, DAYS)


SCHEMA = Schema.model_validate(
    {
        "table": "t_daily",
        "scope": "tenant",
        "description": "d",
        "partition": "usage_date",
        "key": ["usage_date", "model"],
        "columns": [
            {"name": "usage_date", "type": "DATE", "mode": "REQUIRED", "description": "d"},
            {"name": "model", "type": "STRING", "mode": "REQUIRED", "description": "d"},
            {"name": "cost", "type": "NUMERIC", "description": "d"},
            {"name": "tokens", "type": "INT64", "description": "d"},
            {"name": "share", "type": "FLOAT64", "description": "d"},
            {"name": "tags", "type": "STRING", "mode": "REPEATED", "description": "d"},
            {"name": "x_run_id", "type": "STRING", "description": "d"},
        ],
    }
)
VALUES = {
    "cost": st.none() | st.decimals(-(10**9), 10**9, places=9),
    "tokens": st.none() | st.integers(-(2**63), 2**63 - 1),
    "share": st.none() | st.floats(),
    "tags": st.lists(st.text(max_size=4), max_size=3),
    "x_run_id": st.none() | st.text(max_size=3),
}
ROWS = st.lists(
    st.fixed_dictionaries({"usage_date": st.sampled_from(DAYS), "model": st.text(max_size=5), **VALUES}),
    max_size=8,
    unique_by=lambda made: (made["usage_date"], made["model"]),
)


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([f.with_nullable(True) for f in SCHEMA.arrow]))


@patient
@given(ROWS, st.data())
def test_order_chunks_and_lineage_leave_the_hash(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    relabelled = [{**found, "x_run_id": "another"} for found in shuffled]
    pieces = pa.concat_tables([table(relabelled[:cut]), table(relabelled[cut:])])

    assert content_hash(pieces, SCHEMA) == content_hash(table(rows), SCHEMA)


@patient
@given(ROWS, st.data())
def test_a_changed_value_changes_the_hash(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    assume(rows)
    which = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.sampled_from(["cost", "tokens", "share", "tags"]))
    value = data.draw(VALUES[column])
    old = rows[which][column]
    # NaN is one value here, and -0.0 is 0.0.
    assume(value != old and not (value != value and old != old and old is not None))
    changed = [{**found, column: value} if number == which else found for number, found in enumerate(rows)]

    assert content_hash(table(changed), SCHEMA) != content_hash(table(rows), SCHEMA)


@patient
@given(ROWS)
def test_a_missing_row_changes_the_hash(rows: list[dict[str, Any]]) -> None:
    assume(rows)

    assert content_hash(table(rows[1:]), SCHEMA) != content_hash(table(rows), SCHEMA)


@patient
@given(ROWS)
def test_every_day_gets_a_part_and_no_row_is_lost(rows: list[dict[str, Any]]) -> None:
    parts = split(table(rows), SCHEMA, DAYS, frozenset(DAYS[:1]))

    assert [part.day for part in parts] == DAYS
    assert sum(part.table.num_rows for part in parts) == len(rows)
    for part in parts:
        own = [found for found in rows if found["usage_date"] == part.day]
        assert part.content_hash == content_hash(table(own), SCHEMA)
        assert part.provisional == (part.day == DAYS[0])


def test_amounts_are_hashed_as_the_decimals_they_are() -> None:
    base = {"usage_date": DAYS[0], "model": "m"}
    same = [content_hash(table([{**base, "cost": Decimal(text)}]), SCHEMA) for text in ("1.5", "1.500000000")]

    assert same[0] == same[1]

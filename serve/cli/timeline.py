"""`manta show`: a run day by day, and where its time went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from engine.types import RunRequest
from serve.cli import summary
from serve.cli.output import count, days, duration, json_line, line, state, table

if TYPE_CHECKING:
    from engine.history import RunHistory
    from engine.runs import Run
    from serve.cli.desk import Desk

UNTOUCHED = "not taken"
STAGES_SHOWN = 12


@dataclass(frozen=True, slots=True)
class DayLine:
    """One day of a run, or a stretch that it did not take. `seconds` is of the whole unit."""

    first: date
    last: date
    state: str
    attempts: int
    seconds: float | None
    unit_days: int
    error_code: str | None


@dataclass(frozen=True, slots=True)
class Stage:
    """All attempts' time in one stage. `share` is of the time in all stages."""

    name: str
    times: int
    seconds: float
    share: float
    rows: int


def show(desk: Desk, run: Run, history: RunHistory, *, as_json: bool) -> None:
    """Print a run with all that is on record about it."""
    org = run.request.org
    transitions = history.transitions(org, run.id)
    stages = stages_of(history.steps(org, run.id))
    lines = day_lines(run.request, transitions)
    failed, found = summary.failures(transitions), history.findings(org, run.id)
    if as_json:
        facts = {
            **summary.run_facts(run),
            "days": [asdict(one) for one in lines],
            "stages": [asdict(one) for one in stages],
            "failures": failed,
            "findings": found,
            "transitions": transitions,
        }
        json_line(desk.out, facts)
        return
    _head(desk, run)
    if lines:
        table(
            desk.out, ("day", "state", "attempts", "time", ""), map(_row, lines), right=("attempts", "time")
        )
    _stages(desk, stages)
    summary.show_failures(desk, failed)
    if found:
        line(desk.out, "Findings")
        summary.show_findings(desk, found)


def _head(desk: Desk, run: Run) -> None:
    line(desk.out, f"Run {run.id}: {summary.title(run.request)}")
    desk.out.print(" ", state(run.status), end=" ")
    started = f"{run.start_time:%Y-%m-%d %H:%M} UTC"
    line(desk.out, f"policy {run.request.policy}, {run.trigger_type} by {run.trigger_by}, started {started}")
    span = (run.end_time or desk.now()) - run.start_time
    for text in summary.numbers(run.tally, span):
        line(desk.out, f"  {text}")
    if run.error_message:
        message, _, fix = run.error_message.partition(" Fix: ")
        line(desk.out, f"  {run.error_code}: {message}")
        if fix:
            line(desk.out, f"    fix: {fix}")


def _row(one: DayLine) -> tuple[object, ...]:
    time = None if one.seconds is None else duration(timedelta(seconds=one.seconds))
    note = f"in a unit of {one.unit_days} days" if one.unit_days > 1 else ""
    if one.error_code:
        note = f"{one.error_code} {note}".strip()
    shown = UNTOUCHED if one.state == UNTOUCHED else state(one.state)
    return (days(one.first, one.last), shown, one.attempts or None, time, note)


def day_lines(request: RunRequest, transitions: Sequence[Mapping[str, Any]]) -> list[DayLine]:
    """Every day of the request in order; stretches that no unit took are one line."""
    units: dict[str, list[Mapping[str, Any]]] = {}
    for row in transitions:
        units.setdefault(row["entity_name"], []).append(row)
    by_day = {day: rows for rows in units.values() for day in _days_of(rows[0])}
    lines: list[DayLine] = []
    day = request.start
    while day <= request.end:
        rows = by_day.get(day)
        if rows is not None:
            lines.append(_day_line(day, rows))
        elif lines and lines[-1].state == UNTOUCHED:
            lines[-1] = DayLine(lines[-1].first, day, UNTOUCHED, 0, None, 0, None)
        else:
            lines.append(DayLine(day, day, UNTOUCHED, 0, None, 0, None))
        day += timedelta(days=1)
    return lines


def _days_of(row: Mapping[str, Any]) -> Iterator[date]:
    day = row["first_day"]
    while day <= row["last_day"]:
        yield day
        day += timedelta(days=1)


def _day_line(day: date, rows: Sequence[Mapping[str, Any]]) -> DayLine:
    last = rows[-1]
    return DayLine(
        first=day,
        last=day,
        state=last["to_state"],
        attempts=max(row["attempt"] for row in rows),
        seconds=_running_s(rows),
        unit_days=(last["last_day"] - last["first_day"]).days + 1,
        error_code=last["error_type"],
    )


def _running_s(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The time a unit ran, without its waits between attempts."""
    total, began, ran = 0.0, None, False
    for row in rows:
        at: datetime = row["transition_time"]
        if row["to_state"] == "RUNNING":
            began = at
        elif began is not None:
            total, began, ran = total + (at - began).total_seconds(), None, True
    return round(total, 1) if ran else None


def stages_of(steps: Sequence[Mapping[str, Any]]) -> list[Stage]:
    """Time by stage, longest first."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for step in steps:
        grouped.setdefault(step["step_name"], []).append(step)
    total_ms = sum(step["duration_ms"] for step in steps) or 1
    found = [
        Stage(
            name=name,
            times=len(rows),
            seconds=sum(row["duration_ms"] for row in rows) / 1000,
            share=round(sum(row["duration_ms"] for row in rows) / total_ms, 3),
            rows=sum(row["rows_processed"] or 0 for row in rows),
        )
        for name, rows in grouped.items()
    ]
    return sorted(found, key=lambda stage: -stage.seconds)


def _stages(desk: Desk, stages: Sequence[Stage]) -> None:
    if not stages:
        return
    rows = [
        (one.name, one.times, duration(timedelta(seconds=one.seconds)), f"{one.share:.0%}", count(one.rows))
        for one in stages[:STAGES_SHOWN]
    ]
    table(
        desk.out,
        ("stage", "times", "time", "share", "rows"),
        rows,
        right=("times", "time", "share", "rows"),
        title="Where the time went",
    )

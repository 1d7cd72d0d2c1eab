"""Following runs to their end: a live board on a terminal, plain lines elsewhere, JSON lines on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from engine.errors import TransientError
from serve.cli.output import count, duration, json_line, line, state

if TYPE_CHECKING:
    from engine.runs import Run
    from serve.cli.desk import Desk

POLL_S = 0.4
TOGETHER = 3
#: A run that the supervisor does not know: it may just be starting again, so the record is asked only then.
UNKNOWN_POLLS = 5
AWAY_S = 120.0
PLAIN_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class View:
    """A run as it is seen now."""

    run: Run
    running: int = 0


def follow(
    desk: Desk, runs: Sequence[Run], *, on_record: Callable[[Run], Run | None]
) -> Iterator[list[View]]:
    """The runs as they stand, again and again until all have ended.

    `on_record` reads a run that the supervisor has forgotten. A supervisor that is away for up to two minutes
    is waited for; raises TransientError after that.
    """
    views = {run.id: View(run) for run in runs}
    unknown = dict.fromkeys(views, 0)
    away_s = 0.0
    while True:
        waiting = [run_id for run_id, view in views.items() if not has_ended(view.run)]
        try:
            found = desk.runs.progress(waiting) if waiting else []
            away_s = 0.0
        except TransientError:
            away_s += POLL_S
            if away_s > AWAY_S:
                raise
            found = []
        for progress in found:
            views[progress.run.id] = View(progress.run, len(progress.running))
        for run_id in set(waiting) - {progress.run.id for progress in found}:
            unknown[run_id] += 1
            if unknown[run_id] % UNKNOWN_POLLS == 0 and (run := on_record(views[run_id].run)) is not None:
                views[run_id] = View(run)
        yield list(views.values())
        if all(has_ended(view.run) for view in views.values()):
            return
        # Each run is a request: many together are looked at less often.
        desk.sleep(POLL_S * max(1.0, len(waiting) / TOGETHER))


def has_ended(run: Run) -> bool:
    """True when the run is over and on record: its state is terminal a moment before that."""
    return run.terminal and run.end_time is not None


def show(desk: Desk, boards: Iterable[list[View]], *, as_json: bool) -> list[Run]:
    """Render until the end, and answer the runs in their terminal states."""
    if as_json:
        return _as_json(desk, boards)
    if desk.out.is_terminal:
        return _live(desk, boards)
    return _plain(desk, boards)


def _as_json(desk: Desk, boards: Iterable[list[View]]) -> list[Run]:
    views: list[View] = []
    said: dict[str, object] = {}
    for views in boards:
        for view in views:
            facts = progress_facts(view, desk.now())
            key = {name: value for name, value in facts.items() if name not in ("seconds", "eta_seconds")}
            if said.get(view.run.id) != key:
                json_line(desk.out, {"event": "progress", **facts})
                said[view.run.id] = key
    return [view.run for view in views]


def progress_facts(view: View, now: datetime) -> dict[str, object]:
    """What a progress line says, by name."""
    run, tally = view.run, view.run.tally
    left = eta(run, now)
    return {
        "run_id": run.id,
        "org_slug": run.request.org,
        "pipeline": run.request.pipeline,
        "status": run.status,
        "units_total": tally.units_total,
        "units_done": tally.units_published,
        "units_running": view.running,
        "units_failed": tally.units_failed,
        "rows": tally.row_count,
        "api_calls": tally.api_calls,
        "load_jobs": tally.load_jobs,
        "seconds": round(((run.end_time or now) - run.start_time).total_seconds(), 1),
        "eta_seconds": round(left.total_seconds()) if left is not None else None,
    }


def eta(run: Run, now: datetime) -> timedelta | None:
    """The time left if the rest goes as what is done went; None while nothing is done."""
    ended = run.tally.units_published + run.tally.units_failed
    if run.terminal or not ended or ended >= run.tally.units_total:
        return None
    return (now - run.start_time) * (run.tally.units_total - ended) / ended


def _live(desk: Desk, boards: Iterable[list[View]]) -> list[Run]:
    views: list[View] = []
    with Live(console=desk.out, refresh_per_second=8, transient=True) as live:
        for views in boards:
            live.update(board(views, desk.now()))
    return [view.run for view in views]


def _plain(desk: Desk, boards: Iterable[list[View]]) -> list[Run]:
    views: list[View] = []
    said: dict[str, tuple[str, float]] = {}
    for views in boards:
        for view in views:
            text = plain_line(view, desk.now())
            before, at = said.get(view.run.id, ("", 0.0))
            at_now = desk.now().timestamp()
            if text != before and (view.run.terminal or at_now - at >= PLAIN_EVERY_S):
                line(desk.out, text)
                said[view.run.id] = (text, at_now)
    return [view.run for view in views]


def plain_line(view: View, now: datetime) -> str:
    """One run on one line."""
    run, tally = view.run, view.run.tally
    parts = [
        f"{run.request.org} {run.request.pipeline} {run.status}",
        f"units {tally.units_published}/{tally.units_total} done",
        f"{view.running} running",
        f"{tally.units_failed} failed",
        f"{count(tally.row_count)} rows",
        f"{count(tally.api_calls)} API calls",
    ]
    if (left := eta(run, now)) is not None:
        parts.append(f"ETA {duration(left)}")
    return ", ".join(parts)


def board(views: Sequence[View], now: datetime) -> Group:
    """All runs at one glance; fits 80 columns."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    drawn.add_column("run", overflow="fold")
    drawn.add_column("", width=10)
    for name in ("done", "running", "failed", "rows", "calls", "ETA"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for view in views:
        drawn.add_row(*_board_row(view, now))
    tallies = [view.run.tally for view in views]
    done, total = sum(t.units_published for t in tallies), sum(t.units_total for t in tallies)
    since = min(view.run.start_time for view in views)
    foot = (
        f"{done}/{total} units, {count(sum(t.row_count for t in tallies))} rows, "
        f"{count(sum(t.api_calls for t in tallies))} API calls, {duration(now - since)}"
        "   Ctrl-C leaves them running"
    )
    return Group(drawn, Text(foot, style="dim"))


def _board_row(view: View, now: datetime) -> list[Text | ProgressBar]:
    run, tally = view.run, view.run.tally
    left = eta(run, now)
    ended = tally.units_published + tally.units_failed
    bar = ProgressBar(total=max(1, tally.units_total), completed=ended, width=10, pulse=not tally.units_total)
    return [
        Text(f"{run.request.org} {run.request.pipeline.split('/')[0]}"),
        bar,
        Text(f"{tally.units_published}/{tally.units_total}"),
        Text(str(view.running)),
        Text(str(tally.units_failed), style="red" if tally.units_failed else ""),
        Text(count(tally.row_count)),
        Text(count(tally.api_calls)),
        state(run.status) if run.terminal else Text(duration(left) if left is not None else ""),
    ]

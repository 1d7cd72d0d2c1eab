"""`manta schedule`: which pipelines run when, and starting what is due; cron calls it every few minutes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from serve.cli.arguments import last_closed_day
from serve.cli.desk import Desk, desk_of
from serve.cli.options import AsJson
from serve.cli.output import FAILED, json_line, line, say_error, table

if TYPE_CHECKING:
    from engine.catalog import Pipeline
    from engine.schedules import Schedule
    from engine.types import RunRequest

#: The API remembers an `Idempotency-Key` for 24 hours: an older tick could be started twice.
MAX_HOURS = 24


@dataclass(frozen=True, slots=True)
class Due:
    """One organisation's run that a tick asks for."""

    pipeline: str
    tick: datetime
    request: RunRequest

    @property
    def key(self) -> str:
        """The occurrence: sent twice it is one run."""
        return f"schedule {self.pipeline} {self.tick.isoformat()}"


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    schedule_app = typer.Typer(no_args_is_help=True, help="Which pipelines run when, and what is due.")
    schedule_app.command("list")(schedule_list)
    schedule_app.command("due")(schedule_due)
    app.add_typer(schedule_app, name="schedule")


def schedule_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List the pipelines with a schedule, and their ticks."""
    desk = desk_of(context)
    rows = []
    for pipeline, schedule in _scheduled(desk):
        last, following = schedule.last_tick(desk.now()), schedule.next_tick(desk.now())
        if as_json:
            facts = {"pipeline": pipeline.path, "cron": schedule.cron, "timezone": schedule.timezone}
            json_line(desk.out, {**facts, "last_tick": last, "next_tick": following})
        rows.append((pipeline.path, schedule.cron, schedule.timezone, _shown(last), _shown(following)))
    if not as_json:
        table(desk.out, ("pipeline", "cron", "timezone", "last tick", "next tick"), rows)


def schedule_due(
    context: typer.Context,
    submit: Annotated[
        bool, typer.Option("--submit", help="Start the runs; otherwise they are shown.")
    ] = False,
    hours: Annotated[int, typer.Option(min=1, max=MAX_HOURS, help="How long ago a tick may be.")] = 6,
    as_json: AsJson = False,
) -> None:
    """Show the runs whose tick has come, or start them.

    Of each pipeline the latest tick within the last hours, for every active organisation that can run it.
    Each covers the last day that was closed at the provider at the tick.

    A tick that was started already is not started again, so cron may call this every few minutes and on two
    machines. Exit code 1 when one was refused.
    """
    desk = desk_of(context)
    found = list(_due(desk, since=desk.now() - timedelta(hours=hours)))
    refused = 0
    for due in found:
        facts = {
            "pipeline": due.pipeline,
            "org_slug": due.request.org,
            "date": due.request.start,
            "tick": due.tick,
        }
        if submit:
            said = _submit(desk, due, as_json=as_json)
            refused += said is None
            facts |= {"state": said or "refused"}
        if as_json:
            json_line(desk.out, facts)
        else:
            state = f", {facts['state']}" if submit else ""
            line(
                desk.out,
                f"{due.request.org} {due.pipeline} {due.request.start}, due {_shown(due.tick)}{state}",
            )
    if not found and not as_json:
        line(desk.out, f"Nothing was due within the last {hours} hours.")
    if refused:
        raise typer.Exit(FAILED)


def _submit(desk: Desk, due: Due, *, as_json: bool) -> str | None:
    from engine.errors import MantaError

    try:
        run, created = desk.runs.submit(due.request, trigger_by="schedule", idempotency_key=due.key)
    except MantaError as error:
        # One tenant's quota or credential must not keep the others from their runs.
        say_error(desk.err, error, as_json=as_json)
        return None
    return f"{'started' if created else 'was started'}: {run.id}"


def _scheduled(desk: Desk) -> Iterator[tuple[Pipeline, Schedule]]:
    for _, pipeline in sorted(desk.work.catalog.pipelines.items()):
        if pipeline.schedule is not None:
            yield pipeline, pipeline.schedule


def _due(desk: Desk, *, since: datetime) -> Iterator[Due]:
    from engine.types import RunRequest

    providers = desk.work.catalog.providers
    holders: dict[str, frozenset[str]] = {}
    for pipeline, schedule in _scheduled(desk):
        tick = schedule.last_tick(desk.now())
        if tick is None or tick < since:
            continue
        provider = providers[pipeline.provider]
        day = last_closed_day(tick, provider.day_timezone)
        for org in desk.work.tenants.active():
            if org.slug not in holders:
                stored = desk.work.tenants.credentials(org.slug)
                holders[org.slug] = frozenset(one.provider for one in stored if one.is_active)
            if not provider.needs_credential or provider.name in holders[org.slug]:
                yield Due(pipeline.path, tick, RunRequest(org.slug, pipeline.path, day, day))


def _shown(tick: datetime | None) -> str:
    return tick.isoformat(timespec="minutes") if tick else "never"

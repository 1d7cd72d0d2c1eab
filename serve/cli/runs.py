"""Runs: start, follow, list, show, cancel, try again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import NotFoundError, UsageError
from serve.cli import arguments, progress, summary, timeline
from serve.cli.desk import Desk, desk_of
from serve.cli.options import AsJson
from serve.cli.output import SUCCEEDED, days, duration, json_line, line, state, table

if TYPE_CHECKING:
    from engine.runs import Run
    from engine.types import RunRequest

OrgOption = Annotated[str | None, typer.Option("--org", help="The run's organisation, where you know it.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]


class PolicyName(StrEnum):
    """Which days of a range a run takes."""

    MISSING = "missing"
    FAILED = "failed"
    ALL = "all"


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("run")(run)
    app.command("runs")(runs)
    app.command("show")(show)
    app.command("cancel")(cancel)
    app.command("retry")(retry)


def run(
    context: typer.Context,
    org: Annotated[str, typer.Argument(metavar="ORG", help="The organisation's slug.")],
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="Such as openai/cost/usage_cost.")],
    date: Annotated[
        str | None, typer.Option(help="One day, YYYY-MM-DD; default the last closed day.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="First day of a range.")] = None,
    end: Annotated[str | None, typer.Option(help="Last day of a range; default the last closed day.")] = None,
    policy: Annotated[
        PolicyName, typer.Option(help="missing: what lacks or may have changed; failed; all.")
    ] = PolicyName.MISSING,
    var: Annotated[
        list[str] | None, typer.Option(help="A pipeline variable, name=value; repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")] = False,
    discover: Annotated[
        bool, typer.Option("--discover", help="With --dry-run: ask the source what changed.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start it and do not wait for its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline for one organisation.

    Pulls, prices, checks and publishes its days.

    Follows the run to its end; Ctrl-C only stops following. Exit code 0 when everything was published, 1 when
    something failed, 2 for a request that is refused.
    """
    desk = desk_of(context)
    request = _request(desk, org, pipeline, date=date, start=start, end=end, policy=policy, pairs=var or [])
    if discover and not dry_run:
        fix = "Add --dry-run, or leave --discover out: a run asks by itself."
        raise UsageError("--discover goes with --dry-run.", fix=fix, field="discover")
    if dry_run:
        discovered = desk.runs.discover(request) if discover else None
        plan = desk.work.plan(request, now=desk.now(), discovered=discovered)
        summary.show_plan(desk, plan, as_json=as_json)
        return
    raise typer.Exit(start_and_follow(desk, [request], as_json=as_json, detach=detach))


def _request(
    desk: Desk,
    org: str,
    pipeline: str,
    *,
    date: str | None,
    start: str | None,
    end: str | None,
    policy: PolicyName,
    pairs: Sequence[str],
) -> RunRequest:
    from engine.plan import check_range
    from engine.types import RunRequest

    known = desk.work.catalog.pipeline(pipeline)
    closed = desk.work.last_closed_day(pipeline, now=desk.now())
    first, last = arguments.day_range(date, start, end, closed=closed)
    check_range(first, last, today=desk.work.today(known, now=desk.now()))
    given = arguments.variables(pairs, known=known.variables, pipeline=pipeline)
    return RunRequest(org, pipeline, first, last, policy=policy.value, variables=given)


def start_and_follow(
    desk: Desk, requests: Sequence[RunRequest], *, as_json: bool = False, detach: bool = False
) -> int:
    """Submit all requests, follow them together, say how they ended, and answer the exit code."""
    accepted = [_submit(desk, request, as_json=as_json) for request in requests]
    if detach:
        _say_detached(desk, accepted, as_json=as_json)
        return SUCCEEDED
    ended = follow_all(desk, accepted, as_json=as_json)
    if ended is None:
        return SUCCEEDED
    for one in ended:
        summary.show_end(desk, one, desk.work.history, as_json=as_json)
    return summary.code_of(ended)


def _submit(desk: Desk, request: RunRequest, *, as_json: bool) -> Run:
    accepted, created = desk.runs.submit(request, trigger_by=desk.who)
    if as_json:
        json_line(desk.out, {"event": "submitted", "created": created, **summary.run_facts(accepted)})
    elif not created:
        line(desk.out, f"The same request is under way already: following run {accepted.id}.")
    return accepted


def follow_all(desk: Desk, accepted: Sequence[Run], *, as_json: bool) -> list[Run] | None:
    """The runs at their end; None when Ctrl-C left them running."""

    def on_record(seen: Run) -> Run | None:
        return desk.work.history.get(seen.request.org, seen.id)

    try:
        return progress.show(desk, progress.follow(desk, accepted, on_record=on_record), as_json=as_json)
    except KeyboardInterrupt:
        _say_detached(desk, accepted, as_json=as_json)
        return None


def _say_detached(desk: Desk, accepted: Sequence[Run], *, as_json: bool) -> None:
    for one in accepted:
        if as_json:
            json_line(desk.out, {"event": "detached", "run_id": one.id, "org_slug": one.request.org})
            continue
        line(desk.out, f"Run {one.id} goes on without this terminal.")
        line(desk.out, f"  follow it: manta show {one.id} --follow")
        line(desk.out, f"  cancel it: manta cancel {one.id}")


def runs(
    context: typer.Context,
    org: Annotated[str, typer.Argument(metavar="ORG", help="The organisation's slug.")],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List an organisation's runs, newest first."""
    desk = desk_of(context)
    desk.work.tenants.get(org)
    found = desk.work.history.latest(org, limit=limit)
    if as_json:
        for one in found:
            json_line(desk.out, summary.run_facts(one))
        return
    if not found:
        line(desk.out, f"{org} has no runs yet. Start one: manta run {org} PIPELINE")
        return
    rows = [
        (
            one.id,
            one.request.pipeline.split("/")[0],
            days(one.request.start, one.request.end),
            state(one.status),
            f"{one.tally.units_published}/{one.tally.units_total}",
            duration((one.end_time or desk.now()) - one.start_time),
        )
        for one in found
    ]
    table(desk.out, ("run", "provider", "days", "status", "units", "time"), rows, right=("units", "time"))


def show(
    context: typer.Context,
    run_id: RunId,
    org: OrgOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="Follow it to its end first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a run day by day.

    Its days, attempts, errors and fixes, findings, and where the time went.
    """
    desk = desk_of(context)
    found = find(desk, run_id, org=org)
    if follow and not progress.has_ended(found):
        ended = follow_all(desk, [found], as_json=as_json)
        if ended is None:
            return
        found = ended[0]
    timeline.show(desk, found, desk.work.history, as_json=as_json)


def find(desk: Desk, run_id: str, *, org: str | None) -> Run:
    """The run with this id, in `org` or wherever it is. Raises NotFoundError."""
    history = desk.work.history
    if org is not None:
        desk.work.tenants.get(org)
        if (found := history.get(org, run_id)) is None:
            raise NotFoundError(f"{org} has no run {run_id!r}.", fix=f"See manta runs {org}.", field="run_id")
        return found
    if (found := history.find(run_id)) is not None:
        return found
    raise NotFoundError(f"There is no run {run_id!r}.", fix="List them: manta runs ORG", field="run_id")


def cancel(context: typer.Context, run_id: RunId, org: OrgOption = None, as_json: AsJson = False) -> None:
    """Stop a run.

    What it has published stays; open load jobs are ended, and what won is recorded.
    """
    desk = desk_of(context)
    found = find(desk, run_id, org=org)
    cancelled = desk.runs.cancel(found.request.org, run_id)
    if as_json:
        json_line(desk.out, summary.run_facts(cancelled))
        return
    line(desk.out, f"Run {run_id} is being cancelled; see how it ends: manta show {run_id} --follow")


def retry(
    context: typer.Context,
    run_id: RunId,
    org: OrgOption = None,
    detach: Annotated[bool, typer.Option("--detach", help="Start it and do not wait for its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run again what failed in a run's range."""
    desk = desk_of(context)
    found = find(desk, run_id, org=org)
    if not found.terminal:
        raise UsageError(
            f"Run {run_id} has not ended: {found.status}.",
            fix=f"Wait for it: manta show {run_id} --follow",
            field="run_id",
        )
    request = replace(found.request, policy="failed")
    raise typer.Exit(start_and_follow(desk, [request], as_json=as_json, detach=detach))

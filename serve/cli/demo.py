"""`manta demo`: five organisations, fourteen days, every kind of source, all on this machine and made up."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import InternalError
from serve.cli import cost, local, runs, stack, summary
from serve.cli.desk import Desk, desk_of
from serve.cli.output import count, duration, line, size, state, table

if TYPE_CHECKING:
    from engine.runs import Run
    from engine.saas.plans import SaasPlan
    from engine.saas.versions import PlanBook
    from engine.types import RunRequest

ORGS = (
    ("acme_corp", "Acme Corporation"),
    ("blue_harbor", "Blue Harbor Shipping"),
    ("cobalt_labs", "Cobalt Labs"),
    ("delta_retail", "Delta Retail"),
    ("evergreen", "Evergreen Energy"),
)
KEYS = {"openai": "sk-admin-sandbox-{org}", "anthropic": "sk-ant-admin-sandbox-{org}"}
#: Keys of the sandbox's other APIs, which `--all` asks as well.
MORE_KEYS = {"github": "ghp_sandbox_{name}", "digitalocean": "dop_v1_sandbox"}
PIPELINES = (
    "anthropic/usage_cost",
    "gcp/cost/billing",
    "openai/cost/usage_cost",
    "saas_subscription/costs/saas_cost",
)
CUSTOMER_WITHIN_S = 300
#: Everything that could lead to real data is fixed, whatever the environment and the files say.
FIXED = {
    "BIGQUERY_PROJECT": "local",
    "BIGQUERY_LOCATION": "US",
    "DATASET_SUFFIX": "local",
    "META_DATASET": "organizations",
    "GOOGLE_CREDENTIALS": "anonymous",
    "TRANSPORT": "plaintext",
    "KEY_STORE": "file",
}
TOP_MODELS = 2


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("demo")(demo)


def demo(
    context: typer.Context,
    down: Annotated[bool, typer.Option("--down", help="Stop the demo's processes; its data stays.")] = False,
    days: Annotated[int, typer.Option(min=1, max=31, help="Closed days to load.")] = 14,
    orgs: Annotated[int, typer.Option(min=1, max=50, help="Organisations.")] = 5,
    every: Annotated[bool, typer.Option("--all", help="Every shipped pipeline, the small APIs too.")] = False,
) -> None:
    """See everything at work on made-up data.

    OpenAI, Anthropic, a Google Cloud billing export and SaaS subscriptions. A provider sandbox, an embedded
    BigQuery and Ray, with a data folder and ports of their own: real data never mixes with it. The stack
    stays up; the second time it is joined and there is nothing to do.
    """
    outer = desk_of(context)
    desk = own_desk(outer)
    if down:
        local.stop(desk)
        return
    began = desk.now()
    line(
        desk.out,
        f"Manta demo: {summary.counted(orgs, 'organisation')}, {summary.counted(days, 'day')}; "
        f"data in {desk.settings.home}",
    )
    desk, _ = stack.start(desk, ports=stack.FREE, cpus=None, keep=FIXED, sandbox=True)
    stop_the_sandbox_clock(desk)
    stack.prepare(desk)
    slugs = add_orgs(desk, orgs, days=days, every=every)
    requests = requests_of(desk, slugs, days=days, every=every)
    line(desk.out, f"  {len(requests)} runs submitted to the supervisor; following them together")
    accepted = [desk.runs.submit(request, trigger_by="demo")[0] for request in requests]
    ended = runs.follow_all(desk, accepted, as_json=False)
    if ended is None:
        return
    report(desk, slugs, ended, took=desk.now() - began, prefix=shell_prefix(outer, desk.settings.home))
    raise typer.Exit(summary.code_of(ended))


def stop_the_sandbox_clock(desk: Desk) -> None:
    """Let it be midnight all day at the sandbox: its late usage would otherwise change days between demos."""
    import httpx

    midnight = desk.now().replace(hour=0, minute=0, second=0, microsecond=0)
    clock = httpx.URL(desk.settings.anthropic_base_url).join("/_sandbox/clock")
    httpx.put(clock, json={"now": midnight.isoformat()}, trust_env=False).raise_for_status()


def own_desk(desk: Desk) -> Desk:
    """The desk with the demo's own home and nothing of the settings around it."""
    from engine.settings import Settings, variable

    settings = {variable(name) for name in Settings.model_fields} - {"MANTA_ROOT"}
    kept = {name: value for name, value in desk.environ.items() if name not in settings}
    # The addresses are in the demo's stack.env, which only the fixed ones may not override.
    return desk.at({**kept, **FIXED, "MANTA_ENV": "local", "MANTA_HOME": str(home_of(desk))})


def home_of(desk: Desk) -> Path:
    """MANTA_DEMO_HOME, else .demo in the checkout, else ~/.manta-demo where Manta is installed as a wheel."""
    if given := desk.environ.get("MANTA_DEMO_HOME"):
        return Path(given).expanduser().absolute()
    root = Path(desk.environ.get("MANTA_ROOT") or Path(__file__).resolve().parents[2])
    return root.absolute() / ".demo" if (root / "pyproject.toml").is_file() else Path.home() / ".manta-demo"


def add_orgs(desk: Desk, number: int, *, days: int, every: bool) -> list[str]:
    """The demo's organisations with keys, a billing export and SaaS plans; what is there stays."""
    more = [(f"org_{n:02}", f"Organisation {n}") for n in range(len(ORGS) + 1, number + 1)]
    chosen = [*ORGS, *more][:number]
    there = {org.slug for org in desk.work.tenants.active()}
    for slug, name in chosen:
        if slug in there:
            continue
        desk.work.tenants.add(slug, name=name, admin_email=f"admin@{slug.replace('_', '-')}.example")
        # So that whoever tries things out meets no limit.
        desk.work.subscriptions.set_quota(slug, daily=None, monthly=None, concurrent=None)
    for slug, _ in chosen:
        stored = _stored(desk, slug)
        for provider, key in {**KEYS, **(MORE_KEYS if every else {})}.items():
            if provider not in stored:
                desk.work.tenants.add_credential(
                    slug, provider, key.format(org=slug, name=slug.replace("_", "-")), name="sandbox"
                )
    slugs = [slug for slug, _ in chosen]
    # The service account comes last: an organisation that has it has everything.
    if lacking := [slug for slug in slugs if "gcp" not in _stored(desk, slug)]:
        _furnish(desk, lacking, days=days)
    return slugs


def _stored(desk: Desk, slug: str) -> set[str]:
    return {found.provider for found in desk.work.tenants.credentials(slug) if found.is_active}


def _furnish(desk: Desk, slugs: Sequence[str], *, days: int) -> None:
    """Give organisations a billing export, the key to it, and SaaS plans, as the sandbox makes them up."""
    from cluster import processes
    from engine.saas.csv_file import read_plans

    line(desk.out, f"  {summary.counted(len(slugs), 'billing export')} and as many lists of SaaS plans")
    rest = str(desk.settings.bigquery_emulator_host)
    command = processes.module("sandbox.customer", "--rest", rest, "--days", str(days), *slugs)
    made = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=CUSTOMER_WITHIN_S,
        env=processes.environment(),
        check=False,
    )
    if made.returncode:
        raise InternalError(
            f"The sandbox could not make up a billing export: {made.stderr.strip().splitlines()[-1:]}",
            fix="Run `manta demo --down`, then the demo again.",
        )
    for one in map(json.loads, made.stdout.splitlines()):
        slug, plans = one["org_slug"], read_plans(one["saas_plans"], name="demo").plans
        desk.work.saas_plans(slug).change(partial(_news, plans), by="demo")
        desk.work.tenants.add_credential(slug, "gcp", one["gcp"], name="sandbox")


def _news(plans: Sequence[SaasPlan], book: PlanBook) -> tuple[SaasPlan, ...]:
    return book.news(plans)


def requests_of(desk: Desk, slugs: Sequence[str], *, days: int, every: bool) -> list[RunRequest]:
    """One run per organisation and pipeline over the last closed days."""
    from engine.types import RunRequest

    wanted = []
    for slug in slugs:
        for path in sorted(desk.work.catalog.pipelines) if every else PIPELINES:
            last = desk.work.last_closed_day(path, now=desk.now())
            wanted.append(RunRequest(slug, path, last - timedelta(days=days - 1), last))
    return wanted


def report(desk: Desk, slugs: Sequence[str], ended: Sequence[Run], *, took: timedelta, prefix: str) -> None:
    """What was loaded, what it cost, how to ask for it again, and what to do next."""
    since = min(run.request.start for run in ended)
    until = max(run.request.end for run in ended)
    line(desk.out)
    _runs(desk, ended)
    spent = cost.spent(desk, slugs, since=since, until=until, by=cost.By.MODEL)
    cost.show(desk, spent, since=since, until=until, by=cost.By.MODEL, top=TOP_MODELS)
    _numbers(desk, ended, took=took)
    line(desk.out)
    line(desk.out, "The same question as SQL, to paste:", style="bold")
    line(desk.out, f"  {command(prefix, 'query', slugs[0], question(since, until))}")
    line(desk.out)
    line(desk.out, f"Ray dashboard  {desk.settings.ray_dashboard}", style="bold")
    line(desk.out, f"  its token    {command(prefix, 'status', '--token')}")
    line(desk.out, "Next, with a real key (none of this data comes along):", style="bold")
    line(desk.out, f"  {program()} up")
    line(desk.out, f"  {program()} init")
    line(desk.out, f"Stop the demo  {program()} demo --down", style="bold")


def _runs(desk: Desk, ended: Sequence[Run]) -> None:
    rows = [
        (
            run.request.org,
            run.request.pipeline,
            state(run.status),
            f"{run.tally.units_published}/{run.tally.units_total}",
            count(run.tally.row_count),
            count(run.tally.api_calls),
            count(run.tally.load_jobs),
        )
        for run in ended
    ]
    columns = ("organisation", "pipeline", "status", "units", "rows", "calls", "loads")
    table(desk.out, columns, rows, right=("units", "rows", "calls", "loads"))
    for run in ended:
        if run.tally.units_failed or run.error_message:
            transitions = desk.work.history.transitions(run.request.org, run.id)
            summary.show_failures(desk, summary.failures(transitions))


def _numbers(desk: Desk, ended: Sequence[Run], *, took: timedelta) -> None:
    tallies = [run.tally for run in ended]
    loads = sum(tally.load_jobs for tally in tallies)
    if all(run.status == "SUCCESS" for run in ended) and not loads:
        line(desk.out, "Nothing to do: every day was there already and none has changed.", style="bold")
    working = _span([run.start_time for run in ended], [run.end_time for run in ended if run.end_time])
    line(
        desk.out,
        f"{summary.counted(sum(t.row_count for t in tallies), 'row')}, "
        f"{summary.counted(sum(t.api_calls for t in tallies), 'API call')}, "
        f"{size(sum(t.api_bytes for t in tallies))} read, {summary.counted(loads, 'load job')}, "
        f"{duration(working)} of runs, {duration(took)} in all",
    )


def _span(starts: Sequence[datetime], ends: Sequence[datetime]) -> timedelta:
    return max(ends, default=max(starts)) - min(starts)


def question(since: date, until: date) -> str:
    """What one organisation was charged, over all providers, as SQL on the FOCUS view."""
    return (
        "SELECT ServiceName, ChargeCategory, BillingCurrency, SUM(BilledCost) AS billed FROM "
        f"cost_data_standard_1_3 WHERE x_UsageDate BETWEEN '{since}' AND '{until}' "
        "GROUP BY ServiceName, ChargeCategory, BillingCurrency ORDER BY billed DESC"
    )


def shell_prefix(outer: Desk, home: Path) -> str:
    """What a pasted command line begins with, so that it meets the demo whatever the shell around it says."""
    wanted = {"MANTA_ENV": "local", **FIXED}
    words = [f"MANTA_HOME={shlex.quote(str(home))}"]
    words += [f"{name}={value}" for name, value in wanted.items() if outer.environ.get(name, value) != value]
    return " ".join([*words, program()])


def command(prefix: str, *arguments: str) -> str:
    """A complete command line on the demo's data, to paste into a shell."""
    return " ".join([prefix, *(_quoted(argument) for argument in arguments)])


def _quoted(argument: str) -> str:
    """Double quotes where they do: SQL has single ones inside."""
    if not any(sign in argument for sign in '"$`\\!'):
        return f'"{argument}"' if shlex.quote(argument) != argument else argument
    return shlex.quote(argument)


def program() -> str:
    """How `manta` is called from here."""
    path = Path(sys.executable).with_name("manta")
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)

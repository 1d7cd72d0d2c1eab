"""From a request to a plan: which units a run has, what it skips and why. Reads no clock and no warehouse."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from math import ceil

from engine.catalog import Pipeline, Provider
from engine.errors import UsageError
from engine.ledger import LedgerView
from engine.types import Discovery, Partition, Plan, RunRequest, Unit

MAX_RANGE_DAYS = 5 * 366
ONE_DAY = timedelta(days=1)


def days_between(start: date, end: date) -> tuple[date, ...]:
    """Every day from `start` to `end`, both included."""
    return tuple(start + timedelta(days=n) for n in range((end - start).days + 1))


def request_key(request: RunRequest, *, plan_id: str = "") -> str:
    """The idempotency key of a request: two equal requests have the same, in any process.

    SHA-256 in hexadecimal over organisation, pipeline, dates, policy, variables and plan id.
    """
    facts = [
        request.org,
        request.pipeline,
        request.start.isoformat(),
        request.end.isoformat(),
        request.policy,
        dict(sorted(request.variables.items())),
        plan_id,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def check_range(start: date, end: date, *, today: date) -> None:
    """Refuse a range that cannot be meant.

    `today` is the provider's current day. Raises UsageError naming the field.
    """
    if end < start:
        raise UsageError(
            f"The end {end} lies before the start {start}.", fix="Swap --start and --end.", field="end_date"
        )
    if end > today:
        raise UsageError(
            f"{end} is in the future: the provider's current day is {today}.",
            fix=f"Use {today - ONE_DAY} or an earlier day.",
            field="end_date",
        )
    if (end - start).days >= MAX_RANGE_DAYS:
        raise UsageError(
            f"{start}..{end} is {(end - start).days + 1} days; a run takes {MAX_RANGE_DAYS} (5 years).",
            fix="Split the range into several runs.",
            field="start_date",
        )


def plan(
    request: RunRequest,
    pipeline: Pipeline,
    ledger: LedgerView,
    *,
    provider: Provider,
    today: date,
    credentials: int = 1,
    discovered: Discovery | None = None,
) -> Plan:
    """Cut a request into units of consecutive days.

    `today` is the current day in the provider's `day_timezone`: that day is open, so it is published as
    provisional and asked again until it has closed. `credentials` is the number of active credentials,
    each of which costs its own API calls. `discovered` is what the pipeline's discover step found: days that
    it names are read again, also those outside the range that are published. Raises UsageError for an
    impossible range.
    """
    check_range(request.start, request.end, today=today)
    tables = [output.table for output in pipeline.outputs]
    touched = discovered.days if discovered and request.policy == "missing" else frozenset()
    days = sorted({*days_between(request.start, request.end), *_published(touched, tables, ledger, request)})
    window = today - timedelta(days=pipeline.partition.restatement_days)
    skipped: dict[Partition, str] = {}
    chosen: list[date] = []
    for day in days:
        parts = [Partition(request.org, table, day) for table in tables]
        again = day >= window or day in touched
        reason = _reason_to_skip(parts, ledger, policy=request.policy, restated=again)
        if reason is None:
            chosen.append(day)
        else:
            skipped.update(dict.fromkeys(parts, reason))
    # Without outputs there is nothing to publish by day: the run has steps of scope run alone.
    units = tuple(
        Unit(request.org, request.pipeline, stretch)
        for stretch in _stretches(chosen if tables else (), longest=pipeline.partition.max_days_per_unit)
    )
    calls = sum(ceil(len(unit.days) / provider.days_per_call) for unit in units)
    each = pipeline.partition.calls_per_window or provider.calls_per_window
    provisional = frozenset(day for day in chosen if day >= today)
    return Plan(
        id=_plan_id(request, units, provisional, ledger, tables),
        request=request,
        units=units,
        skipped=skipped,
        provisional=provisional,
        api_calls=calls * each * credentials,
        # Per table one load: one day into its partition, several into staging (the swap is a query job).
        load_jobs=len(tables) * len(units),
        estimate=pipeline.discover is not None and discovered is None,
    )


def _published(
    days: frozenset[date], tables: list[str], ledger: LedgerView, request: RunRequest
) -> Iterator[date]:
    """Those of `days` that every table holds: what was never asked for stays unasked."""
    for day in days:
        if all(Partition(request.org, table, day) in ledger.published for table in tables):
            yield day


def _reason_to_skip(parts: list[Partition], ledger: LedgerView, *, policy: str, restated: bool) -> str | None:
    if policy == "all":
        return None
    if policy == "failed":
        return None if any(part in ledger.failed for part in parts) else "did not fail"
    published = [ledger.published.get(part) for part in parts]
    if any(found is None or found.provisional for found in published):
        return None
    return None if restated else "already published"


def _stretches(days: Iterable[date], *, longest: int) -> Iterator[tuple[date, ...]]:
    """Runs of consecutive days, none longer than `longest`."""
    stretch: list[date] = []
    for day in days:
        if stretch and (day - stretch[-1] != ONE_DAY or len(stretch) == longest):
            yield tuple(stretch)
            stretch = []
        stretch.append(day)
    if stretch:
        yield tuple(stretch)


def _plan_id(
    request: RunRequest,
    units: tuple[Unit, ...],
    provisional: frozenset[date],
    ledger: LedgerView,
    tables: list[str],
) -> str:
    """Hash of the units and of what the ledger said about them, so a plan that went stale is noticed."""
    seen = [
        (part.table, part.day.isoformat(), found.table_version, found.content_hash)
        for part, found in sorted(ledger.published.items(), key=lambda kv: (kv[0].table, kv[0].day))
        if part.table in tables
    ]
    opened = sorted(day.isoformat() for day in provisional)
    facts = [request_key(request), [str(unit) for unit in units], opened, seen]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

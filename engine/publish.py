"""Publishing: exactly once, whoever is killed when. The table version is the fence, its job id the lock."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import pyarrow as pa

from engine.artifacts import Artifacts, parquet
from engine.checks import Check, audit
from engine.errors import InternalError, TransientError
from engine.jobs import JobExists, JobState
from engine.ledger import Entry, Head, Intent, Ledger, Target
from engine.moves import INTENT_LABEL, Nothing, Record, Submit, Wait, Wish, next_move
from engine.parts import Part, split
from engine.schemas import Schema
from engine.staging import Staging, swap_statement
from engine.types import Partition, Publication, Unit
from engine.warehouse import Warehouse

#: Where a publisher may be killed. `staged` and `dropped` come only when several dates change.
SYNC_POINTS = (
    "audited",
    "head_read",
    "stored",
    "intended",
    "staged",
    "submitted",
    "done",
    "recorded",
    "dropped",
)
#: Other publishers of one table that may come before us; in each round one of them has made progress.
MAX_ROUNDS = 40
#: Failed jobs of our own within one call.
MAX_FAILURES = 5
JOB_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class _Publisher:
    """One call's surroundings, the same for all tables of the unit."""

    unit: Unit
    run_id: str
    attempt: int
    warehouse: Warehouse
    ledger: Ledger
    artifacts: Artifacts
    now: Callable[[], datetime]
    at: Callable[[str], None]
    new_id: Callable[[], str]


def publish(
    unit: Unit,
    tables: Mapping[str, pa.Table],
    *,
    schemas: Mapping[str, Schema],
    checks: Mapping[str, tuple[Check, ...]],
    run_id: str,
    attempt: int,
    provisional: frozenset[date],
    warehouse: Warehouse,
    ledger: Ledger,
    artifacts: Artifacts,
    now: Callable[[], datetime],
    at: Callable[[str], None] = lambda _: None,
    new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
) -> tuple[Publication, ...]:
    """Make the unit's days hold exactly these rows, table by table; a day without rows becomes known empty.

    All tables are audited before the first is touched. Raises AuditError with nothing published,
    TransientError when the warehouse stays away or the table too busy: the same call again finishes the work.
    """
    if missing := [name for name in tables if name not in schemas]:
        raise InternalError(f"No schema for {', '.join(missing)}.", fix="Add the schema files.")
    parts: dict[str, tuple[Part, ...]] = {}
    for name, table in tables.items():
        audited = audit(table, schemas[name], checks.get(name, ()), unit)
        parts[name] = split(audited, schemas[name], unit.days, provisional)
    at("audited")
    publisher = _Publisher(unit, run_id, attempt, warehouse, ledger, artifacts, now, at, new_id)
    published: list[Publication] = []
    for name in tables:
        warehouse.ensure_table(schemas[name])
        published += _publish_table(publisher, schemas[name], parts[name])
    return tuple(published)


def _publish_table(p: _Publisher, schema: Schema, parts: tuple[Part, ...]) -> list[Publication]:
    staging = Staging(p.warehouse, schema, now=p.now)
    found = _until_all_stands(p, schema, parts, staging)
    # Not in a finally: with the warehouse away it would only wait once more, and the table expires by itself.
    if staging.drop():
        p.at("dropped")
    return found


def _until_all_stands(
    p: _Publisher, schema: Schema, parts: tuple[Part, ...], staging: Staging
) -> list[Publication]:
    target = Target(p.unit.org, p.warehouse.dataset, schema.table)
    wishes = [Wish(part.day, part.content_hash, part.provisional) for part in parts]
    adopted: set[int] = set()
    failures = 0
    for _ in range(MAX_ROUNDS):
        head = p.ledger.head(target, p.unit.days)
        p.at("head_read")
        match _settled_move(p, target, head, wishes):
            case Record() as settled:
                _record(p, target, settled)
                adopted.add(settled.intent.version)
            case Nothing():
                return [_standing(target, head, part, adopted) for part in parts]
            case Submit() as move:
                changed = tuple(part for part in parts if part.day in move.days)
                intent = _intend(p, target, schema, changed, move)
                state = _carry_out(p, schema, changed, intent, staging)
                if state is None:
                    continue  # another writer holds the id: the next head shows both intents
                _record(p, target, Record(intent, head.open, state.error))
                if state.error is None:
                    return [
                        _loaded(target, intent, part)
                        if part.day in move.days
                        else _standing(target, head, part, adopted)
                        for part in parts
                    ]
                failures += 1
                if failures >= MAX_FAILURES or not isinstance(state.error, TransientError):
                    raise state.error
                p.warehouse.patience.pause(failures)
    raise TransientError(
        f"Table {target.dataset}.{target.table} was published by others {MAX_ROUNDS} times meanwhile.",
        fix="Try again when they are done.",
    )


def _settled_move(
    p: _Publisher, target: Target, head: Head, wishes: Sequence[Wish]
) -> Record | Submit | Nothing:
    """The next move once nobody's job is running at the next version."""
    job = p.warehouse.job(target.job_id(head.version + 1, head.attempt)) if head.open else None
    move = next_move(head, job, wishes)
    while isinstance(move, Wait):
        move = next_move(head, p.warehouse.wait(move.job_id, timeout_s=JOB_TIMEOUT_S), wishes)
    return move


def _intend(p: _Publisher, target: Target, schema: Schema, changed: Sequence[Part], move: Submit) -> Intent:
    """Store the artifacts, then say in the ledger what is about to happen."""
    entries = []
    for part in changed:
        uri = p.artifacts.uri(target.dataset, target.table, part.day, part.content_hash)
        p.artifacts.store(uri, parquet(part.table))
        entries.append(Entry(part.day, part.content_hash, part.table.num_rows, part.provisional, uri))
    p.at("stored")
    intent = Intent(
        id=p.new_id(),
        version=move.version,
        attempt=move.attempt,
        job_id=target.job_id(move.version, move.attempt),
        run_id=p.run_id,
        pipeline=p.unit.pipeline,
        schema_version=schema.version,
        entries=tuple(entries),
    )
    p.ledger.intend(target, intent, now=p.now())
    p.at("intended")
    return intent


def _carry_out(
    p: _Publisher, schema: Schema, changed: Sequence[Part], intent: Intent, staging: Staging
) -> JobState | None:
    """Run the intent's job to DONE; None when the id turned out to be another writer's."""
    labels = {INTENT_LABEL: intent.id, "manta-run": p.run_id, "manta-attempt": str(p.attempt)}
    if len(changed) == 1:
        return _load(p, schema, changed[0], intent, labels)
    staging.hold(changed, intent_id=intent.id, labels=labels)
    p.at("staged")
    return _swap(p, schema, changed, intent, labels, staging.table)


def _load(
    p: _Publisher, schema: Schema, part: Part, intent: Intent, labels: Mapping[str, str]
) -> JobState | None:
    return _to_done(
        p,
        intent,
        lambda: p.warehouse.load(
            parquet(part.table),
            destination=f"{schema.table}${part.day:%Y%m%d}",
            schema=schema,
            job_id=intent.job_id,
            labels=labels,
        ),
    )


def _swap(
    p: _Publisher,
    schema: Schema,
    changed: Sequence[Part],
    intent: Intent,
    labels: Mapping[str, str],
    staging: str,
) -> JobState | None:
    days = [part.day for part in changed]
    return _to_done(
        p,
        intent,
        lambda: p.warehouse.submit(
            swap_statement(schema, staging),
            {"days": days, "first_day": min(days), "last_day": max(days)},
            job_id=intent.job_id,
            labels=labels,
        ),
    )


def _to_done(p: _Publisher, intent: Intent, submit: Callable[[], JobState]) -> JobState | None:
    """Submit and wait for DONE; None when the id is a rival's (after a lost answer it may be our own)."""
    try:
        state = submit()
    except JobExists:
        found = p.warehouse.job(intent.job_id)
        if found is None or found.labels.get(INTENT_LABEL) != intent.id:
            return None
        state = found
    p.at("submitted")
    if not state.done:
        state = p.warehouse.wait(intent.job_id, timeout_s=JOB_TIMEOUT_S)
    p.at("done")
    return state


def _record(p: _Publisher, target: Target, settled: Record) -> None:
    if settled.error is None:
        p.ledger.commit(target, settled.intent, settled.lost, now=p.now())
    else:
        p.ledger.fail(target, settled.intent, settled.lost, error=settled.error.message, now=p.now())
    p.at("recorded")


def _loaded(target: Target, intent: Intent, part: Part) -> Publication:
    return Publication(
        partition=Partition(target.org, target.table, part.day),
        table_version=intent.version,
        content_hash=part.content_hash,
        rows=part.table.num_rows,
        job_id=intent.job_id,
        how="loaded",
    )


def _standing(target: Target, head: Head, part: Part, adopted: set[int]) -> Publication:
    """A day that needed no job of this call: it stood, or another's job that we recorded had made it."""
    there = head.published[part.day]
    return Publication(
        partition=Partition(target.org, target.table, part.day),
        table_version=there.table_version,
        content_hash=there.content_hash,
        rows=there.rows,
        job_id=there.job_id,
        how="adopted" if there.table_version in adopted else "unchanged",
    )

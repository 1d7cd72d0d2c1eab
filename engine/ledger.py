"""The ledger: which partition holds what, from which run. Append-only; versions decide, never clocks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any

from engine.central import Central
from engine.errors import InternalError
from engine.types import Partition

TABLE = "org_meta_partitions"
#: Stands for the content of a day whose dataset was dropped; no content has this hash.
NOTHING = "v1:dropped"


class State(StrEnum):
    """What a ledger row says about its partition."""

    INTENT = "INTENT"  #: about to be published by the job that is named
    COMMITTED = "COMMITTED"  #: the job is DONE without error: the partition holds this content
    FAILED = "FAILED"  #: the job is DONE with an error; its id is burnt
    SUPERSEDED = "SUPERSEDED"  #: another writer's job won the id


@dataclass(frozen=True, slots=True)
class Target:
    """One table of one organisation: what a version number counts."""

    org: str
    dataset: str
    table: str

    def job_id(self, version: int, attempt: int) -> str:
        """The id that is the lock of this version: it holds no date and no content."""
        digest = hashlib.sha256(f"{self.dataset}.{self.table}".encode()).hexdigest()[:16]
        return f"manta-{digest}-v{version}-a{attempt}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One date of an intent. `rows` zero is known to be empty."""

    day: date
    content_hash: str
    rows: int
    provisional: bool
    artifact_uri: str


@dataclass(frozen=True, slots=True)
class Intent:
    """One writer's wish for one (version, attempt); `id` is the label on the job that carries it out."""

    id: str
    version: int
    attempt: int
    job_id: str
    run_id: str
    pipeline: str
    schema_version: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """A partition as the ledger last committed it."""

    day: date
    table_version: int
    content_hash: str
    rows: int
    provisional: bool
    run_id: str
    job_id: str
    artifact_uri: str


@dataclass(frozen=True)
class LedgerView:
    """What is published, read once for the planner; `failed` had a failure after their last commit."""

    published: Mapping[Partition, Published]
    failed: frozenset[Partition]


@dataclass(frozen=True, slots=True)
class Head:
    """Where a table stands, and what stands open at the next version.

    `doubtful` days had a job that failed after their last commit: what they hold is not certain (a killed
    embedded server may have applied a job that it then reports as stopped), so their hash proves nothing.
    """

    version: int
    attempt: int
    open: tuple[Intent, ...]
    published: Mapping[date, Published]
    doubtful: frozenset[date]


class Ledger:
    """Reads and appends the ledger of all organisations."""

    def __init__(self, central: Central) -> None:
        self._central = central

    def view(self, org: str, dataset: str, tables: Sequence[str], start: date, end: date) -> LedgerView:
        """Read what is published from `start` to `end`, both included."""
        if not tables:
            return LedgerView({}, frozenset())
        rows = self._central.query(
            statement("ledger_view"),
            {"dataset": dataset, "tables": tuple(tables), "first_day": start, "last_day": end},
            org=org,
            purpose="ledger-view",
        ).to_pylist()
        published = {
            Partition(org, row["table_name"], row["day"]): _published(row)
            for row in rows
            if row["state"] == State.COMMITTED
        }
        failed = {
            Partition(org, row["table_name"], row["day"]): row["table_version"]
            for row in rows
            if row["state"] == State.FAILED
        }
        return LedgerView(
            published,
            frozenset(which for which, version in failed.items() if version > _version(published.get(which))),
        )

    def head(self, target: Target, days: Sequence[date]) -> Head:
        """Read where the table stands, in one statement."""
        rows = self._central.query(
            statement("ledger_head"),
            {"dataset": target.dataset, "table_name": target.table, "days": tuple(days)},
            org=target.org,
            purpose="ledger-head",
        ).to_pylist()
        return read_head(rows, days)

    def intend(self, target: Target, intent: Intent, *, now: datetime) -> None:
        """Append the INTENT rows: before the job, so that whoever finds the job finds its meaning."""
        self._append(target, now, [(State.INTENT, intent, None)])

    def commit(self, target: Target, won: Intent, lost: Iterable[Intent], *, now: datetime) -> None:
        """Append what a successful job made true, and which intents it left behind; repeating is harmless."""
        superseded = [(State.SUPERSEDED, one, None) for one in lost]
        self._append(target, now, [(State.COMMITTED, won, None), *superseded])

    def fail(
        self, target: Target, failed: Intent, lost: Iterable[Intent], *, error: str, now: datetime
    ) -> None:
        """Append that the job failed: its id is burnt and the next attempt has the next one."""
        superseded = [(State.SUPERSEDED, one, None) for one in lost]
        self._append(target, now, [(State.FAILED, failed, error), *superseded])

    def empty(self, org: str, dataset: str, *, run_id: str, now: datetime) -> int:
        """Append that every table of a dropped dataset holds nothing, and answer how many it had.

        A version of its own says so: job ids stay used, and a run over these days loads them again. Nobody
        may be publishing there. Again changes nothing.
        """
        days: dict[str, set[date]] = {}
        rows = self._central.query(
            f"SELECT DISTINCT table_name, day FROM {TABLE} "
            "WHERE org_slug = @org_slug AND dataset = @dataset AND state = 'COMMITTED'",
            {"dataset": dataset},
            org=org,
            purpose="ledger-days",
        ).to_pylist()
        for row in rows:
            days.setdefault(row["table_name"], set()).add(row["day"])
        for table, held in days.items():
            self._empty(Target(org, dataset, table), sorted(held), run_id=run_id, now=now)
        return len(days)

    def _empty(self, target: Target, days: Sequence[date], *, run_id: str, now: datetime) -> None:
        head = self.head(target, days)
        if all(found.content_hash == NOTHING for found in head.published.values()) and not head.open:
            return
        version = head.version + 1
        # Provisional: it is never taken for a day that has been asked for.
        entries = tuple(Entry(day, NOTHING, 0, provisional=True, artifact_uri="") for day in days)
        emptied = Intent(
            id=f"emptied-v{version}",
            version=version,
            attempt=head.attempt,
            job_id=target.job_id(version, head.attempt),
            run_id=run_id,
            pipeline="",
            schema_version=0,
            entries=entries,
        )
        self.commit(target, emptied, head.open, now=now)

    def _append(
        self, target: Target, now: datetime, sets: Sequence[tuple[State, Intent, str | None]]
    ) -> None:
        # One request for all sets: it is appended whole or not at all, so no version is half committed.
        self._central.append(
            TABLE,
            [
                {
                    "org_slug": target.org,
                    "dataset": target.dataset,
                    "table_name": target.table,
                    "day": entry.day,
                    "table_version": intent.version,
                    "attempt": intent.attempt,
                    "intent_id": intent.id,
                    "state": state.value,
                    "job_id": intent.job_id,
                    "content_hash": entry.content_hash,
                    "schema_version": intent.schema_version,
                    "row_count": entry.rows,
                    "provisional": entry.provisional,
                    "pipeline": intent.pipeline,
                    "run_id": intent.run_id,
                    "artifact_uri": entry.artifact_uri,
                    "error": error,
                    "written_at": now,
                }
                for state, intent, error in sets
                for entry in intent.entries
            ],
        )


@cache
def statement(name: str) -> str:
    """The text of engine/sql/`name`.sql."""
    return files("engine").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


def read_head(rows: Sequence[Mapping[str, Any]], days: Sequence[date]) -> Head:
    """Fold ledger rows (in any order, duplicates allowed) into the table's head.

    Raises InternalError when a version is missing below the highest one seen.
    """
    version = rows[0]["head_version"] if rows else 0
    above = [row for row in rows if row["table_version"] > version]
    if any(row["table_version"] > version + 1 for row in above):
        raise InternalError(
            f"The ledger speaks of versions above {version + 1}, the next one.",
            fix="Report it: committed rows of a version are missing.",
        )
    attempt = 1 + max((row["attempt"] for row in above if row["state"] == State.FAILED), default=0)
    published: dict[date, Published] = {}
    failed: dict[date, int] = {}
    for row in rows:
        day = row["day"]
        if day in days and row["state"] == State.COMMITTED:
            if row["table_version"] > _version(published.get(day)):
                published[day] = _published(row)
        elif day in days and row["state"] == State.FAILED:
            failed[day] = max(row["table_version"], failed.get(day, 0))
    return Head(
        version=version,
        attempt=attempt,
        open=_intents(row for row in above if row["state"] == State.INTENT and row["attempt"] == attempt),
        published=published,
        doubtful=frozenset(day for day, at in failed.items() if at > _version(published.get(day))),
    )


def _intents(rows: Iterable[Mapping[str, Any]]) -> tuple[Intent, ...]:
    found: dict[str, dict[date, Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["intent_id"], {})[row["day"]] = row
    return tuple(_intent(intent_id, by_day) for intent_id, by_day in sorted(found.items()))


def _intent(intent_id: str, by_day: Mapping[date, Mapping[str, Any]]) -> Intent:
    first = next(iter(by_day.values()))
    return Intent(
        id=intent_id,
        version=first["table_version"],
        attempt=first["attempt"],
        job_id=first["job_id"],
        run_id=first["run_id"],
        pipeline=first["pipeline"],
        schema_version=first["schema_version"],
        entries=tuple(
            Entry(day, row["content_hash"], row["row_count"], row["provisional"], row["artifact_uri"])
            for day, row in sorted(by_day.items())
        ),
    )


def _published(row: Mapping[str, Any]) -> Published:
    return Published(
        day=row["day"],
        table_version=row["table_version"],
        content_hash=row["content_hash"],
        rows=row["row_count"],
        provisional=row["provisional"],
        run_id=row["run_id"],
        job_id=row["job_id"],
        artifact_uri=row["artifact_uri"],
    )


def _version(published: Published | None) -> int:
    return published.table_version if published else 0

"""What a publisher does next, decided without a call: the protocol's pure core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from engine.errors import InternalError, MantaError
from engine.jobs import JobState
from engine.ledger import Head, Intent

#: The label that says whose intent a job carries out.
INTENT_LABEL = "manta-intent"


@dataclass(frozen=True, slots=True)
class Wish:
    """What one day shall hold."""

    day: date
    content_hash: str
    provisional: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """The job of the next version runs: wait for it to be DONE."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Record:
    """The job of the next version is DONE but the ledger does not know: complete its rows."""

    intent: Intent
    lost: tuple[Intent, ...]
    error: MantaError | None


@dataclass(frozen=True, slots=True)
class Submit:
    """Nobody holds the next version: write these days under it."""

    version: int
    attempt: int
    days: tuple[date, ...]


@dataclass(frozen=True, slots=True)
class Nothing:
    """Every day holds what it shall."""


Move = Wait | Record | Submit | Nothing


def next_move(head: Head, job: JobState | None, wishes: Sequence[Wish]) -> Move:
    """Say what to do, given the ledger's head and the job at its next id (None: there is none)."""
    if job is not None and not job.done:
        return Wait(job.job_id)
    if job is not None:
        won = _winner(head, job)
        return Record(won, tuple(one for one in head.open if one.id != won.id), job.error)
    days = tuple(wish.day for wish in wishes if _differs(wish, head))
    return Submit(head.version + 1, head.attempt, days) if days else Nothing()


def _winner(head: Head, job: JobState) -> Intent:
    label = job.labels.get(INTENT_LABEL, "")
    for intent in head.open:
        if intent.id == label:
            return intent
    raise InternalError(
        f"Job {job.job_id} carries intent {label!r}, which the ledger does not know.",
        fix="Report it: an intent is appended before its job is submitted.",
    )


def _differs(wish: Wish, head: Head) -> bool:
    there = head.published.get(wish.day)
    if there is None or wish.day in head.doubtful or there.content_hash != wish.content_hash:
        return True
    # A day that closes with the same content is loaded once more: a new version needs a job of its own, and a
    # load of the same rows keeps one path and proves what the partition holds.
    return there.provisional and not wish.provisional

"""The values of notifications: what happened, what was decided about it, and what a channel renders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal


class EventName(StrEnum):
    """What can be announced; the names are API and keys of `event_triggers`."""

    PIPELINE_STARTED = "pipeline_started"
    PIPELINE_SUCCESS = "pipeline_success"
    PIPELINE_FAILURE = "pipeline_failure"
    STEP_FAILURE = "step_failure"
    COST_THRESHOLD = "cost_threshold"
    ANOMALY_DETECTED = "anomaly_detected"
    SUMMARY_SCHEDULED = "summary_scheduled"
    PIPELINE_PARTIAL = "pipeline_partial"
    UNIT_QUARANTINED = "unit_quarantined"
    CREDENTIAL_INVALID = "credential_invalid"
    CREDENTIAL_EXPIRING = "credential_expiring"
    DATA_LATE = "data_late"
    MODEL_UNPRICED = "model_unpriced"
    QUOTA_NEAR_END = "quota_near_end"
    CHANNEL_FAILING = "channel_failing"


class Severity(StrEnum):
    """How bad it is, in order: `Severity.ERROR > Severity.WARNING`."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info to 3 for critical."""
        return _RANKS[self]

    def __lt__(self, other: str) -> bool:
        return self.rank < Severity(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= Severity(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > Severity(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= Severity(other).rank


# Made once: `json.dumps` with separators makes an encoder for each call.
_JSON = json.JSONEncoder(separators=(",", ":"))
_RANKS = {severity: rank for rank, severity in enumerate(Severity)}

#: What an event is when its emitter does not say.
DEFAULT_SEVERITY: Mapping[EventName, Severity] = {
    EventName.PIPELINE_STARTED: Severity.INFO,
    EventName.PIPELINE_SUCCESS: Severity.INFO,
    EventName.PIPELINE_FAILURE: Severity.ERROR,
    EventName.STEP_FAILURE: Severity.WARNING,
    EventName.COST_THRESHOLD: Severity.WARNING,
    EventName.ANOMALY_DETECTED: Severity.WARNING,
    EventName.SUMMARY_SCHEDULED: Severity.INFO,
    EventName.PIPELINE_PARTIAL: Severity.WARNING,
    EventName.UNIT_QUARANTINED: Severity.ERROR,
    EventName.CREDENTIAL_INVALID: Severity.ERROR,
    EventName.CREDENTIAL_EXPIRING: Severity.WARNING,
    EventName.DATA_LATE: Severity.WARNING,
    EventName.MODEL_UNPRICED: Severity.WARNING,
    EventName.QUOTA_NEAR_END: Severity.WARNING,
    EventName.CHANNEL_FAILING: Severity.ERROR,
}

#: Events that report and do not last: nothing to resolve, acknowledge or remind of.
NOTICES = frozenset({EventName.PIPELINE_STARTED, EventName.PIPELINE_SUCCESS, EventName.SUMMARY_SCHEDULED})


@dataclass(frozen=True, slots=True)
class Link:
    """A labelled address."""

    label: str
    url: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of a digest; every row has one cell for each column, already formatted."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an organisation, or to the operator where `org` is None.

    `id` is the emitter's own and makes a second delivery of the same event harmless. `cause` is a stable
    code (an error's code, a budget's id), never prose. `resolved` says that the problem of this fingerprint
    is over; with an empty cause it ends every problem of the event, organisation and pipeline (and of the
    provider, where one is named). `data` is shown as names and values, `tables` are what a digest holds.
    """

    id: str
    org: str | None
    event: EventName
    severity: Severity
    title: str
    message: str
    cause: str
    at: datetime
    pipeline_id: str | None = None
    provider: str | None = None
    run_id: str | None = None
    resolved: bool = False
    data: Mapping[str, str] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    tables: tuple[Table, ...] = ()


def fingerprint(event: Event) -> str:
    """What makes two events the same problem: organisation, event, pipeline, provider, cause; no words."""
    return identity(event.org, event.event, event.pipeline_id, event.provider, event.cause)


def identity(*parts: str | None) -> str:
    """32 hexadecimal digits that differ when any part differs; None is no empty text."""
    return hashlib.sha256(as_key(*parts).encode()).hexdigest()[:32]


def as_key(*parts: str | None) -> str:
    """The parts as one text that differs when any part differs."""
    return _JSON.encode(parts)


class Reason(StrEnum):
    """Why something is announced, waits, or is not announced. Stored in the history."""

    # Announced.
    FIRST = "first"
    NEW = "new"
    WORSE = "worse"
    REPEAT = "repeat"
    RESOLVED = "resolved"
    ALL_RESOLVED = "all_resolved"
    # Waits; `grouping` is a group's first seconds, or the least time between two messages of a group.
    GROUPING = "grouping"
    CHANNEL_FAILED = "channel_failed"
    IN_FLIGHT = "in_flight"
    # Waits or is not announced.
    COOLDOWN = "cooldown"
    QUIET_HOURS = "quiet_hours"
    SILENCED = "silenced"
    # Not announced.
    DUPLICATE = "duplicate"
    DISABLED = "disabled"
    NO_CHANNEL = "no_channel"
    BELOW_SEVERITY = "below_severity"
    ROLLED_UP = "rolled_up"
    FEW_ORGANISATIONS = "few_organisations"
    ACKNOWLEDGED = "acknowledged"
    JOINED = "joined"
    RECOVERED = "recovered"
    REFIRED = "refired"
    UNTOLD = "untold"
    NOT_WANTED = "not_wanted"
    STALE = "stale"


type Action = Literal["send", "suppress", "hold"]


@dataclass(frozen=True, slots=True)
class Message:
    """What a channel renders. Nothing in it is escaped yet, and nothing in it can be trusted.

    `id` is stable: a second delivery of the same message carries the same one. `suppressed_count` events
    came on top since `since` and are told only by their number.
    """

    id: str
    org: str | None
    event: EventName
    severity: Severity
    title: str
    lines: tuple[str, ...]
    at: datetime
    fields: tuple[tuple[str, str], ...] = ()
    links: tuple[Link, ...] = ()
    tables: tuple[Table, ...] = ()
    resolved: bool = False
    suppressed_count: int = 0
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of some events on one channel; `reason` is never missing.

    `fingerprint` is the problem's (the worst one's where a message carries several), `settles` are the ids of
    the events that the decision settles, by fingerprint. An event has one decision on each channel, and one
    more when it was held and is then sent or dropped. `channel_id` is empty where no channel is concerned.
    `not_before` is set on "hold", `message` on "send". `suppressed_count` events since `first_at` are told by
    number only. `group` is the key of what is announced together.
    """

    group: str
    fingerprint: str
    org: str | None
    channel_id: str
    action: Action
    reason: Reason
    settles: Mapping[str, tuple[str, ...]]
    first_at: datetime
    last_at: datetime
    not_before: datetime | None = None
    suppressed_count: int = 0
    message: Message | None = None

    @property
    def event_ids(self) -> tuple[str, ...]:
        """Every event that is settled, in the order of its problem."""
        return tuple(event for events in self.settles.values() for event in events)

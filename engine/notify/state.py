"""What the rules remember: problems by group, and what each channel was told of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from engine.notify.inputs import Silence
from engine.notify.shelf import Shelf
from engine.notify.types import Event, EventName, Reason, Severity

#: Suppressed for these, an event is told by number with its problem's next message.
COUNTED = frozenset(
    {
        Reason.COOLDOWN,
        Reason.JOINED,
        Reason.ACKNOWLEDGED,
        Reason.SILENCED,
        Reason.FEW_ORGANISATIONS,
        Reason.RECOVERED,
    }
)


@dataclass(frozen=True, slots=True)
class Part:
    """One organisation's share in what many have in common; `shared`: the operator alone hears of it."""

    org: str
    shared: bool
    over: bool = False


@dataclass(frozen=True, slots=True)
class Alert:
    """A problem: its latest event, its worst severity, and whether it still lasts.

    `parts` are the organisations' own problems that a roll-up is made of, by fingerprint. `acked` is how bad
    it was when somebody acknowledged it.
    """

    fingerprint: str
    event: Event
    severity: Severity
    first_at: datetime
    last_at: datetime
    count: int = 1
    firing: bool = True
    recovery: Event | None = None
    acked: Severity | None = None
    acked_by: str = ""
    parts: Mapping[str, Part] = field(default_factory=dict)

    @property
    def organisations(self) -> tuple[str, ...]:
        """Who has the problem, in order; who had it, once nobody has."""
        lasting = {part.org for part in self.parts.values() if not part.over}
        return tuple(sorted(lasting or {part.org for part in self.parts.values()}))


@dataclass(frozen=True, slots=True)
class Told:
    """What a channel was last told of a problem; `at` is when it was told that it lasts."""

    at: datetime
    severity: Severity
    resolved: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """What waits to be told; `resolved`: it is the end of the problem that waits."""

    event_ids: tuple[str, ...]
    reason: Reason
    not_before: datetime
    first_at: datetime
    last_at: datetime
    resolved: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """Events that the next message tells by their number."""

    events: int
    first_at: datetime
    last_at: datetime

    def plus(self, other: Counted | None) -> Counted:
        """Both together."""
        if other is None:
            return self
        first, last = min(self.first_at, other.first_at), max(self.last_at, other.last_at)
        return Counted(self.events + other.events, first, last)


@dataclass(frozen=True, slots=True)
class Lane:
    """One channel of one group; every mapping is by fingerprint. `sent` counts its messages."""

    told: Mapping[str, Told] = field(default_factory=dict)
    held: Mapping[str, Held] = field(default_factory=dict)
    counted: Mapping[str, Counted] = field(default_factory=dict)
    sent: int = 0
    sent_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """What is announced together: one event of one pipeline of one organisation, by fingerprint and channel.

    A roll-up is a group of the operator: one event at one provider, of all organisations.
    """

    key: str
    org: str | None
    event: EventName
    roll_up: bool = False
    alerts: Mapping[str, Alert] = field(default_factory=dict)
    lanes: Mapping[str, Lane] = field(default_factory=dict)

    def lane(self, channel_id: str) -> Lane:
        """What a channel was told; an empty one for a channel that was told nothing."""
        return self.lanes.get(channel_id, NEW_LANE)


NEW_LANE = Lane()


@dataclass(frozen=True, slots=True)
class Flight:
    """A message on its way, and how to untell it: by fingerprint, what the lane held before it."""

    message_id: str
    group: str
    channel_id: str
    settles: Mapping[str, tuple[str, ...]]
    told: Mapping[str, Told]
    before: Mapping[str, Told]
    counted: Mapping[str, Counted]
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class State:
    """All that the rules remember. `seen` are the events already decided, with their time of arrival."""

    groups: Shelf[Group] = field(default_factory=Shelf)
    flights: Shelf[Flight] = field(default_factory=Shelf)
    seen: Shelf[datetime] = field(default_factory=Shelf)
    silences: Mapping[str, Silence] = field(default_factory=dict)

    def with_group(self, group: Group) -> State:
        """With the group in this state."""
        return replace(self, groups=self.groups.put(group.key, group))

    def find(self, fingerprint: str) -> Iterator[tuple[Group, Alert]]:
        """The problems with a fingerprint: none or one."""
        for key in sorted(self.groups):
            group: Group = self.groups[key]
            if fingerprint in group.alerts:
                yield group, group.alerts[fingerprint]

    def due(self) -> datetime | None:
        """When something that waits may be sent next, or None; reminders are not looked at."""
        waits = (
            held.not_before
            for group in self.groups.values()
            for lane in group.lanes.values()
            for held in lane.held.values()
        )
        return min(waits, default=None)

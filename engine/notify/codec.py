"""States, steps and messages as JSON and back: for the history, and for a look at a running system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from engine.errors import InternalError
from engine.notify.apply import Entry
from engine.notify.inputs import Ack, Delivered, Failed, Silence, Tick, Unsilence
from engine.notify.shelf import Shelf
from engine.notify.state import Flight, Group, State
from engine.notify.types import Decision, Event, Message

KINDS: Mapping[str, type[Any]] = {
    "event": Event,
    "tick": Tick,
    "ack": Ack,
    "silence": Silence,
    "unsilence": Unsilence,
    "delivered": Delivered,
    "failed": Failed,
}


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry with the name of what came in; `input` is read by it."""

    at: datetime
    kind: str
    input: Any
    decisions: tuple[Decision, ...] = ()
    parted: bool = False
    shared: bool = False


@dataclass(frozen=True, slots=True)
class _State:
    groups: tuple[Group, ...]
    flights: tuple[Flight, ...]
    seen: Mapping[str, datetime]
    silences: tuple[Silence, ...]


def encode(value: Event | Message | Decision) -> str:
    """A value as one line of JSON; times are RFC 3339."""
    return msgspec.json.encode(value).decode()


def decode[T: (Event, Message, Decision)](text: str, kind: type[T]) -> T:
    """The value that `encode` wrote. Raises InternalError for anything else."""
    return _read(text, kind)


def encode_entry(entry: Entry) -> str:
    """A step as one line of JSON."""
    kind = next(name for name, of in KINDS.items() if type(entry.input) is of)
    wire = _Entry(entry.at, kind, entry.input, entry.decisions, entry.parted, entry.shared)
    return msgspec.json.encode(wire).decode()


def decode_entry(text: str) -> Entry:
    """The step that `encode_entry` wrote. Raises InternalError for anything else."""
    wire = _read(text, _Entry)
    try:
        given = msgspec.convert(wire.input, KINDS[wire.kind])
    except (KeyError, msgspec.ValidationError) as error:
        raise _unreadable(_Entry, error) from error
    return Entry(wire.at, given, wire.decisions, wire.parted, wire.shared)


def encode_state(state: State) -> str:
    """All of a state as one line of JSON, the same for equal states."""
    wire = _State(
        groups=tuple(state.groups[key] for key in sorted(state.groups)),
        flights=tuple(state.flights[key] for key in sorted(state.flights)),
        seen={key: state.seen[key] for key in sorted(state.seen)},
        silences=tuple(state.silences.values()),
    )
    return msgspec.json.encode(wire).decode()


def decode_state(text: str) -> State:
    """The state that `encode_state` wrote. Raises InternalError for anything else."""
    wire = _read(text, _State)
    return State(
        groups=Shelf({group.key: group for group in wire.groups}),
        flights=Shelf({flight.message_id: flight for flight in wire.flights}),
        seen=Shelf(wire.seen),
        silences={silence.id: silence for silence in wire.silences},
    )


def _read[T](text: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise _unreadable(kind, error) from error


def _unreadable(kind: type[object], error: Exception) -> InternalError:
    name = kind.__name__.strip("_").lower()
    return InternalError(
        f"The stored {name} of a notification cannot be read: {error}.",
        fix="Restore the row of org_notification_history as it was written; rows are never edited.",
    )

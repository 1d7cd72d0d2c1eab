"""What is stored of notifications is read as it was, or refused."""

from __future__ import annotations

from datetime import timedelta

import pytest

from engine.errors import InternalError
from engine.notify.apply import Entry
from engine.notify.codec import decode, decode_entry, decode_state, encode, encode_entry
from engine.notify.inputs import Ack, Delivered, Failed, Input, Silence, Tick, Unsilence
from engine.notify.types import Event, Message, Severity
from tests.unit.engine.notify.desk import FAILURE, START, Desk, message

GIVEN: list[Input] = [
    FAILURE,
    Tick(),
    Ack("f" * 32, "ada"),
    Silence("s1", {"org": "acme"}, START + timedelta(hours=1), "ada", "maintenance"),
    Unsilence("s1", "ada"),
    Delivered("m1"),
    Failed("m1", START),
]


@pytest.mark.parametrize("given", GIVEN, ids=lambda given: type(given).__name__)
def test_every_input_is_read_as_it_was_written(given: Input) -> None:
    entry = Entry(START, given, parted=True)
    assert decode_entry(encode_entry(entry)) == entry


def test_events_and_messages_are_read_as_they_were_written() -> None:
    told = message(Desk().fail())
    assert decode(encode(told), Message) == told
    assert decode(encode(FAILURE), Event) == FAILURE


@pytest.mark.parametrize("text", ["", "[]", '{"at": "2026-11-24T12:00:00Z", "kind": "x", "input": {}}'])
def test_anything_else_is_refused(text: str) -> None:
    for read in (decode_entry, decode_state, lambda text: decode(text, Event)):
        with pytest.raises(InternalError, match="cannot be read"):
            read(text)


def test_severities_have_an_order() -> None:
    assert sorted(["info", "critical"], key=Severity) == ["info", "critical"]
    assert Severity.CRITICAL > Severity.ERROR >= Severity.ERROR > Severity.WARNING > Severity.INFO

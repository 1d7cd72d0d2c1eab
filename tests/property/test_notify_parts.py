"""What the rules of notifications stand on: nights in any timezone, lines of files, a mapping in buckets."""

from __future__ import annotations

import json
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.located import At
from engine.notify.json_file import read_json
from engine.notify.policy import QuietHours, quiet_until
from engine.notify.shelf import Shelf
from engine.notify.sources import laid_over

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "America/St_Johns",
)
#: Around the changes of the clocks, and any time of the year.
moments = st.builds(
    lambda day, minutes: datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(minutes=minutes),
    st.sampled_from(["2026-03-28", "2026-10-24", "2026-03-07", "2026-10-31", "2026-04-04", "2026-07-01"]),
    st.integers(0, 3 * 24 * 60),
)
times = st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30]))
nights = st.builds(QuietHours, times, times, st.sampled_from(ZONES)).filter(
    lambda night: night.start != night.end
)


@given(nights, moments)
@settings(deadline=None)
def test_quiet_hours_end_when_they_say_and_are_quiet_until_then(night: QuietHours, now: datetime) -> None:
    until = quiet_until(night, now)
    if until is None:
        return
    assert now < until <= now + timedelta(hours=25)
    for part in range(1, 8):
        assert quiet_until(night, now + (until - now) * part / 8) == until
    assert quiet_until(night, until) is None
    local = until.astimezone(ZoneInfo(night.timezone))
    # The clock shows the end, or what it shows after it skipped the end.
    exists = local.replace(tzinfo=None).time() == night.end
    skipped = (
        local.utcoffset() != (until - timedelta(hours=3)).astimezone(ZoneInfo(night.timezone)).utcoffset()
    )
    assert exists or skipped


@given(nights, moments)
@settings(deadline=None)
def test_the_clock_says_whether_it_is_quiet_where_it_does_not_change(
    night: QuietHours, now: datetime
) -> None:
    zone = ZoneInfo(night.timezone)
    around = [(now + timedelta(hours=hours)).astimezone(zone).utcoffset() for hours in (-26, 0, 26)]
    if len(set(around)) > 1:
        return
    clock = now.astimezone(zone).time()
    if night.start < night.end:
        quiet = night.start <= clock < night.end
    else:
        quiet = clock >= night.start or clock < night.end
    assert (quiet_until(night, now) is not None) == quiet


@pytest.mark.parametrize(
    ("now", "until"),
    [
        # Berlin, 29 March 2026: 02:00 becomes 03:00; 25 October: 03:00 becomes 02:00.
        ("2026-03-28T21:30:00+00:00", "2026-03-29T04:00:00+00:00"),
        ("2026-10-24T21:30:00+00:00", "2026-10-25T05:00:00+00:00"),
        ("2026-11-24T21:30:00+00:00", "2026-11-25T05:00:00+00:00"),
        ("2026-11-24T20:59:59+00:00", None),
        ("2026-11-25T05:00:00+00:00", None),
    ],
)
def test_a_night_is_as_long_as_the_clocks_make_it(now: str, until: str | None) -> None:
    night = QuietHours(time(22), time(6), "Europe/Berlin")
    expected = datetime.fromisoformat(until) if until else None
    assert quiet_until(night, datetime.fromisoformat(now)) == expected


keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
plain = st.none() | st.booleans() | st.integers() | keys | st.just('"}],{[:\\ ')
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)
)


def written(value: Any, at: At, lines: list[str], expected: dict[At, int], indent: str, tail: str) -> None:
    """Write a value over as many lines as it can have, and note where everything begins."""
    if isinstance(value, dict | list) and value:
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        lines[-1] += opening
        items = list(value.items() if isinstance(value, dict) else enumerate(value))
        for n, (key, item) in enumerate(items):
            lines.append(indent + "\t")
            expected[*at, key] = len(lines)
            if isinstance(value, dict):
                lines[-1] += json.dumps(key) + ":"
                lines.append(indent + "\t")
            written(item, (*at, key), lines, expected, indent + "\t", "," if n + 1 < len(items) else "")
        lines.append(indent + closing + tail)
    else:
        lines[-1] += json.dumps(value) + tail


@given(st.dictionaries(keys, values, max_size=4), st.booleans())
@settings(deadline=None)
def test_every_key_and_entry_of_any_json_has_its_line(value: dict[str, Any], close: bool) -> None:
    lines, expected = [""], {(): 1}
    written(value, (), lines, expected, "", "")
    text = "\n".join(lines)
    if close:
        text, expected = json.dumps(value, separators=(",", ":")), dict.fromkeys(expected, 1)
    with TemporaryDirectory() as folder:
        path = Path(folder, "x.json")
        path.write_text(text, encoding="utf-8")
        document = read_json(path, root=Path(folder))
    assert document.value == value
    assert document.lines == expected


@given(st.lists(st.tuples(st.booleans(), st.text("abc", max_size=3), st.integers())))
def test_a_shelf_is_a_mapping_that_leaves_the_old_one_alone(changes: list[tuple[bool, str, int]]) -> None:
    shelf: Shelf[int] = Shelf()
    plain: dict[str, int] = {}
    for put, key, value in changes:
        before, copy = shelf, dict(shelf)
        if put:
            shelf, plain = shelf.put(key, value), {**plain, key: value}
        else:
            shelf, plain = shelf.drop(key), {k: v for k, v in plain.items() if k != key}
        assert dict(before) == copy
    assert (dict(shelf), len(shelf), shelf == Shelf(plain)) == (plain, len(plain), True)


layers = st.dictionaries(keys, values, max_size=3)


@given(layers, layers)
def test_laying_over_keeps_what_is_not_named(below: dict[str, Any], above: dict[str, Any]) -> None:
    assert laid_over(below, {}) == laid_over(below, below) == laid_over({}, below) == below
    over = laid_over(below, above)
    assert over.keys() == below.keys() | above.keys()
    for key in over:
        one, other = below.get(key), above.get(key)
        if key not in above:
            assert over[key] == one
        elif isinstance(one, dict) and isinstance(other, dict):
            assert over[key] == laid_over(one, other)
        else:
            assert over[key] == other

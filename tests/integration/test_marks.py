"""How far a source was taken in, and the views that come with a published table."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from engine.central import Central
from engine.marks import Marks
from engine.types import Mark

NOW = datetime(2026, 11, 24, 5, tzinfo=UTC)
PIPELINE = "gcp/cost/billing"


def a_mark(day: int, rows: int, *, source: str = "p.billing.export") -> Mark:
    return Mark("cred", source, date(2026, 11, day), NOW + timedelta(minutes=rows), rows)


def test_the_latest_mark_of_each_load_partition_stands(central: Central, org: str) -> None:
    marks = Marks(central)
    assert marks.standing(org, PIPELINE) == {}

    first = [a_mark(1, 10), a_mark(2, 5), a_mark(1, 7, source="p.billing.other")]
    marks.save(org, PIPELINE, first, standing={}, run_id="r1", now=NOW)
    grown = a_mark(2, 9)
    marks.save(org, PIPELINE, [grown], standing=marks.standing(org, PIPELINE), run_id="r2", now=NOW)

    standing = marks.standing(org, PIPELINE)
    assert standing[grown.key] == replace(grown, version=2)
    assert {key: mark.rows for key, mark in standing.items()} == {
        first[0].key: 10,
        grown.key: 9,
        first[2].key: 7,
    }
    assert marks.standing(org, "gcp/cost/other") == {}

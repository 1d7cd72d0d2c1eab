"""Whoever is killed at whatever point, publishing again ends where an undisturbed run ends."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.content_hash import content_hash
from engine.publish import SYNC_POINTS
from engine.warehouse import Warehouse
from tests.integration.bigquery_server import REPOSITORY, BigQueryServer
from tests.integration.conftest import ROOT, AssertLedgerTrue
from tests.integration.publish_child import SCHEMA, Case, day, line, run, table

ONE, MANY = (1,), (1, 2, 3)
ONLY_MANY = {"staged", "dropped"}
CASES = [
    pytest.param(days, point, id=f"{len(days)}-{point}")
    for days in (ONE, MANY)
    for point in SYNC_POINTS
    if days is MANY or point not in ONLY_MANY
]


def seldom(always: Callable[[tuple[int, ...], str], bool]) -> list[Any]:
    """The cases, with those marked slow that are not to run always."""
    return [
        case if always(*case.values) else pytest.param(*case.values, id=case.id, marks=pytest.mark.slow)
        for case in CASES
    ]


class Children:
    """The process that forks publishers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("publish_child.py"))],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, *cases: Case) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line(cases))
        self._process.stdin.flush()

    def ends(self) -> list[int]:
        assert self._process.stdout is not None
        return list(json.loads(self._process.stdout.readline()))

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    made = Children()
    yield made
    made.stop()


@pytest.fixture
def case(bigquery_server: BigQueryServer, warehouse: Warehouse, org: str, tmp_path: Path) -> Case:
    """Days 0 to 2 are published with salt 1; what comes next is for the test to say."""
    made = Case(
        rest=bigquery_server.rest,
        grpc=bigquery_server.grpc,
        root=str(ROOT),
        org=org,
        artifacts=str(tmp_path / "artifacts"),
        days=(0, 1, 2),
        salt=1,
    )
    run(made)
    return made


def expected(org: str, salts: dict[int, int], *, rows: int = 3) -> dict[str, str]:
    return {
        day(number).isoformat(): content_hash(table(org, [number], salt, rows=rows), SCHEMA)
        for number, salt in salts.items()
    }


def after(days: Sequence[int], salt: int) -> dict[int, int]:
    return {0: 1, 1: 1, 2: 1} | dict.fromkeys(days, salt)


#: Where what the next publisher finds differs; at the other points it is what one of these left.
MEETING = {"intended", "staged", "submitted", "done", "recorded"}


@pytest.mark.parametrize(("days", "point"), seldom(lambda days, point: days is MANY and point in MEETING))
def test_a_killed_publisher_is_finished_by_the_next(
    days: tuple[int, ...], point: str, case: Case, children: Children, assert_ledger_true: AssertLedgerTrue
) -> None:
    again = replace(case, days=days, salt=2, run_id="run-2")

    children.begin(replace(again, kill_at=point))
    assert children.ends() == [-signal.SIGKILL]
    found = run(again)

    assert assert_ledger_true(SCHEMA) == expected(case.org, after(days, 2))
    assert {answer.table_version for answer in found} == {2}
    how = {"recorded": "unchanged", "dropped": "unchanged", "submitted": "adopted", "done": "adopted"}
    assert {answer.how for answer in found} == {how.get(point, "loaded")}


#: Where the warehouse's absence meets each kind of call; at the other points the next call is one of these.
TELLING = {"staged", "submitted"}


@pytest.mark.parametrize(("days", "point"), seldom(lambda days, point: days is MANY and point in TELLING))
def test_a_killed_warehouse_is_outlived(
    days: tuple[int, ...],
    point: str,
    case: Case,
    children: Children,
    bigquery_server: BigQueryServer,
    assert_ledger_true: AssertLedgerTrue,
) -> None:
    again = replace(case, days=days, salt=2, run_id="run-2")

    children.begin(replace(again, kill_at=point, kill_pid=bigquery_server.process.pid))
    assert bigquery_server.process.wait(timeout=30) == -signal.SIGKILL
    bigquery_server.start()

    assert children.ends() == [0]
    assert assert_ledger_true(SCHEMA) == expected(case.org, after(days, 2))
    assert {answer.how for answer in run(again)} == {"unchanged"}


def test_two_publishers_of_overlapping_days_are_serial(
    case: Case, children: Children, assert_ledger_true: AssertLedgerTrue
) -> None:
    left = replace(case, days=(1, 2, 3, 4), salt=2, run_id="left")
    right = replace(case, days=(3, 4, 5), salt=3, run_id="right")

    children.begin(left, right)

    assert children.ends() == [0, 0]
    orders = [
        expected(case.org, after(left.days, 2) | dict.fromkeys(right.days, 3)),
        expected(case.org, after(right.days, 3) | dict.fromkeys(left.days, 2)),
    ]
    assert assert_ledger_true(SCHEMA) in orders


def test_a_late_zombie_changes_nothing(
    case: Case, children: Children, assert_ledger_true: AssertLedgerTrue, tmp_path: Path
) -> None:
    """A publisher that slept between head and submit finds its id used, and adds a version on top."""
    zombie = replace(case, days=ONE, salt=9, run_id="zombie")
    awake, asleep = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def sleep_at(point: str) -> None:
        if point == "intended" and not asleep.is_set():
            asleep.set()
            awake.wait(timeout=60)

    def late() -> None:
        try:
            run(zombie, at=sleep_at)
        except BaseException as error:  # noqa: BLE001  (a thread's error is the test's)
            errors.append(error)

    thread = threading.Thread(target=late)
    thread.start()
    assert asleep.wait(timeout=30)
    for salt in (2, 3):
        run(replace(case, days=ONE, salt=salt, run_id=f"run-{salt}"))
    assert assert_ledger_true(SCHEMA) == expected(case.org, after(ONE, 3))
    awake.set()
    thread.join(timeout=60)

    assert errors == []
    assert assert_ledger_true(SCHEMA) == expected(case.org, after(ONE, 9))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(4))
def test_random_kills_of_everything(
    seed: int,
    case: Case,
    children: Children,
    bigquery_server: BigQueryServer,
    assert_ledger_true: AssertLedgerTrue,
) -> None:
    """Publishers and server die at random moments; at the end one undisturbed publish sets all days right."""
    rand = random.Random(seed)
    for step in range(8):
        points = [rand.choice(["", *SYNC_POINTS]) for _ in range(3)]
        children.begin(
            *(
                replace(
                    case,
                    days=tuple(range(low := rand.randrange(4), low + rand.randrange(1, 4))),
                    salt=10 * step + number,
                    run_id=f"run-{step}-{number}",
                    kill_at=point,
                    rows=rand.choice([0, 3, 2000]),
                )
                for number, point in enumerate(points)
            )
        )
        if rand.random() < 0.5:
            time.sleep(rand.random())
            bigquery_server.kill()
            bigquery_server.start()
        assert set(children.ends()) <= {0, -signal.SIGKILL}
    run(replace(case, days=tuple(range(7)), salt=99, run_id="last"))

    assert assert_ledger_true(SCHEMA) == expected(case.org, dict.fromkeys(range(7), 99))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_eight_publishers_of_one_table(
    case: Case, children: Children, bigquery_server: BigQueryServer, assert_ledger_true: AssertLedgerTrue
) -> None:
    crowd = [
        replace(case, days=tuple(range(number % 3, number % 3 + 3)), salt=number + 2, run_id=f"run-{number}")
        for number in range(8)
    ]

    with bigquery_server.kept_up():
        children.begin(*crowd)
        assert children.ends() == [0] * len(crowd)

    assert set(assert_ledger_true(SCHEMA)) == {day(number).isoformat() for number in range(5)}

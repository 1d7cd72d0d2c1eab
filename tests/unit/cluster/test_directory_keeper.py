"""One copy for all: changes are told, misses are looked for, an outage keeps the last copy."""

from __future__ import annotations

import asyncio

import pytest

from cluster.directory_keeper import DirectoryKeeper
from engine.directory import Directory, OrgEntry
from engine.errors import NotFoundError, TransientError
from engine.plans import Limits


class Records:
    def __init__(self) -> None:
        self.orgs: dict[str, OrgEntry] = {}
        self.readings = 0
        self.away = False

    def add(self, slug: str) -> None:
        self.orgs[slug] = OrgEntry(slug, "ACTIVE", Limits(None, None, None), "SCALE")

    def read(self) -> Directory:
        self.readings += 1
        if self.away:
            raise TransientError("away")
        return Directory.of(self.orgs, {}, frozenset())


async def test_many_who_ask_at_once_cost_one_reading() -> None:
    records = Records()
    records.add("acme")
    keeper = DirectoryKeeper(records.read, refresh_s=30)

    await asyncio.gather(*(keeper.org("acme") for _ in range(50)))

    assert records.readings <= 2


async def test_a_change_made_known_wakes_whoever_waits() -> None:
    records = Records()
    keeper = DirectoryKeeper(records.read, refresh_s=30)
    known = (await keeper.get()).version
    waiting = asyncio.create_task(keeper.changed(known, wait_s=20))
    await asyncio.sleep(0.01)

    records.add("acme")
    await keeper.refresh()

    found = await waiting
    assert found is not None
    assert list(found.orgs) == ["acme"]


async def test_nothing_changed_is_said_after_a_while() -> None:
    keeper = DirectoryKeeper(Records().read, refresh_s=30)

    assert await keeper.changed((await keeper.get()).version, wait_s=0.05) is None


async def test_a_change_nobody_tells_of_is_found_when_the_copy_is_old() -> None:
    records = Records()
    keeper = DirectoryKeeper(records.read, refresh_s=0.05)
    known = (await keeper.get()).version
    records.add("acme")

    found = None
    for _ in range(40):
        found = found or await keeper.changed(known, wait_s=0.05)

    assert found is not None


async def test_while_the_warehouse_is_away_the_last_copy_serves() -> None:
    records = Records()
    records.add("acme")
    keeper = DirectoryKeeper(records.read, refresh_s=0.001)
    await keeper.get()
    records.away = True
    await asyncio.sleep(0.01)

    assert (await keeper.org("acme")).slug == "acme"


async def test_a_long_outage_is_said_and_not_taken_for_no_change() -> None:
    records, now = Records(), [0.0]
    records.add("acme")
    keeper = DirectoryKeeper(records.read, refresh_s=10, clock=lambda: now[0])
    known = (await keeper.get()).version
    records.away = True
    now[0] = 200.0

    with pytest.raises(TransientError):
        await keeper.changed(known, wait_s=0.05)


async def test_unknown_organisations_cost_one_reading_a_second_at_most() -> None:
    records = Records()
    keeper = DirectoryKeeper(records.read, refresh_s=30)
    await keeper.get()

    for n in range(50):
        with pytest.raises(NotFoundError):
            await keeper.org(f"org_{n}")

    assert records.readings <= 2

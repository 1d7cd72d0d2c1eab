"""Who starts next: capacity, leases, priority and turns."""

from __future__ import annotations

from datetime import date

import pytest

from cluster.slots import Ask, Slots
from engine.errors import UsageError

LEASE_S = 30.0
DRIVER = "run-1"


def ask(
    key: str, org: str = "acme", *, days: tuple[int, ...] = (1,), priority: int = 0, pipeline: str = "p"
) -> Ask:
    return Ask(key, org, pipeline, tuple(date(2025, 12, day) for day in days), priority)


def many(org: str, count: int, *, priority: int = 0) -> list[Ask]:
    """Asks of one organisation that do not overlap."""
    return [ask(f"{org}-{n}", org, days=(n + 1,), priority=priority) for n in range(count)]


def slots(capacity: int = 2, weights: dict[str, int] | None = None) -> Slots:
    return Slots(capacity, lease_s=LEASE_S, weights=weights)


def keys(granted: list[tuple[str, str]]) -> list[str]:
    return [key for _, key in granted]


def one_at_a_time(pool: Slots) -> list[str]:
    """The order in which a single slot goes round."""
    order: list[str] = []
    while granted := keys(pool.grant(0)):
        order += granted
        pool.release(granted)
    return order


def test_no_more_than_the_capacity_is_given():
    pool = slots(2)
    pool.ask(DRIVER, many("acme", 3))
    assert pool.grant(0) == [(DRIVER, "acme-0"), (DRIVER, "acme-1")]
    assert pool.grant(0) == []
    assert (pool.held, pool.waiting) == (2, 1)
    pool.release(["acme-0"])
    assert keys(pool.grant(0)) == ["acme-2"]


@pytest.mark.parametrize(
    ("other", "together"),
    [
        (ask("b", days=(3, 4)), False),
        (ask("b", days=(1,)), False),
        (ask("b", days=(4, 5)), True),
        (ask("b", days=(2,), pipeline="other"), True),
        (ask("b", "globex", days=(2,)), True),
    ],
)
def test_days_of_one_pipeline_of_one_organisation_are_leased_once(other: Ask, together: bool):
    pool = slots(2)
    pool.ask(DRIVER, [ask("a", days=(1, 2, 3)), other])
    assert keys(pool.grant(0)) == (["a", "b"] if together else ["a"])
    pool.release(["a"])
    assert keys(pool.grant(0)) == ([] if together else ["b"])


def test_a_unit_that_must_wait_for_its_days_does_not_hold_up_those_behind_it():
    pool = slots(3)
    pool.ask("other-run", [ask("theirs")])
    pool.grant(0)
    pool.ask(DRIVER, [ask("same-day"), ask("next-day", days=(2,)), ask("globex", "globex")])
    assert sorted(keys(pool.grant(0))) == ["globex", "next-day"]


def test_priority_goes_first_whoever_came_first():
    pool = slots(1)
    pool.ask(DRIVER, [ask("late", days=(1,), priority=1)])
    pool.ask(DRIVER, [ask("soon", days=(2,)), ask("sooner", "globex")])
    assert one_at_a_time(pool) == ["soon", "sooner", "late"]


def test_organisations_take_turns():
    pool = slots(1)
    pool.ask(DRIVER, [*many("acme", 4), *many("globex", 2), *many("initech", 1)])
    assert one_at_a_time(pool) == [
        "acme-0",
        "globex-0",
        "initech-0",
        "acme-1",
        "globex-1",
        "acme-2",
        "acme-3",
    ]


def test_an_organisation_of_weight_two_starts_two_units_a_turn():
    pool = slots(1, {"acme": 2})
    pool.ask(DRIVER, [*many("acme", 4), *many("globex", 3)])
    assert one_at_a_time(pool) == [
        "acme-0",
        "acme-1",
        "globex-0",
        "acme-2",
        "acme-3",
        "globex-1",
        "globex-2",
    ]


def test_a_weight_below_one_is_refused():
    with pytest.raises(UsageError, match="acme"):
        slots(1, {"acme": 0})


def test_leases_expire_when_their_driver_shows_no_life():
    pool = slots(1)
    pool.ask(DRIVER, many("acme", 2))
    pool.grant(0)
    assert pool.grant(LEASE_S - 1) == []
    assert keys(pool.grant(LEASE_S)) == ["acme-1"]


def test_a_driver_renews_its_own_leases_only():
    pool = slots(2)
    pool.ask("alive", [ask("a", days=(1,))])
    pool.ask("dead", [ask("b", days=(2,))])
    pool.grant(0)
    pool.renew("alive", LEASE_S - 1)
    pool.grant(LEASE_S)
    assert pool.held == 1
    pool.ask("third", [ask("c", days=(1,)), ask("d", days=(2,))])
    assert keys(pool.grant(LEASE_S)) == ["d"]


def test_withdrawing_forgets_what_a_driver_holds_and_waits_for():
    pool = slots(1)
    pool.ask(DRIVER, many("acme", 3))
    pool.ask("other-run", [ask("theirs", days=(9,))])
    pool.grant(0)
    pool.withdraw(DRIVER)
    assert (pool.held, pool.waiting) == (0, 1)
    assert pool.grant(0) == [("other-run", "theirs")]


def test_a_withdrawn_key_can_be_asked_for_again():
    pool = slots(1)
    pool.ask(DRIVER, many("acme", 2))
    pool.grant(0)
    pool.withdraw(DRIVER)
    pool.ask(DRIVER, many("acme", 2))
    assert one_at_a_time(pool) == ["acme-0", "acme-1"]


def test_releasing_what_nobody_holds_changes_nothing():
    pool = slots(1)
    pool.ask(DRIVER, many("acme", 2))
    pool.grant(0)
    pool.release(["nobody", "acme-1"])
    assert (pool.held, pool.waiting) == (1, 1)


def test_a_key_is_queued_once_while_it_waits_or_runs():
    pool = slots(2)
    pool.ask(DRIVER, [ask("a"), ask("a")])
    assert pool.waiting == 1
    pool.grant(0)
    pool.ask(DRIVER, [ask("a")])
    assert (pool.held, pool.waiting) == (1, 0)
    pool.release(["a"])
    pool.ask(DRIVER, [ask("a")])
    assert keys(pool.grant(0)) == ["a"]


class CountingDays(tuple[date, ...]):
    """Days that count how often anybody looks at one of them."""

    looks = 0

    def __getitem__(self, n):
        CountingDays.looks += 1
        return super().__getitem__(n)


@pytest.mark.parametrize("organisations", [500, 1])
def test_a_thousandfold_queue_costs_no_more_per_grant(organisations: int):
    """5,000 asks: what a grant looks at is bounded by the slots in use, never by the queue."""
    CountingDays.looks = 0
    capacity = 8
    pool = slots(capacity)
    each = 5000 // organisations
    for n in range(each):
        for o in range(organisations):
            days = CountingDays([date.fromordinal(739000 + n)])
            pool.ask(DRIVER, [Ask(f"{o}-{n}", f"org-{o}", "p", days)])
    granted = 0
    while keys_given := keys(pool.grant(0)):
        granted += len(keys_given)
        pool.release(keys_given)
    assert granted == each * organisations
    assert CountingDays.looks <= 4 * capacity * granted

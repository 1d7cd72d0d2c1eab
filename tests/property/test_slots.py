"""Slots under any order of calls: never too many, never overlapping, nobody forgotten."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cluster.slots import Ask, Slots

LEASE_S = 10.0
DRIVERS = st.sampled_from(["run-1", "run-2"])
ORGS = ("acme", "globex", "initech")


def stretch(first: int, length: int) -> tuple[date, ...]:
    return tuple(date(2025, 12, 1) + timedelta(days=first + n) for n in range(length))


class Pool(RuleBasedStateMachine):
    """Every call a coordinator makes, against a plain account of who holds and waits for what."""

    @initialize(capacity=st.integers(1, 4), weights=st.dictionaries(st.sampled_from(ORGS), st.integers(1, 3)))
    def start(self, capacity: int, weights: dict[str, int]) -> None:
        self.slots = Slots(capacity, lease_s=LEASE_S, weights=weights)
        self.now = 0.0
        self.waiting: dict[str, tuple[str, Ask]] = {}
        self.held: dict[str, tuple[str, Ask, float]] = {}
        self.count = 0

    @rule(
        driver=DRIVERS,
        org=st.sampled_from(ORGS),
        pipeline=st.sampled_from(["p", "q"]),
        first=st.integers(0, 5),
        length=st.integers(1, 4),
        priority=st.integers(0, 1),
    )
    def asks(self, driver: str, org: str, pipeline: str, first: int, length: int, priority: int) -> None:
        self.count += 1
        wanted = Ask(f"{driver}|{self.count}", org, pipeline, stretch(first, length), priority)
        self.waiting[wanted.key] = (driver, wanted)
        self.slots.ask(driver, [wanted])

    @rule(data=st.data())
    def asks_again(self, data: st.DataObject) -> None:
        known = {**self.waiting, **{key: entry[:2] for key, entry in self.held.items()}}
        if known:
            driver, wanted = known[data.draw(st.sampled_from(sorted(known)))]
            self.slots.ask(driver, [wanted])

    @rule()
    def grants(self) -> None:
        self.held = {key: entry for key, entry in self.held.items() if entry[2] > self.now}
        for driver, key in self.slots.grant(self.now):
            owner, wanted = self.waiting.pop(key)
            assert owner == driver
            urgent = [a for _, a in self.waiting.values() if a.priority < wanted.priority]
            assert all(self.blocked(other) for other in urgent)
            assert not self.blocked(wanted)
            self.held[key] = (driver, wanted, self.now + LEASE_S)
        assert len(self.held) == self.slots.capacity or all(self.blocked(a) for _, a in self.waiting.values())

    def blocked(self, wanted: Ask) -> bool:
        return any(
            (wanted.org, wanted.pipeline) == (held.org, held.pipeline) and set(wanted.days) & set(held.days)
            for _, held, _ in self.held.values()
        )

    @rule(data=st.data())
    def releases(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from([*sorted(self.held), *sorted(self.waiting), "nobody"]))
        self.held.pop(key, None)
        self.slots.release([key])

    @rule(driver=DRIVERS)
    def renews(self, driver: str) -> None:
        self.slots.renew(driver, self.now)
        for key, (owner, held, _) in self.held.items():
            if owner == driver:
                self.held[key] = (owner, held, self.now + LEASE_S)

    @rule(driver=DRIVERS)
    def withdraws(self, driver: str) -> None:
        self.slots.withdraw(driver)
        self.waiting = {key: entry for key, entry in self.waiting.items() if entry[0] != driver}
        self.held = {key: entry for key, entry in self.held.items() if entry[0] != driver}

    @rule(seconds=st.floats(0, 12))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def accounts_agree(self) -> None:
        if hasattr(self, "slots"):
            assert self.slots.held == len(self.held) <= self.slots.capacity
            assert self.slots.waiting == len(self.waiting)


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(
    queues=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 12), min_size=1),
    weights=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 4)),
    capacity=st.integers(1, 3),
)
def test_nobody_waits_longer_than_one_turn_of_all_others(queues, weights, capacity):
    pool = Slots(capacity, lease_s=LEASE_S, weights=weights)
    for org, count in queues.items():
        pool.ask("run", [Ask(f"{org}{n}", org, "p", stretch(n, 1)) for n in range(count)])
    left = dict(queues)
    passed_over = dict.fromkeys(queues, 0)
    while granted := pool.grant(0):
        for _, key in granted:
            org = key[0]
            left[org] -= 1
            for other in left:
                passed_over[other] = 0 if other == org else passed_over[other] + (left[other] > 0)
                assert passed_over[other] <= sum(weights.get(o, 1) for o in queues if o != other)
        pool.release([key for _, key in granted])
    assert set(left.values()) == {0}

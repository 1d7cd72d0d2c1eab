"""Who may start next, pure: slots shared by priority, then weighted round-robin over organisations.

A slot is also a lease over (organisation, pipeline, days): two units that overlap never run at once.
Leases expire when their driver stops renewing them. Speed and fairness rest on this; correctness never
does, because the table version of every publish fences a late writer.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date

from engine.errors import UsageError


@dataclass(frozen=True, slots=True)
class Ask:
    """A unit that wants to start. `priority` 0 goes before 1; `key` is unique per driver and attempt."""

    key: str
    org: str
    pipeline: str
    days: tuple[date, ...]
    priority: int = 0


@dataclass(slots=True)
class _Lease:
    ask: Ask
    driver: str
    expires_at: float


@dataclass(slots=True)
class _Lane:
    """One organisation's waiting asks at one priority. `credit` carries its weight between turns."""

    asks: deque[tuple[str, Ask]] = field(default_factory=deque)
    credit: int = 0


class Slots:
    """At most `capacity` leases at once; times are seconds of any monotonic clock."""

    def __init__(self, capacity: int, *, lease_s: float, weights: Mapping[str, int] | None = None) -> None:
        for org, weight in (weights or {}).items():
            if weight < 1:
                raise UsageError(
                    f"The weight of {org} is {weight}.", fix="Use 1 or more; priority is for what may wait."
                )
        self.capacity = capacity
        self._lease_s = lease_s
        self._weights = weights or {}
        self._lanes: dict[int, OrderedDict[str, _Lane]] = {}
        self._leases: dict[str, _Lease] = {}
        self._known: set[str] = set()

    def ask(self, driver: str, asks: Iterable[Ask]) -> None:
        """Queue asks behind those of the same organisation; an ask already known is not queued twice."""
        for ask in asks:
            if ask.key not in self._known:
                self._known.add(ask.key)
                lanes = self._lanes.setdefault(ask.priority, OrderedDict())
                lanes.setdefault(ask.org, _Lane()).asks.append((driver, ask))

    def grant(self, now: float) -> list[tuple[str, str]]:
        """Give what may start now: (driver, key) pairs, fairest first."""
        self._expire(now)
        granted: list[tuple[str, str]] = []
        while len(self._leases) < self.capacity:
            chosen = self._next()
            if chosen is None:
                break
            driver, ask = chosen
            self._leases[ask.key] = _Lease(ask, driver, now + self._lease_s)
            granted.append((driver, ask.key))
        return granted

    def _next(self) -> tuple[str, Ask] | None:
        for priority in sorted(self._lanes):
            lanes = self._lanes[priority]
            for org in list(lanes):
                lane = lanes[org]
                position = next((i for i, (_, ask) in enumerate(lane.asks) if not self._overlaps(ask)), None)
                if position is None:
                    continue
                chosen = lane.asks[position]
                del lane.asks[position]
                self._turn(lanes, org)
                return chosen
        return None

    def _turn(self, lanes: OrderedDict[str, _Lane], org: str) -> None:
        """An organisation of weight w starts w units before the next one's turn."""
        lane = lanes[org]
        lane.credit = (lane.credit or self._weights.get(org, 1)) - 1
        if not lane.asks:
            del lanes[org]
        elif lane.credit == 0:
            lanes.move_to_end(org)

    def _overlaps(self, ask: Ask) -> bool:
        return any(
            lease.ask.org == ask.org
            and lease.ask.pipeline == ask.pipeline
            and lease.ask.days[0] <= ask.days[-1]
            and ask.days[0] <= lease.ask.days[-1]
            for lease in self._leases.values()
        )

    def release(self, keys: Iterable[str]) -> None:
        """Give slots back; unknown keys (expired, or of an earlier incarnation) are ignored."""
        for key in keys:
            if self._leases.pop(key, None) is not None:
                self._known.discard(key)

    def withdraw(self, driver: str) -> None:
        """Forget everything a driver waits for or holds: it ended or was cancelled."""
        for lanes in self._lanes.values():
            for org in list(lanes):
                lane = lanes[org]
                self._known -= {ask.key for owner, ask in lane.asks if owner == driver}
                lane.asks = deque(entry for entry in lane.asks if entry[0] != driver)
                if not lane.asks:
                    del lanes[org]
        self.release([key for key, lease in self._leases.items() if lease.driver == driver])

    def renew(self, driver: str, now: float) -> None:
        """A driver that shows life keeps its leases."""
        for lease in self._leases.values():
            if lease.driver == driver:
                lease.expires_at = now + self._lease_s

    def _expire(self, now: float) -> None:
        self.release([key for key, lease in self._leases.items() if lease.expires_at <= now])

    @property
    def held(self) -> int:
        """Slots in use."""
        return len(self._leases)

    @property
    def waiting(self) -> int:
        """Asks in the queue."""
        return sum(len(lane.asks) for lanes in self._lanes.values() for lane in lanes.values())

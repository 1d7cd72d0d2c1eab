"""The finest-grain usage row of the sandbox and the deterministic draws it is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import blake2b

type Dimension = str | bool | None
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Row:
    """One use of one model: nothing the APIs can group by is mixed inside it.

    `kind` is the endpoint's last path part (`completions`, `messages`), `start_s` Unix seconds UTC.
    `late` and `delay` are draws in [0, 1): whether and how much the row is held back.
    A `correction` is a row the vendor adds days afterwards.
    """

    kind: str
    start_s: int
    dims: Mapping[str, Dimension]
    counts: Mapping[str, int]
    late: float = 0.999
    delay: float = 0.0
    correction: bool = False

    @property
    def day(self) -> date:
        return datetime.fromtimestamp(self.start_s, UTC).date()


@dataclass(frozen=True, slots=True)
class Late:
    """How usage arrives: a share of rows is held back up to `hours` after its day has ended.

    Nothing else is published about lateness (facts 1.6, 2.5), so the numbers are the sandbox's own.
    """

    share: float = 0.3
    hours: float = 48.0
    correction_days: float = 3.0
    corrections: bool = True

    def visible(self, row: Row, now_s: float) -> bool:
        """Say whether the vendor already shows this row at `now_s` (Unix seconds)."""
        if row.start_s > now_s:
            return False
        day_end_s = row.start_s - row.start_s % DAY_S + DAY_S
        if row.correction:
            return self.corrections and now_s >= day_end_s + self.correction_days * DAY_S
        if row.late < self.share:
            return now_s >= day_end_s + row.delay * self.hours * 3600
        return True


class Draw:
    """A stream of draws that depends only on its key; no state is shared between streams."""

    def __init__(self, *key: object) -> None:
        self._key = "|".join(str(part) for part in key).encode()
        self._block = 0
        self._words: list[int] = []

    def _word(self) -> int:
        if not self._words:
            digest = blake2b(self._key + b"#%d" % self._block).digest()
            self._words = [int.from_bytes(digest[i : i + 8], "big") for i in range(0, 64, 8)]
            self._block += 1
        return self._words.pop()

    def unit(self) -> float:
        """Give a float in [0, 1)."""
        return (self._word() >> 11) / (1 << 53)

    def between(self, low: int, high: int) -> int:
        """Give an integer in [low, high], both included."""
        return low + self._word() % (high - low + 1)

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def pick[T](self, options: Sequence[T]) -> T:
        return options[self._word() % len(options)]

    def some[T](self, options: Sequence[T], count: int) -> tuple[T, ...]:
        """Give `count` different options, in the order they were listed."""
        ranked = sorted(range(len(options)), key=lambda i: (self._word(), i))
        return tuple(options[i] for i in sorted(ranked[:count]))


def day_start_s(day: date) -> int:
    """Give 00:00Z of a day as Unix seconds."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())

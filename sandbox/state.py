"""All that a running sandbox knows: its clock, its keys, its rules, what it has seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sandbox.data import Provider, known_totals, rows_between
from sandbox.faults import Faults
from sandbox.rows import Late, Row
from sandbox.seen import Seen
from sandbox.styles import check_style

KEY_PREFIX = {"openai": "sk-admin-sandbox-", "anthropic": "sk-ant-admin-sandbox-"}


@dataclass
class State:
    """One sandbox; both provider servers share it."""

    seed: int = 1
    scale: float = 1.0
    style: str = "full"
    org_styles: dict[str, str] = field(default_factory=dict)
    late: Late = field(default_factory=Late)
    faults: Faults = field(default_factory=Faults)
    seen: Seen = field(default_factory=Seen)
    revoked: set[str] = field(default_factory=set)
    #: Google's access tokens, and the service account each was given to.
    tokens: dict[str, str] = field(default_factory=dict)
    _set_now: datetime | None = None

    def __post_init__(self) -> None:
        check_style(self.style)

    def now(self) -> datetime:
        """Give the sandbox's time, UTC: the real one unless set."""
        return self._set_now or datetime.now(UTC)

    def set_clock(self, now: datetime | None) -> None:
        """Set the time and let it stand still; None gives the real time back."""
        if now is not None and now.tzinfo is None:
            raise ValueError("the clock needs a time with a zone, e.g. 2026-11-20T00:00:00Z")
        self._set_now = now

    def advance(self, seconds: float) -> None:
        self._set_now = self.now() + timedelta(seconds=seconds)

    def set_style(self, style: str, *, org: str | None = None) -> None:
        check_style(style)
        if org is None:
            self.style = style
        else:
            self.org_styles[org] = style

    def style_of(self, org: str) -> str:
        return self.org_styles.get(org, self.style)

    def rows(self, provider: Provider, org: str, start_s: int, end_s: int) -> Iterator[Row]:
        """Give the rows in [start_s, end_s) that the vendor shows now."""
        now_s = self.now().timestamp()
        end_s = min(end_s, int(now_s) + 1)
        for row in rows_between(provider, self.seed, org, start_s, end_s, scale=self.scale):
            if self.late.visible(row, now_s):
                yield row

    def known_totals(
        self, org: str, start: date, end: date, provider: Provider, *, now: datetime | None = None
    ) -> dict[str, Any]:
        """Add up the days [start, end) as `data.known_totals` does, with this sandbox's seed and scale."""
        return known_totals(
            org, start, end, provider, seed=self.seed, scale=self.scale, now=now, late=self.late
        )

    def reset(self) -> None:
        """Forget every fault, request, revoked key, style, late rule and set clock."""
        self.faults.clear()
        self.seen.clear()
        self.revoked.clear()
        self.tokens.clear()
        self.org_styles.clear()
        self.late, self._set_now, self.style = Late(), None, "full"


def admin_key(provider: Provider, org: str) -> str:
    """Write the admin key that the sandbox knows for an organisation."""
    return KEY_PREFIX[provider] + org

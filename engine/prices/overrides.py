"""Negotiated rates: one organisation's own cards, which come before the list's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

from engine.prices.cards import RateCard, gaps, refuse_overlap
from engine.prices.files import OverrideFile, read


def overrides(root: Path, org_slug: str, listed: Sequence[RateCard]) -> list[RateCard]:
    """The cards of configs/{org_slug}/prices.yml, none when there is no such file."""
    path = root / "configs" / org_slug / "prices.yml"
    if not path.exists():
        return []
    found: list[RateCard] = []
    for entry in read(path, OverrideFile).overrides:
        own = entry.card(entry.provider, org_slug)
        bases = [card for card in listed if replace(own, org_slug=None).key == card.key]
        found += _overriding(own, bases, inherit_match=entry.match is None)
    refuse_overlap(found)
    return found


def override_card(
    base: RateCard,
    *,
    org_slug: str,
    rates: Mapping[str, Decimal],
    source: str,
    valid_from: date | None = None,
    valid_to: date | None = None,
) -> RateCard:
    """One organisation's own card instead of `base`; meters not in `rates` keep the base's rate."""
    return replace(
        base,
        org_slug=org_slug,
        rates={**base.rates, **rates},
        source=source,
        valid_from=_latest(base.valid_from, valid_from),
        valid_to=_earliest(base.valid_to, valid_to),
    )


def _overriding(own: RateCard, bases: Sequence[RateCard], *, inherit_match: bool) -> list[RateCard]:
    """Cut an override along the list's periods, so that it inherits what each of them says."""
    found: list[RateCard] = []
    for start, end in gaps((own.valid_from, own.valid_to), [(b.valid_from, b.valid_to) for b in bases]):
        match = bases[0].match if bases and inherit_match else own.match
        found.append(replace(own, match=match, valid_from=start, valid_to=end))
    for base in bases:
        start, end = _latest(base.valid_from, own.valid_from), _earliest(base.valid_to, own.valid_to)
        if not start or not end or start < end:
            match = base.match if inherit_match else own.match
            rates = {**base.rates, **own.rates}
            found.append(replace(own, match=match, rates=rates, valid_from=start, valid_to=end))
    return found


def _latest(one: date | None, other: date | None) -> date | None:
    return max((day for day in (one, other) if day), default=None)


def _earliest(one: date | None, other: date | None) -> date | None:
    return min((day for day in (one, other) if day), default=None)

"""Where list prices come from: genai-prices, and what configs/system/prices adds to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from engine.errors import ConfigurationError
from engine.prices.cards import RateCard, exact, gaps, refuse_overlap
from engine.prices.files import Derivation, PriceFile, read
from engine.prices.genai import Catalogue, cards_of


def cards(root: Path) -> list[RateCard]:
    """Every list card of every provider, in book order.

    Raises ConfigurationError naming file, field and problem, or the two cards that overlap.
    """
    found: list[RateCard] = []
    for path in sorted((root / "configs" / "system" / "prices").glob("*.yml")):
        file = read(path, PriceFile)
        own = [entry.card(file.provider) for entry in file.cards]
        if entry := file.genai_prices:
            own += cards_of(Catalogue(**entry.model_dump()))
        for rule in file.derivations:
            own += _derived(rule, own)
        found += own
    refuse_overlap(found)
    return found


def _derived(rule: Derivation, known: Sequence[RateCard]) -> Iterator[RateCard]:
    for card in [card for card in known if _concerns(rule, card)]:
        target = _at(card, rule.to, source=rule.source)
        own = sorted(
            (other for other in known if other.key == target.key),
            key=lambda other: other.valid_from or date.min,
        )
        factors = _factors(rule, own[0], known) if own else rule.factors
        if factors == "listed":
            continue
        rates = {meter: _scaled(rule, card, meter, factors) for meter in card.rates}
        days = (card.valid_from, card.valid_to)
        for start, end in gaps(days, [(other.valid_from, other.valid_to) for other in own]):
            yield replace(target, rates=rates, valid_from=start, valid_to=end)


def _concerns(rule: Derivation, card: RateCard) -> bool:
    fits = all(getattr(card, name) == value for name, value in rule.from_.items())
    return fits and re.fullmatch(rule.models, card.model) is not None


def _factors(
    rule: Derivation, first: RateCard, known: Sequence[RateCard]
) -> Mapping[str, Decimal | Fraction] | Literal["listed"]:
    if rule.factors != "listed":
        return rule.factors
    standard = _at(first, rule.from_, source=rule.source).key
    day = first.valid_from or date.min
    base = next((card for card in known if card.key == standard and card.valid_on(day)), None)
    if base is None:
        return "listed"
    return {
        meter: Fraction(rate) / Fraction(base.rates[meter])
        for meter, rate in first.rates.items()
        if base.rates.get(meter)
    }


def _scaled(
    rule: Derivation, card: RateCard, meter: str, factors: Mapping[str, Decimal | Fraction]
) -> Decimal:
    rate = exact(Fraction(card.rates[meter]) * Fraction(factors.get(meter, 1)))
    if rate is None:
        raise ConfigurationError(
            f"Derivation {rule.name!r}: {meter} of {card} does not fit 12 places.",
            fix="Write that card out under `cards`.",
        )
    return rate


def _at(card: RateCard, dimensions: Mapping[Any, str], *, source: str) -> RateCard:
    moved: dict[str, Any] = dict(dimensions)
    return replace(card, source=source, **moved)

"""The dated rate cards of one provider, looked up for the days and names that usage rows carry."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import polars as pl

from engine.errors import ConfigurationError
from engine.prices.cards import DIMENSIONS, METERS, RATE_SCALE, RateCard, clause_matcher, refuse_overlap

# The columns a provider's mapping adds to its usage rows; together with the day they name one card.
KEYS = ("usage_date", "price_model", "price_tier", "price_window", "price_geo", "price_speed")
RATE = pl.Decimal(38, RATE_SCALE)
_NAMES = KEYS[1:]
_COMPACT_DATE = re.compile(r"-(\d{4})(\d{2})(\d{2})$")


class PriceBook:
    """Cards of one provider as they are known at one instant, list and one organisation's own.

    Raises ConfigurationError when two cards overlap, are of another provider or of two currencies.
    """

    def __init__(self, provider: str, cards: Iterable[RateCard], *, org: str | None = None) -> None:
        self.provider = provider
        self.org = org
        self.cards = tuple(card for card in cards if card.org_slug in (None, org))
        refuse_overlap(self.cards)
        if foreign := [card for card in self.cards if card.provider != provider]:
            raise ConfigurationError(
                f"Rate card {foreign[0]} is not {provider}'s.", fix="Read one provider per book."
            )
        currencies = {card.currency for card in self.cards}
        if len(currencies) > 1:
            raise ConfigurationError(
                f"{provider}'s rate cards are in {', '.join(sorted(currencies))}.",
                fix="Keep one currency per provider.",
            )
        self.currency = currencies.pop() if currencies else "USD"
        self._place = {id(card): place for place, card in enumerate(self.cards)}
        self._own = _Models([card for card in self.cards if card.org_slug])
        self._listed = _Models([card for card in self.cards if not card.org_slug])

    def resolve(self, wanted: pl.DataFrame, meters: Sequence[str] = tuple(METERS)) -> pl.DataFrame:
        """The card of each distinct row of KEYS: KEYS, `price_id` and `{meter}_rate` as Decimal(38, 12).

        A row without a card is left out. A dimension that a row leaves null is answered only when every
        card it could mean has the same rates. An organisation's own card comes before the list's.
        """
        keys = wanted.select(KEYS).unique()
        spans = self._spans(keys.select(_NAMES).unique())
        fitting = keys.join(spans, on=_NAMES, nulls_equal=True).filter(
            (pl.col("valid_from").is_null() | (pl.col("valid_from") <= pl.col("usage_date")))
            & (pl.col("valid_to").is_null() | (pl.col("usage_date") < pl.col("valid_to")))
        )
        best = fitting.filter(pl.col("listed") == pl.col("listed").min().over(KEYS))
        chosen = (
            best.group_by(KEYS)
            .agg(pl.col("card").min(), pl.col("rates").n_unique().alias("answers"))
            .filter(pl.col("answers") == 1)
            .drop("answers")
        )
        return chosen.join(self._rates(meters), on="card").drop("card")

    def _spans(self, names: pl.DataFrame) -> pl.DataFrame:
        rows: list[tuple[Any, ...]] = []
        for name in names.iter_rows():
            for listed, models in ((False, self._own), (True, self._listed)):
                for card in models.named(name[0]):
                    if all(
                        asked is None or asked == getattr(card, dimension)
                        for asked, dimension in zip(name[1:], DIMENSIONS, strict=True)
                    ):
                        answer = (self._place[id(card)], _fingerprint(card))
                        rows.append((*name, listed, *answer, card.valid_from, card.valid_to))
        schema: dict[str, Any] = dict.fromkeys(_NAMES, pl.String)
        schema |= {"listed": pl.Boolean, "card": pl.Int32, "rates": pl.String}
        return pl.DataFrame(rows, schema=schema | {"valid_from": pl.Date, "valid_to": pl.Date}, orient="row")

    def _rates(self, meters: Sequence[str]) -> pl.DataFrame:
        places = pl.Series("card", range(len(self.cards)), dtype=pl.Int32)
        ids = pl.Series("price_id", [card.price_id for card in self.cards], dtype=pl.String)
        rates = [_column(f"{meter}_rate", [card.rates.get(meter) for card in self.cards]) for meter in meters]
        return pl.DataFrame([places, ids, *rates])


class _Models:
    """Cards by model, and which model a usage row's name means."""

    def __init__(self, cards: Sequence[RateCard]) -> None:
        self._cards: dict[str, list[RateCard]] = {}
        self._clauses: list[tuple[Callable[[str], bool], str]] = []
        for card in cards:
            if card.model not in self._cards:
                self._clauses.append((clause_matcher(card.match), card.model))
            self._cards.setdefault(card.model, []).append(card)

    def named(self, name: str | None) -> list[RateCard]:
        """The cards of the model called exactly `name`, else of the first whose clause fits."""
        if name is None:
            return []
        lower = name.lower()
        dashed = _COMPACT_DATE.sub(r"-\1-\2-\3", lower)
        for spelling in dict.fromkeys((lower, dashed)):
            if spelling in self._cards:
                return self._cards[spelling]
            for fits, model in self._clauses:
                if fits(spelling):
                    return self._cards[model]
        return []


def _fingerprint(card: RateCard) -> str:
    return repr(sorted(card.rates.items()))


def _column(name: str, rates: Sequence[Decimal | None]) -> pl.Series:
    return pl.Series(name, rates, dtype=RATE)

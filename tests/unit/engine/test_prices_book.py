"""The book: which model a name means, which day, whose price, and when there is no answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from engine.errors import ConfigurationError
from engine.prices.book import KEYS, PriceBook
from engine.prices.cards import RateCard
from engine.prices.overrides import override_card
from engine.prices.sources import cards

ROOT = Path(__file__).parents[3]
DAY = date(2026, 10, 15)
CARD = RateCard(
    provider="p",
    model="one",
    match='{"starts_with":"one"}',
    rates={"input": Decimal("0.001")},
    source="test",
)
Key = tuple[date, str | None, str | None, str | None, str | None, str | None]


def key(model: str | None, day: date = DAY, tier: str = "standard", geo: str | None = None) -> Key:
    return (day, model, tier, None, geo, None)


def answer(book: PriceBook, wanted: Key) -> str | None:
    schema = {name: pl.Date if name == "usage_date" else pl.String for name in KEYS}
    found = book.resolve(pl.DataFrame([wanted, wanted], schema=schema, orient="row"), ("input",))
    assert found.height <= 1
    return found["price_id"][0] if found.height else None


@cache
def openai() -> PriceBook:
    return PriceBook("openai", [card for card in cards(ROOT) if card.provider == "openai"])


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("GPT-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("gpt-5.2-2025-12-11", "gpt-5.2"),
        ("gpt-5.2-20251211", "gpt-5.2"),
        ("omni-moderation-latest", "moderation"),
        ("web_search/gpt-4o-search-preview", "web_search_preview"),
        ("web_search/", "web_search"),
        ("gpt-4o-2031-01-01", None),
        ("", None),
        (None, None),
    ],
)
def test_names(name: str | None, model: str | None) -> None:
    found = answer(openai(), key(name))
    assert {card.model for card in openai().cards if card.price_id == found} == ({model} if model else set())


def test_exact_name_before_an_earlier_clause_and_then_book_order() -> None:
    greedy = replace(CARD, match='{"contains":"o"}')
    two = replace(CARD, model="two", match='{"starts_with":"tw"}')
    book = PriceBook("p", [greedy, two])
    assert answer(book, key("two")) == two.price_id
    assert answer(book, key("two-b")) == greedy.price_id
    assert answer(PriceBook("p", [two, greedy]), key("two-b")) == two.price_id


def test_days_are_half_open() -> None:
    old, new = replace(CARD, valid_to=DAY), replace(CARD, valid_from=DAY, rates={"input": Decimal(1)})
    book = PriceBook("p", [new, old])
    assert answer(book, key("one", date(2026, 10, 14))) == old.price_id
    assert answer(book, key("one", DAY)) == new.price_id
    assert answer(PriceBook("p", [new]), key("one", date(2026, 10, 14))) is None


def test_dimensions_are_exact_and_an_unnamed_one_needs_one_answer() -> None:
    world, us = replace(CARD, inference_geo="global"), replace(CARD, inference_geo="us")
    assert answer(PriceBook("p", [world]), key("one", geo="us")) is None
    assert answer(PriceBook("p", [world]), key("one", tier="flex")) is None
    assert answer(PriceBook("p", [world, us]), key("one")) == world.price_id
    dear = replace(us, rates={"input": Decimal("0.0011")})
    assert answer(PriceBook("p", [world, dear]), key("one")) is None
    assert answer(PriceBook("p", [world, dear]), key("one", geo="us")) == dear.price_id


def test_an_override_wins_on_its_days_for_its_organisation_only() -> None:
    own = override_card(
        CARD,
        org_slug="acme",
        rates={"input": Decimal("0.0007")},
        source="contract",
        valid_from=DAY,
        valid_to=date(2026, 11, 1),
    )
    acme = PriceBook("p", [CARD, own], org="acme")
    days = [date(2026, 10, 14), DAY, date(2026, 10, 31), date(2026, 11, 1)]
    expected = [CARD.price_id, own.price_id, own.price_id, CARD.price_id]
    assert [answer(acme, key("one", day)) for day in days] == expected
    assert answer(PriceBook("p", [CARD, own], org="beta"), key("one")) == CARD.price_id


def test_a_book_refuses_what_it_cannot_answer_for() -> None:
    with pytest.raises(ConfigurationError, match="overlap"):
        PriceBook("p", [CARD, replace(CARD, rates={"input": Decimal(2)})])
    with pytest.raises(ConfigurationError, match="is not q's"):
        PriceBook("q", [CARD])
    with pytest.raises(ConfigurationError, match="EUR, USD"):
        PriceBook("p", [CARD, replace(CARD, tier="batch", currency="EUR")])


def test_an_empty_book_answers_nothing() -> None:
    assert answer(PriceBook("p", []), key("one")) is None

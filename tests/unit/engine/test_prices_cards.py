"""Rate cards: what fits, what overlaps, what a price id covers, and the match clauses."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest

from engine.errors import ConfigurationError
from engine.prices.cards import RateCard, clause_matcher, exact, gaps, literal, refuse_overlap

CARD = RateCard(
    provider="openai",
    model="gpt-x",
    match='{"equals":"gpt-x"}',
    rates={"input": Decimal("0.000000000125")},
    source="https://example.com",
)
D1, D2, D3 = date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)


@pytest.mark.parametrize("rate", ["0.0000000000125", "-0.1", "NaN", "Infinity", "1E14"])
def test_a_rate_that_does_not_fit_is_refused_by_card_and_meter(rate: str) -> None:
    with pytest.raises(ConfigurationError, match=r"openai gpt-x standard .*: input = "):
        replace(CARD, rates={"input": Decimal(rate)})


def test_a_card_needs_known_meters_and_a_beginning_before_its_end() -> None:
    with pytest.raises(ConfigurationError, match="tokens is no meter"):
        replace(CARD, rates={"tokens": Decimal(1)})
    with pytest.raises(ConfigurationError, match="no rate"):
        replace(CARD, rates={})
    with pytest.raises(ConfigurationError, match="ends on 2026-01-01"):
        replace(CARD, valid_from=D1, valid_to=D1)


def test_a_price_id_is_what_is_charged() -> None:
    same = replace(CARD, source="elsewhere", rates={"input": Decimal("0.000000000125000")})
    assert same.price_id == CARD.price_id
    others = [
        replace(CARD, rates={"input": Decimal("0.000000000126")}),
        replace(CARD, rates={"output": Decimal("0.000000000125")}),
        replace(CARD, valid_to=D1),
        replace(CARD, tier="batch"),
        replace(CARD, org_slug="acme"),
        replace(CARD, match='{"starts_with":"gpt-x"}'),
    ]
    assert len({card.price_id for card in (CARD, *others)}) == 7


def test_overlap_names_both_cards() -> None:
    early = replace(CARD, valid_to=D2, source="A")
    refuse_overlap([early, replace(CARD, valid_from=D2), replace(CARD, tier="batch")])
    with pytest.raises(ConfigurationError, match=r"\(A\) and .*\(B\)"):
        refuse_overlap([replace(CARD, valid_from=D1, source="B"), early])


@pytest.mark.parametrize(
    ("days", "taken", "left"),
    [
        ((None, None), [(D1, D2)], [(None, D1), (D2, None)]),
        ((None, D2), [(D1, None)], [(None, D1)]),
        ((D1, D3), [(None, D2)], [(D2, D3)]),
        ((D1, D3), [(None, None)], []),
        ((None, None), [], [(None, None)]),
        ((D1, None), [(D2, D3)], [(D1, D2), (D3, None)]),
    ],
)
def test_gaps(
    days: tuple[date | None, date | None],
    taken: list[tuple[date | None, date | None]],
    left: list[tuple[date | None, date | None]],
) -> None:
    assert list(gaps(days, taken)) == left


def test_exact_and_literal() -> None:
    assert exact(Fraction("0.36") / 3600) == Decimal("0.0001")
    assert exact(Fraction("1.02") / 3600) is None
    assert [literal(Decimal(text)) for text in ("1E-12", "0.500", "100", "0", "0.0")] == [
        "0.000000000001",
        "0.5",
        "100",
        "0",
        "0",
    ]


def test_clauses_are_genai_prices_own() -> None:
    fits = clause_matcher('{"or":[{"equals":"gpt-x"},{"regex":"^gpt-x-\\\\d{4}$"}]}')
    assert [fits(name) for name in ("gpt-x", "gpt-x-2026", "gpt-x-mini")] == [True, True, False]
    for wrong in ('{"likes":"x"}', "{}", "not json", '["a"]', '{"or":"x","and":"y"}'):
        with pytest.raises(ConfigurationError, match="no match clause"):
            clause_matcher(wrong)

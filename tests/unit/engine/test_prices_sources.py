"""List prices: genai-prices and the YAML, derivations, overrides; history that may not change by accident."""

from __future__ import annotations

import hashlib
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path

import pytest

from engine.errors import ConfigurationError
from engine.prices.cards import RateCard, literal
from engine.prices.overrides import overrides
from engine.prices.sources import cards

ROOT = Path(__file__).parents[3]
# How many price periods are over, and the digest of all of them.
CLOSED = (142, "6eb5966d54246d79b8d94611a489b52c0feb09c1defde5e431e7d9a4fc74c345")


@cache
def listed() -> tuple[RateCard, ...]:
    return tuple(cards(ROOT))


def rates(model: str, day: date, **dimensions: str) -> dict[str, str]:
    wanted = {"tier": "standard", **dimensions}
    (card,) = [
        card
        for card in listed()
        if card.model == model
        and card.valid_on(day)
        and all(getattr(card, name) == value for name, value in wanted.items())
    ]
    return {meter: literal(rate) for meter, rate in card.rates.items()}


def folder(root: Path, text: str, place: str = "system/prices/p.yml") -> Path:
    path = root / "configs" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return root


def test_closed_periods_are_history() -> None:
    closed = sorted(f"{card} {card.price_id}" for card in listed() if card.valid_to)
    digest = hashlib.sha256("\n".join(closed).encode()).hexdigest()
    # A new digest means that a price of days gone by changed: restatement will reprice them. Say why.
    assert (len(closed), digest) == CLOSED


def test_every_price_is_named_once_and_every_card_says_where_it_stands() -> None:
    assert len({card.price_id for card in listed()}) == len(listed())
    assert all(card.source.startswith(("https://", "genai-prices ")) for card in listed())


def test_base_rate_of_a_tiered_price_and_the_window_that_names_it() -> None:
    day = date(2026, 3, 12)
    assert rates("gpt-5.6-sol", date(2026, 10, 15))["input"] == "0.000004"
    long = {"context_window": "200k-1M", "inference_geo": "global"}
    short = {"context_window": "0-200k", "inference_geo": "global"}
    assert rates("claude-sonnet-4-6", day, **long)["input"] == "0.000006"
    assert rates("claude-sonnet-4-6", date(2026, 3, 13), **long)["input"] == "0.000003"
    assert rates("claude-sonnet-4-6", day, **short)["input"] == "0.000003"


def test_dated_prices_and_variants() -> None:
    assert rates("o3", date(2025, 6, 9))["input"] == "0.00001"
    assert rates("o3", date(2025, 6, 10))["input"] == "0.000002"
    assert rates("o3", date(2025, 6, 9), tier="batch")["input"] == "0.000005"
    assert rates("o3", date(2026, 10, 12), tier="flex")["cached_input"] == "0.00000025"
    assert rates("gpt-3.5-turbo-1106", date(2026, 1, 1), tier="batch")["input"] == "0.000001"
    early = {card.model for card in listed() if card.tier == "priority" and card.valid_on(date(2026, 1, 1))}
    assert "gpt-4.1" not in early


def test_explicit_cards() -> None:
    day = date(2026, 11, 1)
    assert rates("web_search", day) == {"web_search": "0.01"}
    assert rates("web_search_preview", day) == {"web_search": "0.025"}
    assert rates("file_search", day) == {"file_search": "0.0025"}
    assert rates("moderation", day) == {"input": "0", "output": "0"}
    assert rates("whisper-1", day) == {"second": "0.0001"}
    assert rates("dall-e-2/256x256", day) == {"image": "0.016"}


def test_united_states_costs_a_tenth_more_from_4_6_on() -> None:
    us = {card.model for card in listed() if card.inference_geo == "us"}
    assert {"claude-opus-4-6", "claude-sonnet-4-6", "claude-opus-5", "claude-haiku-5-5"} <= us
    assert not us & {"claude-opus-4-5", "claude-haiku-4-5", "claude-sonnet-4-5"}
    place = {"context_window": "0-200k", "inference_geo": "us", "speed": "standard"}
    found = rates("claude-opus-5", date(2026, 10, 15), **place)
    assert (found["input"], found["cache_write_1h"], found["web_search"]) == ("0.0000055", "0.000011", "0.01")


HEAD = "provider: p\ncards:\n  - {model: m, source: s, checked: 2026-01-01, rates: {input: "
TWICE = HEAD + '"0.1"}}\n  - {model: m, source: t, checked: 2026-01-01, rates: {input: "1"}}'
THIRD = (
    HEAD + '"0.1"}}\nderivations:\n  - {name: third, from: {tier: standard}, to: {tier: x}, source: s,'
    ' checked: 2026-01-01, factors: {input: "0.33333333333333"}}'
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + '"0.0000000000001"}}', "p m standard .*input = 1E-13"),
        (HEAD + "0.1}}", "cards.0.rates.input: .*quoted"),
        (HEAD + '"0.1"}, colour: red}', "cards.0.colour: Extra inputs"),
        (TWICE, r"overlap.*\(s\)"),
        (THIRD, "third.*does not fit"),
        ("provider: p\nprices: []", "prices: Extra inputs"),
        ("provider: p\ngenai_prices: {provider: nobody}", "no provider 'nobody'"),
        ("provider: [p", r"p\.yml"),
    ],
)
def test_a_wrong_price_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        cards(folder(tmp_path, text))


OVERRIDE = """
overrides:
  - provider: openai
    model: o3
    valid_from: 2025-06-01
    valid_to: 2026-01-01
    rates: {input: "0.0000009"}
    source: contract 17
    checked: 2026-01-01
  - provider: openai
    model: gpt-4.1
    tier: scale
    rates: {input: "0.000001", output: "0.000004"}
    source: contract 17
    checked: 2026-01-01
"""


def test_an_override_inherits_what_the_list_says_on_its_days(tmp_path: Path) -> None:
    found = overrides(folder(tmp_path, OVERRIDE, "acme/prices.yml"), "acme", listed())
    o3 = sorted((card for card in found if card.model == "o3"), key=lambda card: card.valid_from or date.min)
    days = [(card.valid_from, card.valid_to) for card in o3]
    assert days == [(date(2025, 6, 1), date(2025, 6, 10)), (date(2025, 6, 10), date(2026, 1, 1))]
    assert {card.rates["input"] for card in o3} == {Decimal("0.0000009")}
    assert [card.rates["output"] for card in o3] == [Decimal("0.00004"), Decimal("0.000008")]
    assert "o3-2025-04-16" in o3[0].match
    (scale,) = [card for card in found if card.tier == "scale"]
    assert (scale.org_slug, scale.valid_from, scale.valid_to) == ("acme", None, None)
    assert overrides(tmp_path, "beta", listed()) == []

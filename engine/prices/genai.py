"""Rate cards out of the genai-prices package: its data only, never its arithmetic on a day's total."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction
from importlib.metadata import version
from itertools import pairwise
from typing import Any

from genai_prices.data import providers
from genai_prices.types import ModelInfo, ModelPrice, StartDateConstraint, TieredPrices

from engine.errors import ConfigurationError
from engine.prices.cards import RateCard, clause_json, exact

# Price key of the package -> our meter and how many units its price is for.
_METERS: Mapping[str, tuple[str, int]] = {
    "input_mtok": ("input", 1_000_000),
    "cache_read_mtok": ("cached_input", 1_000_000),
    "cache_write_mtok": ("cache_write", 1_000_000),
    "cache_write_1h_mtok": ("cache_write_1h", 1_000_000),
    "output_mtok": ("output", 1_000_000),
    "input_audio_mtok": ("input_audio", 1_000_000),
    "cache_audio_read_mtok": ("cached_audio", 1_000_000),
    "output_audio_mtok": ("output_audio", 1_000_000),
    "input_image_mtok": ("input_image", 1_000_000),
    "cache_image_read_mtok": ("cached_image", 1_000_000),
    "output_image_mtok": ("output_image", 1_000_000),
    "web_searches_kcount": ("web_search", 1_000),
    "storage_searches_kcount": ("file_search", 1_000),
    "input_mchars": ("character", 1_000_000),
    "audio_hours": ("second", 3_600),
    "input_audio_hours": ("second", 3_600),
}
# $1.02, $2.04 and $3 an hour are no finite decimal a second, and no usage row counts hours: UNPRICED.
_NO_FINITE_RATE = frozenset(
    {"gpt-live-1", "gpt-live-transcribe", "gpt-realtime-translate", "gpt-realtime-whisper"}
)
# What a price variant of the package is called in a usage row.
_VARIANTS: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("service_tier", "flex"): {"tier": "flex"},
    ("service_tier", "priority"): {"tier": "priority"},
    ("service_tier", "fast"): {"tier": "fast"},
    ("processing", "batch"): {"tier": "batch"},
    ("speed", "fast"): {"speed": "fast"},
}
_STANDARD = ("service_tier", "default")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """How one provider of the package becomes cards.

    `meters` renames a price key's meter (None: not taken). `windows` maps a context window of the usage
    rows to the tokens that each of its requests exceeds. `covers` maps a meter to the general one whose
    price holds for it where the package names no other.
    """

    provider: str
    meters: Mapping[str, str | None]
    covers: Mapping[str, str]
    windows: Mapping[str, int]
    geo: str | None
    speed: str | None


def cards_of(catalogue: Catalogue) -> Iterator[RateCard]:
    """Yield the package's cards of one provider, in its own order of models."""
    found = next((known for known in providers if known.id == catalogue.provider), None)
    if found is None:
        raise ConfigurationError(
            f"genai-prices has no provider {catalogue.provider!r}.", fix="Correct `genai_prices.provider`."
        )
    for model in found.models:
        for when in [None, *_variants(model)]:
            for start, end in _periods(model, when):
                yield from _cards(catalogue, model, when, start, end)


def _variants(model: ModelInfo) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for variant in model.price_variants or ():
        (when,) = variant.when.items()
        if when != _STANDARD and when not in _VARIANTS:
            raise ConfigurationError(
                f"genai-prices: {model.id} has a variant {variant.when} that Manta does not know.",
                fix="Add it to engine/prices/genai.py.",
            )
        if when != _STANDARD and when not in found:
            found.append(when)
    return found


def _periods(model: ModelInfo, when: tuple[str, str] | None) -> Iterator[tuple[date | None, date | None]]:
    """Yield [start, end) stretches in which no price of the model in this context changes."""
    dated = model.prices if isinstance(model.prices, list) else []
    constraints = [price.constraint for price in dated]
    own = [
        variant.constraint for variant in model.price_variants or () if when and when in variant.when.items()
    ]
    starts = {_start(model, constraint) for constraint in [*constraints, *own]} - {None}
    edges: list[date | None] = [None, *sorted(day for day in starts if day), None]
    for start, end in pairwise(edges):
        first = start or date.min
        if when is None or any((_start(model, constraint) or date.min) <= first for constraint in own):
            yield start, end


def _start(model: ModelInfo, constraint: object) -> date | None:
    if constraint is None:
        return None
    if not isinstance(constraint, StartDateConstraint):
        raise ConfigurationError(
            f"genai-prices: {model.id} has a price by time of day, which daily usage cannot be priced by.",
            fix="Leave the model out or price it in configs/system/prices.",
        )
    return constraint.start_date


def _cards(
    catalogue: Catalogue, model: ModelInfo, when: tuple[str, str] | None, start: date | None, end: date | None
) -> Iterator[RateCard]:
    instant = datetime.combine(start or date(1970, 1, 1), time(), tzinfo=UTC)
    prices = model.get_prices(instant, dict([when]) if when else None)
    names = _VARIANTS[when] if when else {}
    for window, exceeded in _windows(catalogue, model, prices):
        if rates := _rates(catalogue, model, prices, exceeded):
            yield RateCard(
                provider=catalogue.provider,
                model=model.id,
                match=clause_json(model.match),
                rates=rates,
                source=f"genai-prices {version('genai-prices')}",
                tier=names.get("tier", "standard"),
                context_window=window,
                inference_geo=catalogue.geo,
                speed=names.get("speed", catalogue.speed),
                valid_from=start,
                valid_to=end,
            )


def _windows(catalogue: Catalogue, model: ModelInfo, prices: ModelPrice) -> Iterator[tuple[str | None, int]]:
    if not catalogue.windows:
        yield None, 0
    tiered = [price for _, price in _stored(prices) if isinstance(price, TieredPrices)]
    tiers = {tier.start for price in tiered for tier in price.tiers}
    for window, exceeded in catalogue.windows.items():
        if not exceeded or exceeded < (model.context_window or 0) or exceeded in tiers:
            yield window, exceeded


def _stored(prices: ModelPrice) -> Iterator[tuple[str, Any]]:
    own = vars(prices).items()
    return ((key, price) for key, price in own if price is not None and not key.startswith("_"))


def _rates(catalogue: Catalogue, model: ModelInfo, prices: ModelPrice, exceeded: int) -> dict[str, Decimal]:
    rates: dict[str, Decimal] = {}
    for key, price in _stored(prices):
        if key not in _METERS:
            raise ConfigurationError(
                f"genai-prices: {model.id} has a price {key} that Manta does not know.",
                fix="Add it to engine/prices/genai.py.",
            )
        usual, per = _METERS[key]
        meter = catalogue.meters.get(key, usual)
        if meter is None:
            continue
        rate = exact(Fraction(_at(price, exceeded)) / per)
        if rate is not None:
            rates[meter] = rate
        elif model.id not in _NO_FINITE_RATE:
            raise ConfigurationError(
                f"genai-prices: {model.id} {key} = {price} per {per} does not fit 12 places.",
                fix="Price the model in configs/system/prices or add it to _NO_FINITE_RATE.",
            )
    return rates | {
        meter: rates[general]
        for meter, general in catalogue.covers.items()
        if general in rates and meter not in rates and not _ambiguous(meter, rates)
    }


def _ambiguous(meter: str, rates: Mapping[str, Decimal]) -> bool:
    """Whether a cached meter could be meant by the general cached price or by its modality's own."""
    return meter.startswith("cached_") and meter.replace("cached_", "input_") in rates


def _at(price: Decimal | TieredPrices, exceeded: int) -> Decimal:
    """The price of requests of which no more is known than that they exceed `exceeded` tokens."""
    if isinstance(price, Decimal):
        return price
    certain = [tier.price for tier in price.tiers if 0 < tier.start <= exceeded]
    return certain[-1] if certain else price.base

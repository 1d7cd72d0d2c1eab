"""Rate cards: what one unit of each meter costs, for one key and a stretch of usage days."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import date
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

from genai_prices import types as genai

from engine.errors import ConfigurationError

# What a usage row can consume; a card's table column is `{meter}_rate`, in USD per one unit.
METERS: Mapping[str, str] = {
    "input": "uncached input token (text, and whatever has no meter of its own)",
    "cached_input": "input token read from the cache",
    "cache_write": "input token written to the cache (OpenAI)",
    "cache_write_12h": "input token written to the cache with 12 hours of retention (OpenAI)",
    "cache_write_5m": "input token written to the 5 minute cache (Anthropic)",
    "cache_write_1h": "input token written to the 1 hour cache (Anthropic)",
    "output": "output token (text, and whatever has no meter of its own)",
    "input_audio": "uncached audio input token",
    "cached_audio": "audio input token read from the cache",
    "output_audio": "audio output token",
    "input_image": "uncached image input token",
    "cached_image": "image input token read from the cache",
    "output_image": "image output token",
    "web_search": "web search call",
    "file_search": "file search call",
    "code_session": "code interpreter session",
    "character": "character of speech input",
    "second": "second of transcribed audio",
    "image": "generated image",
}
RATE_SCALE = 12
DIMENSIONS = ("tier", "context_window", "inference_geo", "speed")
# What is charged; where a rate was read and who checked it may change without a new price.
_HASHED = ("provider", "model", "match", *DIMENSIONS, "org_slug", "valid_from", "valid_to", "currency")


@dataclass(frozen=True, slots=True)
class RateCard:
    """One row of `model_prices`: USD per unit and meter, valid on usage days [valid_from, valid_to)."""

    provider: str
    model: str
    match: str
    rates: Mapping[str, Decimal]
    source: str
    tier: str = "standard"
    context_window: str | None = None
    inference_geo: str | None = None
    speed: str | None = None
    org_slug: str | None = None
    valid_from: date | None = None
    valid_to: date | None = None
    currency: str = "USD"

    def __post_init__(self) -> None:
        if not self.rates:
            raise ConfigurationError(f"Rate card {self} has no rate.", fix="Give at least one rate.")
        if self.valid_from and self.valid_to and self.valid_from >= self.valid_to:
            raise ConfigurationError(
                f"Rate card {self} ends on {self.valid_to} and starts on {self.valid_from}.",
                fix="valid_to is the first day after the card and must be later than valid_from.",
            )
        for meter, rate in self.rates.items():
            if meter not in METERS:
                raise ConfigurationError(
                    f"Rate card {self}: {meter} is no meter.", fix=f"Use one of {', '.join(METERS)}."
                )
            if not _fits(rate):
                raise ConfigurationError(
                    f"Rate card {self}: {meter} = {rate} is not a rate of at most {RATE_SCALE} places.",
                    fix=f"Give USD per one unit, not negative, at most {RATE_SCALE} places after the point.",
                )

    def __str__(self) -> str:
        named = [self.provider, self.model, *(getattr(self, name) for name in DIMENSIONS), self.org_slug]
        days = f"[{self.valid_from or '..'}, {self.valid_to or '..'})"
        return " ".join([*(part for part in named if part), days])

    @property
    def key(self) -> tuple[str | None, ...]:
        """What at most one card may answer for on any day."""
        return (self.provider, self.model, *(getattr(self, name) for name in DIMENSIONS), self.org_slug)

    @property
    def price_id(self) -> str:
        """Short hash of what is charged: key, clause, days, rates and currency, not of source."""
        charged: dict[str, Any] = {name: getattr(self, name) for name in _HASHED}
        charged["rates"] = {meter: literal(self.rates[meter]) for meter in sorted(self.rates)}
        return hashlib.sha256(json.dumps(charged, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def valid_on(self, day: date) -> bool:
        """Whether the card answers for usage of `day`."""
        return (not self.valid_from or self.valid_from <= day) and (not self.valid_to or day < self.valid_to)


def _fits(rate: Decimal) -> bool:
    return rate.is_finite() and rate >= 0 and rate < 10**14 and exact(Fraction(rate)) is not None


def exact(value: Fraction) -> Decimal | None:
    """The decimal that equals `value` with at most RATE_SCALE places, or None."""
    scaled = value * 10**RATE_SCALE
    if scaled.denominator != 1:
        return None
    return Decimal(scaled.numerator).scaleb(-RATE_SCALE).normalize()


def literal(rate: Decimal) -> str:
    """The one spelling of a rate: no exponent, no trailing zeros."""
    text = format(rate, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def refuse_overlap(cards: Iterable[RateCard]) -> None:
    """Raise ConfigurationError naming both when two cards answer for the same key and day."""
    by_key: defaultdict[tuple[str | None, ...], list[RateCard]] = defaultdict(list)
    for card in cards:
        by_key[card.key].append(card)
    for same in by_key.values():
        same.sort(key=lambda card: card.valid_from or date.min)
        for earlier, later in pairwise(same):
            if not earlier.valid_to or (later.valid_from or date.min) < earlier.valid_to:
                raise ConfigurationError(
                    f"Two rate cards overlap: {earlier} ({earlier.source}) and {later} ({later.source}).",
                    fix="End the earlier one where the later one begins, or remove one of them.",
                )


Days = tuple[date | None, date | None]


def gaps(days: Days, taken: Iterable[Days]) -> Iterator[Days]:
    """Yield what [start, end) leaves over after `taken`."""
    start, end = days
    cursor = start or date.min
    last = end or date.max
    for other_start, other_end in sorted((first or date.min, last_ or date.max) for first, last_ in taken):
        if cursor < min(other_start, last):
            yield (cursor if cursor > date.min else None), min(other_start, last)
        cursor = max(cursor, other_end)
    if cursor < last:
        yield (cursor if cursor > date.min else None), end


_CLAUSES: Mapping[str, type[Any]] = {
    "starts_with": genai.ClauseStartsWith,
    "ends_with": genai.ClauseEndsWith,
    "contains": genai.ClauseContains,
    "regex": genai.ClauseRegex,
    "equals": genai.ClauseEquals,
    "or": genai.ClauseOr,
    "and": genai.ClauseAnd,
}


def clause_json(clause: object) -> str:
    """A genai-prices match clause as the JSON that `model_prices.match` holds."""

    def plain(part: Any) -> Any:
        (only,) = fields(part)
        value = getattr(part, only.name)
        return {only.name.rstrip("_"): [plain(each) for each in value] if isinstance(value, list) else value}

    return json.dumps(plain(clause), separators=(",", ":"))


def clause_matcher(text: str) -> Callable[[str], bool]:
    """The match of a card as a function of a lowercase model name; genai-prices' own classes decide."""

    def build(part: Mapping[str, Any]) -> Any:
        if len(part) != 1 or (kind := next(iter(part))) not in _CLAUSES:
            raise ConfigurationError(
                f"{text} is no match clause.", fix=f"Use one key of {', '.join(_CLAUSES)}."
            )
        value = part[kind]
        return _CLAUSES[kind]([build(each) for each in value] if isinstance(value, list) else value)

    try:
        clause = build(json.loads(text))
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigurationError(f"{text} is no match clause.", fix="Correct the card's match.") from error
    return lambda name: bool(clause.is_match(name))

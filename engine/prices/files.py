"""The YAML of prices: configs/system/prices/*.yml and configs/{org_slug}/prices.yml."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from engine.errors import ConfigurationError
from engine.prices.cards import DIMENSIONS, RateCard


def _quoted(value: object) -> object:
    # An unquoted 0.1 in YAML is a binary float: its literal is already lost.
    if not isinstance(value, str | Decimal):
        raise ValueError('write it as a quoted decimal literal, such as "0.01"')
    return value


Exact = Annotated[Decimal, BeforeValidator(_quoted)]
Dimension = Literal["tier", "context_window", "inference_geo", "speed"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GenaiEntry(_Model):
    """What is taken from the genai-prices package, see `engine.prices.genai.Catalogue`."""

    provider: str
    meters: dict[str, str | None] = Field(default_factory=dict)
    covers: dict[str, str] = Field(default_factory=dict)
    windows: dict[str, int] = Field(default_factory=dict)
    geo: str | None = None
    speed: str | None = None


class CardEntry(_Model):
    """A rate card written out, USD per unit; `match` defaults to the model's exact name."""

    model: str
    match: dict[str, Any] | None = None
    tier: str = "standard"
    context_window: str | None = None
    inference_geo: str | None = None
    speed: str | None = None
    valid_from: date | None = None
    valid_to: date | None = None
    rates: dict[str, Exact]
    source: str
    checked: date
    note: str = ""

    def card(self, provider: str, org_slug: str | None = None) -> RateCard:
        """The entry as a card."""
        return RateCard(
            provider=provider,
            model=self.model,
            match=json.dumps(self.match or {"equals": self.model}, separators=(",", ":")),
            rates=self.rates,
            source=self.source,
            **{name: getattr(self, name) for name in DIMENSIONS},
            org_slug=org_slug,
            valid_from=self.valid_from,
            valid_to=self.valid_to,
        )


class Derivation(_Model):
    """Cards made from cards: `factors` times the rates of those that fit `from`, with the dimensions of `to`.

    It fills only days on which the book has no such card. `factors: listed` takes the ratio of the
    model's own first card of the target; meters without a factor keep their rate.
    """

    name: str
    models: str = ".*"
    from_: dict[Dimension, str] = Field(alias="from")
    to: dict[Dimension, str]
    factors: dict[str, Exact] | Literal["listed"]
    source: str
    checked: date
    note: str = ""


class PriceFile(_Model):
    """One file of configs/system/prices."""

    provider: str
    genai_prices: GenaiEntry | None = None
    cards: tuple[CardEntry, ...] = ()
    derivations: tuple[Derivation, ...] = ()


class OverrideEntry(CardEntry):
    """A negotiated rate of one organisation; meters it does not name keep the list's rate."""

    provider: str


class OverrideFile(_Model):
    """configs/{org_slug}/prices.yml."""

    overrides: tuple[OverrideEntry, ...]


def read[File: BaseModel](path: Path, kind: type[File]) -> File:
    try:
        return kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(
            f"{path}: {field}: {first['msg']}.", fix="Correct the price file.", field=field
        ) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: {error}", fix="Correct the price file.") from error

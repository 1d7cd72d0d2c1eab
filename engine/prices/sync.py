"""`model_prices`: what changed since the last sync as rows to append, and a book out of its rows.

The table is append-only. A card that left the sources is withdrawn by a row of its own (`withdrawn` true);
what was known at an instant is, per price, its latest row up to then, unless that withdraws it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import polars as pl
import pyarrow as pa

from engine.errors import ConfigurationError
from engine.prices.book import PriceBook
from engine.prices.cards import DIMENSIONS, METERS, RateCard, literal

_DAYS = ("valid_from", "valid_to")
_PLAIN = ("provider", "model", "match", *DIMENSIONS, "org_slug", *_DAYS, "currency", "source")
ROWS: pa.Schema = pa.schema(
    [
        pa.field("price_id", pa.string(), nullable=False),
        pa.field("known_from", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("withdrawn", pa.bool_(), nullable=False),
        pa.field("book_order", pa.int64(), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in ("provider", "model", "match", "tier")),
        *(pa.field(name, pa.string()) for name in (*DIMENSIONS[1:], "org_slug")),
        *(pa.field(name, pa.date32()) for name in _DAYS),
        *(pa.field(name, pa.string(), nullable=False) for name in ("currency", "source")),
        *(pa.field(f"{meter}_rate", pa.string()) for meter in METERS),
    ]
)


def pending(
    cards: Iterable[RateCard],
    existing: pl.DataFrame | pa.Table,
    *,
    known_from: datetime,
    scopes: Collection[str | None] = (None,),
) -> pa.Table:
    """The rows of `model_prices` to append so that it says what `cards` say; none when it already does.

    `scopes` are the price lists that `cards` speak for in full (None: the public one): only their cards
    are withdrawn when missing. Appending the answer and asking again yields zero rows.
    """
    wanted = {card.price_id: (place, card) for place, card in enumerate(cards)}
    if strangers := {card.org_slug for _, card in wanted.values()} - set(scopes):
        raise ConfigurationError(
            f"Rate cards of {strangers} are outside the scopes of this sync.", fix="Name their organisation."
        )
    known = {row["price_id"]: row for row in _alive(existing, as_of=known_from)}
    added = [
        _row(card, place, known_from) for price_id, (place, card) in wanted.items() if price_id not in known
    ]
    gone = [
        {**row, "withdrawn": True, "known_from": known_from}
        for price_id, row in known.items()
        if price_id not in wanted and row["org_slug"] in scopes
    ]
    return pa.Table.from_pylist([*added, *gone], schema=ROWS)


def book_from_rows(table: pa.Table, provider: str, *, org: str | None, as_of: datetime) -> PriceBook:
    """The book of one provider and organisation as `model_prices` knew it at `as_of`.

    Raises ConfigurationError naming card and meter for a rate that does not fit, or two cards that overlap.
    """
    rows = [
        row
        for row in _alive(table, as_of=as_of)
        if row["provider"] == provider and row["org_slug"] in (None, org)
    ]
    rows.sort(key=lambda row: (row["book_order"], row["known_from"], row["price_id"]))
    return PriceBook(provider, [_card(row) for row in rows], org=org)


def _alive(existing: pl.DataFrame | pa.Table, *, as_of: datetime) -> list[dict[str, Any]]:
    """The rows in force at `as_of`: per price its latest, unless that withdraws it."""
    rows = existing.to_dicts() if isinstance(existing, pl.DataFrame) else existing.to_pylist()
    latest: dict[str, dict[str, Any]] = {}
    for row in rows:
        price_id = row["price_id"]
        if row["known_from"] <= as_of and (
            price_id not in latest or _moment(latest[price_id]) <= _moment(row)
        ):
            latest[price_id] = row
    return [row for row in latest.values() if not row["withdrawn"]]


def _moment(row: Mapping[str, Any]) -> tuple[datetime, bool]:
    return row["known_from"].astimezone(UTC), row["withdrawn"]


def _row(card: RateCard, place: int, known_from: datetime) -> dict[str, Any]:
    rates = {f"{meter}_rate": literal(rate) for meter, rate in card.rates.items()}
    plain = {name: getattr(card, name) for name in _PLAIN}
    marks = {"price_id": card.price_id, "known_from": known_from, "withdrawn": False, "book_order": place}
    return {**marks, **plain, **rates}


def _card(row: Mapping[str, Any]) -> RateCard:
    literals = {meter: text for meter in METERS if (text := row[f"{meter}_rate"]) is not None}
    try:
        rates = {meter: Decimal(text) for meter, text in literals.items()}
    except InvalidOperation as error:
        raise ConfigurationError(
            f"model_prices: {row['model']} {row['price_id']} has a rate that is no decimal: {literals}.",
            fix="Withdraw that row and sync the prices again.",
        ) from error
    return RateCard(rates=rates, **{name: row[name] for name in _PLAIN})

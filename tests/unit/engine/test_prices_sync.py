"""`model_prices`: only what changed is appended, what left is withdrawn, and a book knows what was known."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from engine.catalog import Catalog
from engine.errors import ConfigurationError
from engine.prices.cards import RateCard
from engine.prices.sources import cards
from engine.prices.sync import ROWS, book_from_rows, pending

ROOT = Path(__file__).parents[3]
T1, T2, T3 = (datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2, 3))
ONE = RateCard(
    provider="p", model="one", match='{"equals":"one"}', rates={"input": Decimal("0.1")}, source="test"
)
TWO = replace(ONE, model="two", match='{"equals":"two"}')
EMPTY = ROWS.empty_table()


def test_the_rows_are_the_schema_file() -> None:
    expected = Catalog.load(ROOT).schemas["model_prices"].arrow
    assert ROWS.equals(expected, check_metadata=False)


def test_all_list_prices_go_through_the_table_and_back() -> None:
    listed = cards(ROOT)
    table = pending(listed, EMPTY, known_from=T1)
    assert table.num_rows == len(listed)
    assert pending(listed, table, known_from=T2).num_rows == 0
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    assert pending(listed, frame, known_from=T2).num_rows == 0
    for provider in ("openai", "anthropic"):
        own = [card for card in listed if card.provider == provider]
        shuffled = table.sort_by([("price_id", "ascending")])
        book = book_from_rows(shuffled, provider, org=None, as_of=T1)
        assert [card.price_id for card in book.cards] == [card.price_id for card in own]
        assert [dict(card.rates) for card in book.cards] == [dict(card.rates) for card in own]


def test_a_changed_rate_appends_the_new_and_withdraws_the_old() -> None:
    table = pending([ONE, TWO], EMPTY, known_from=T1)
    dearer = replace(ONE, rates={"input": Decimal("0.2")})
    more = pending([dearer, TWO], table, known_from=T2)
    assert sorted((row["price_id"], row["withdrawn"]) for row in more.to_pylist()) == sorted(
        [(dearer.price_id, False), (ONE.price_id, True)]
    )
    table = pa.concat_tables([table, more])
    assert pending([dearer, TWO], table, known_from=T3).num_rows == 0

    def known(as_of: datetime) -> set[str]:
        return {card.price_id for card in book_from_rows(table, "p", org=None, as_of=as_of).cards}

    assert known(datetime(2026, 10, 31, tzinfo=UTC)) == set()
    assert known(T1) == {ONE.price_id, TWO.price_id}
    assert known(T2) == known(T3) == {dearer.price_id, TWO.price_id}


def test_a_withdrawn_price_can_come_back() -> None:
    table = pending([ONE], EMPTY, known_from=T1)
    table = pa.concat_tables([table, pending([], table, known_from=T2)])
    assert book_from_rows(table, "p", org=None, as_of=T2).cards == ()
    table = pa.concat_tables([table, pending([ONE], table, known_from=T3)])
    assert [card.price_id for card in book_from_rows(table, "p", org=None, as_of=T3).cards] == [ONE.price_id]


def test_a_sync_of_the_list_leaves_overrides_alone_and_a_book_shows_only_its_own() -> None:
    own = replace(ONE, org_slug="acme", valid_from=date(2026, 1, 1))
    table = pending([ONE], EMPTY, known_from=T1)
    table = pa.concat_tables([table, pending([own], table, known_from=T1, scopes=("acme",))])
    assert pending([ONE], table, known_from=T2).num_rows == 0
    seen = {
        org: {card.org_slug for card in book_from_rows(table, "p", org=org, as_of=T2).cards}
        for org in ("acme", "beta")
    }
    assert seen == {"acme": {None, "acme"}, "beta": {None}}
    gone = pending([], table, known_from=T2, scopes=("acme",)).to_pylist()
    assert [(row["price_id"], row["withdrawn"]) for row in gone] == [(own.price_id, True)]
    with pytest.raises(ConfigurationError, match="acme"):
        pending([own], table, known_from=T2)


@pytest.mark.parametrize("text", ["0.0000000000001", "free"])
def test_a_stored_rate_that_does_not_fit_is_refused(text: str) -> None:
    (row,) = pending([ONE], EMPTY, known_from=T1).to_pylist()
    table = pa.Table.from_pylist([{**row, "input_rate": text}], schema=ROWS)
    with pytest.raises(ConfigurationError, match=r"one.*input"):
        book_from_rows(table, "p", org=None, as_of=T1)

"""Any list in pages of any size, read any number at once, in whatever order they come: each row once."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import httpx
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from engine.api.config import ColumnMap
from engine.api.mapping import ApiPage, decode
from engine.api.pagination import Paging
from engine.api.values import column_array
from engine.api.walk import Step, read_chain
from engine.http import Answer

PAGING: Any = TypeAdapter(Paging)
KINDS: list[dict[str, Any]] = [
    {"kind": "page", "page_param": "p", "first_page": 0},
    {"kind": "page", "page_param": "p", "first_page": 0, "total_pages_path": "pages"},
    {"kind": "offset", "offset_param": "o", "limit": 7},
    {"kind": "offset", "offset_param": "o", "limit": 7, "total_path": "total"},
    {"kind": "cursor", "cursor_path": "next", "cursor_param": "c"},
    {"kind": "next_url", "next_path": "next"},
]
SIZE = 7


@given(rows=st.integers(0, 80), kind=st.sampled_from(KINDS), ahead=st.integers(1, 9), seed=st.randoms())
def test_each_row_once_and_in_order(rows: int, kind: dict[str, Any], ahead: int, seed: Any) -> None:
    asked: list[int] = []

    async def ask(step: Step) -> ApiPage:
        place = step.url or (step.added[0][1] if step.added else 0)
        start = int(place) * (SIZE if kind["kind"] == "page" else 1)
        asked.append(start)
        for _ in range(seed.randrange(4)):
            await asyncio.sleep(0)
        found = list(range(start, min(start + SIZE, rows)))
        more = str(start + SIZE) if start + SIZE < rows else None
        body = {"next": more, "total": rows, "pages": -(-rows // SIZE)}
        answer = Answer("http://a/", 200, httpx.Headers(), b"")
        return ApiPage(pa.table({"id": pa.array(found, pa.int64())}), len(found), body, answer)

    paging = PAGING.validate_python(kind)
    pages = asyncio.run(read_chain(ask, paging, row_id=["id"], name="api", ahead=ahead))
    assert [row for page in pages for row in page.table["id"].to_pylist()] == list(range(rows))
    assert len(asked) == len(set(asked))
    # Never more than what is wanted, the empty page that ends it, and what was under way meanwhile.
    assert len(asked) <= -(-rows // SIZE) + 1 + ahead


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**20), max_value=10**20),
    st.booleans(),
)
def test_an_amount_is_its_literal_to_the_last_digit(amount: Decimal, in_quotes: bool) -> None:
    literal = f'"{amount}"' if in_quotes else format(amount, "f")
    sent_as = {"sent_as": "text"} if in_quotes else {}
    column = ColumnMap.model_validate({"name": "c", "path": "c", "type": "NUMERIC", **sent_as})
    assert column_array(column, [decode(literal.encode())]).to_pylist() == [amount]

"""Pages as the vendors document them give exactly the rows that stand beside them."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from engine.pages import anthropic, openai

PAGES = Path(__file__).parent / "pages"
DECODERS = {
    f"openai_{name}": openai.page_decoder(endpoint, credential_id="cred_1")
    for name, endpoint in openai.ENDPOINTS.items()
} | {"anthropic_messages": anthropic.page_decoder(credential_id="cred_1")}
#: Pages of usage; a colleague's reports lie in the same folder.
NAMES = sorted(path.stem for path in PAGES.glob("*.json") if path.stem in DECODERS)


def test_there_are_pages_of_both_vendors() -> None:
    assert {name.split("_")[0] for name in NAMES} == {"openai", "anthropic"}


@pytest.mark.parametrize("name", NAMES)
def test_documented_page(name: str) -> None:
    body = (PAGES / f"{name}.json").read_bytes()
    expected = json.loads((PAGES / f"{name}.rows.json").read_text())
    page = DECODERS[name](body)
    document = json.loads(body)
    rows = [{k: v for k, v in row.items() if v is not None} for row in page.content.to_pylist()]
    assert {row.pop("x_source_sha256") for row in rows} == {sha256(body).hexdigest()}
    assert [row | {"usage_date": str(row["usage_date"])} for row in rows] == expected
    assert (page.has_more, page.next_page) == (document["has_more"], document["next_page"])

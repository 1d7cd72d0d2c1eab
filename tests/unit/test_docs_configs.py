"""docs/config-reference.md is what the models say, and they say something about every key."""

from __future__ import annotations

import re
from pathlib import Path

from engine.templates import sample_variables
from serve.reference import markdown

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_reference_is_what_the_models_say() -> None:
    assert (DOCS / "config-reference.md").read_text() == markdown(), "write it again: make docs"


def test_every_key_has_a_meaning() -> None:
    section, dumb = "", []
    for line in markdown().splitlines():
        section = line.removeprefix("### ") if line.startswith("### ") else section
        if line.startswith("| `") and line.endswith("|  |"):
            dumb.append(f"{section} {line.split('|')[1].strip()}")
    assert not dumb, f"write a #: comment above each: {', '.join(dumb)}"


def test_every_template_name_is_documented() -> None:
    text = (DOCS / "configs.md").read_text()
    section = re.search(r"^### Templates\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    assert set(re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE)) == set(sample_variables())

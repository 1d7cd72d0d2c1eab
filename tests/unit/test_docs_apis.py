"""docs/generic-api.md and docs/gcp-api.md name every key and default that their configs have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from engine.api import config, pagination
from engine.api.gcp_resources import GcpApiConfig
from engine.api.pagination import Single

DOCS = Path(__file__).resolve().parents[2] / "docs"
GENERIC = (DOCS / "generic-api.md").read_text(encoding="utf-8")
MODELS = [
    config.ApiConfig,
    config.Request,
    config.Window,
    config.Response,
    config.ColumnMap,
    config.Day,
    config.ErrorRule,
]


def rows(page: str, heading: str) -> dict[str, str]:
    """First column of the table below a heading -> its second column."""
    section = re.search(rf"^### {re.escape(heading)}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    assert section is not None, f"there is no section {heading}"
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section[1], re.MULTILINE))


def expected(model: type[BaseModel]) -> dict[str, str]:
    found = {}
    for name, field in model.model_fields.items():
        if field.is_required():
            found[name] = "required"
        elif isinstance(field.default, BaseModel):
            found[name] = "see below"
        else:
            value = field.get_default(call_default_factory=True)
            found[name] = "none" if value in (None, (), {}) else f"`{value}`"
    return found


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_of_the_generic_config_is_documented(model: type[BaseModel]) -> None:
    assert rows(GENERIC, f"`{model.__name__}`") == expected(model)


def test_every_key_of_the_google_config_is_documented() -> None:
    page = (DOCS / "gcp-api.md").read_text(encoding="utf-8")
    assert rows(page, "`GcpApiConfig`") == expected(GcpApiConfig)


def test_every_kind_of_paging_and_its_keys_are_documented() -> None:
    kinds = {
        model.model_fields["kind"].annotation: model for model in get_args(get_args(pagination.Paging)[0])
    }
    documented = rows(GENERIC, "Paging")
    assert list(documented) == [get_args(kind)[0] for kind in kinds]
    common = set(Single.model_fields)
    for kind, model in kinds.items():
        own = set(model.model_fields) - common
        named = set(re.findall(r"`(\w+)`", documented[get_args(kind)[0]]))
        assert named - {"limit"} == own - {"limit"}
    section = GENERIC.split("### Paging\n")[1].split("\n### ")[0]
    assert all(f"`{name}`" in section for name in common - {"kind"})


@pytest.mark.parametrize("model", [config.When, config.Wait])
def test_the_parts_of_a_rule_are_named(model: type[BaseModel]) -> None:
    section = GENERIC.split("### `ErrorRule`\n")[1]
    assert all(f"`{name}`" in section for name in model.model_fields)

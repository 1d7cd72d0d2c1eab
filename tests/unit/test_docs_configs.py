"""docs/configs.md names every key and default that the models have, and none that they lack."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from engine import catalog, checks, plans, providers, schemas, settings
from engine.templates import sample_variables

DOC = (Path(__file__).resolve().parents[2] / "docs" / "configs.md").read_text()
MODELS: list[type[BaseModel]] = [
    catalog.Pipeline,
    catalog.Step,
    catalog.Retry,
    catalog.PartitionRule,
    catalog.Resources,
    catalog.Output,
    checks.NotNegative,
    checks.Sum,
    checks.Accepted,
    providers.Provider,
    providers.Auth,
    providers.Rate,
    providers.Key,
    plans.Plans,
    schemas.Schema,
    schemas.Column,
]
# These follow from the file's place, or from another key of the same entry.
NOT_WRITTEN = {catalog.Pipeline: {"path"}, providers.Provider: {"name"}}
DERIVED = {("Output", "schema")}


def table(heading: str) -> dict[str, str]:
    """First column of the table below a heading -> its second column."""
    section = re.search(rf"^### {re.escape(heading)}\n(.*?)(?=^##|\Z)", DOC, re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/configs.md has no section {heading}"
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section[1], re.MULTILINE))


def default_of(field: FieldInfo) -> str | None:
    """The default as the docs write it; None where they describe it in words."""
    if field.is_required():
        return "required"
    if isinstance(field.default, BaseModel):
        return "see below"
    value = field.get_default(call_default_factory=field.default_factory is dict)
    if value in (None, (), {}):
        return "none" if field.default_factory in (None, dict) else None
    return f"`{value}`"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_and_its_default_is_documented(model: type[BaseModel]) -> None:
    expected = {
        field.alias or name: default_of(field)
        for name, field in model.model_fields.items()
        if name not in NOT_WRITTEN.get(model, set())
    }
    documented = table(f"`{model.__name__}`")
    assert list(documented) == list(expected)
    for key, default in expected.items():
        if (model.__name__, key) not in DERIVED:
            assert documented[key] == default, key


def test_limits_are_documented() -> None:
    assert table("`Limits`") == {field.name: "required" for field in fields(plans.Limits)}


def test_every_setting_and_its_default_is_documented() -> None:
    declared = {name: field for name, field in settings.Settings.model_fields.items() if name != "warnings"}
    documented = table("`Settings`")
    assert list(documented) == [settings.variable(name) for name in declared]
    for name, field in declared.items():
        if field.default_factory is None and not field.is_required():
            assert documented[settings.variable(name)] == default_of(field), name


def test_every_template_name_is_documented() -> None:
    assert set(table("Templates")) == set(sample_variables())


def test_models_under_test_are_all_there_are() -> None:
    def below(model: type[BaseModel]) -> set[type[BaseModel]]:
        return {model} | {deeper for child in model.__subclasses__() for deeper in below(child)}

    bases = (catalog._Model, providers._Model, checks._Declared)
    found = set().union(*(below(base) for base in bases)) - set(bases)
    assert found <= set(MODELS)

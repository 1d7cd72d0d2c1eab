"""What ships loads, resolves and renders; every `ps_type` keeps the processor contract."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import processors
from engine.catalog import Catalog
from engine.errors import ConfigurationError, NotFoundError
from engine.validate import validate

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.load(CHECKOUT)


def test_shipped_configs_have_no_problem() -> None:
    assert [str(problem) for problem in validate(CHECKOUT, resolve=processors.resolve)] == []


def test_pipelines_of_the_original_are_there(catalog: Catalog) -> None:
    assert {"openai/cost/usage_cost", "anthropic/usage_cost"} <= set(catalog.pipelines)


def test_ids_are_kebab_case(catalog: Catalog) -> None:
    for pipeline in catalog.pipelines.values():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", pipeline.id_for("acme_corp"))
    assert (
        catalog.pipeline("openai/cost/usage_cost").id_for("acme_corp") == "acme-corp-openai-cost-usage-cost"
    )
    assert catalog.pipeline("anthropic/usage_cost").id_for("acme_corp") == "acme-corp-anthropic-usage-cost"


@pytest.mark.parametrize("path", ["openai/cost/usage_cost", "anthropic/usage_cost"])
def test_usage_before_cost_before_focus_and_all_published(catalog: Catalog, path: str) -> None:
    pipeline = catalog.pipeline(path)
    ids = [step.step_id for step in pipeline.ordered_steps()]
    assert ids == ["extract_usage", "compute_cost", "convert_focus"]
    assert [output.table for output in pipeline.outputs] == [
        f"{pipeline.provider}_usage_daily_raw",
        f"{pipeline.provider}_cost_daily",
        f"focus_{pipeline.provider}_daily",
    ]
    # One page of either API holds 31 days: a wider unit would page more and lose more when it fails.
    assert pipeline.partition.max_days_per_unit == catalog.providers[pipeline.provider].days_per_call == 31
    assert pipeline.partition.restatement_days == 3


@pytest.mark.parametrize("path", ["openai/cost/usage_cost", "anthropic/usage_cost"])
def test_every_amount_and_count_is_checked(catalog: Catalog, path: str) -> None:
    for output in catalog.pipeline(path).outputs:
        checked = {
            column for check in output.checks if check.kind == "not_negative" for column in check.columns
        }
        numbers = {
            column.name
            for column in catalog.schemas[output.schema_].columns
            if column.type in ("INT64", "NUMERIC") and not column.name.startswith("x_")
        }
        assert numbers - checked == set()
        if "total_cost" in numbers:
            assert any(check.kind == "sum" and check.total == "total_cost" for check in output.checks)


def test_every_processor_file_has_an_engine() -> None:
    found = processors.known()
    assert {"openai.usage", "openai.cost", "anthropic.usage", "anthropic.cost"} <= set(found)
    for ps_type in found:
        assert processors.resolve(ps_type) is not None


@pytest.mark.parametrize(
    ("ps_type", "fix"),
    [
        ("openai.usge", "Write openai.usage, or create processors/openai/usge.py"),
        ("nobody.knows", "Create processors/nobody/knows.py with a class"),
    ],
)
def test_an_unknown_processor_names_the_file_to_create(ps_type: str, fix: str) -> None:
    with pytest.raises(NotFoundError) as missing:
        processors.resolve(ps_type)
    assert fix in missing.value.fix


@pytest.mark.parametrize("ps_type", ["usage", "a.b.c", "../etc.passwd", "Openai.usage", "", "openai.usage\n"])
def test_odd_names_are_refused_before_any_import(ps_type: str) -> None:
    with pytest.raises(ConfigurationError, match="no dot notation"):
        processors.resolve(ps_type)


@pytest.mark.parametrize(
    ("case", "source", "said"),
    [
        ("lacks", "import no_such_module_anywhere\n", "cannot be imported: ModuleNotFoundError"),
        ("garbled", "def broken(:\n", "cannot be imported: SyntaxError"),
        ("bare", "x = 1\n", "has no get_engine"),
        ("idle", "def get_engine():\n    return object()\n", "has no `async def execute`"),
        (
            "sync",
            "class P:\n    def execute(self, a, b): ...\n\ndef get_engine():\n    return P()\n",
            "has no `async def execute`",
        ),
    ],
)
def test_a_processor_that_breaks_the_contract_is_named(
    tmp_path: Path, request: pytest.FixtureRequest, case: str, source: str, said: str
) -> None:
    # A folder on the package's path: dropping in a file is all that a processor takes.
    folder = tmp_path / f"dropped_{case}"
    folder.mkdir()
    (folder / "domain.py").write_text(source)
    processors.__path__.append(str(tmp_path))
    request.addfinalizer(lambda: processors.__path__.remove(str(tmp_path)))
    with pytest.raises(ConfigurationError, match=rf"processors/dropped_{case}/domain\.py.*{said}"):
        processors.resolve(f"dropped_{case}.domain")

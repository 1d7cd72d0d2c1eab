"""`manta validate` on configs that are wrong: each line says where, what and how to mend it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import BaseModel, ConfigDict

from engine.errors import NotFoundError
from engine.located import Problem
from engine.validate import slug_problem, validate
from tests.unit.engine.test_catalog import PIPELINE, PLANS, PROVIDERS, SCHEMA


class StepConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    days: int = 1


def resolve(ps_type: str) -> object:
    if ps_type != "acme.usage":
        raise NotFoundError(f"There is no processor {ps_type!r}.", fix="Create it.")
    return SimpleNamespace(config_model=StepConfig)


def problems(tmp_path: Path, pipeline: str, place: str = "configs/acme/spend.yml") -> list[str]:
    for name, text in {
        "configs/system/plans.yml": PLANS,
        "configs/system/providers.yml": PROVIDERS,
        "configs/system/schemas/spend_daily.yml": SCHEMA,
        place: pipeline,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return [str(problem) for problem in validate(tmp_path, resolve=resolve)]


def test_nothing_to_say(tmp_path: Path) -> None:
    assert problems(tmp_path, PIPELINE) == []


def test_problem_prints_as_one_line() -> None:
    assert str(Problem("a.yml", 3, "steps[0]", "is odd", "mend it")) == "a.yml:3: steps[0]: is odd: mend it"


CONFIG = "    ps_type: acme.usage\n    config:\n      days: "


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("acme.usage", "acme.usge", ":6: steps[0].ps_type: There is no processor 'acme.usge': create it"),
        (
            "step_id: extract",
            "step_id: Extract-It",
            ":5: steps[0].step_id: 'Extract-It' is not snake_case: use",
        ),
        (
            "provider: acme_ai\n",
            "provider: acme_ai\nvariables:\n  Big: 1\n",
            ":5: variables.Big: 'Big' is not snake_case",
        ),
        (
            "    ps_type: acme.usage\n",
            CONFIG + '"{{ dat }}"\n',
            ":8: steps[0].config.days: '{{ dat }}': 'dat' is undefined: did you mean date?",
        ),
        (
            "    ps_type: acme.usage\n",
            CONFIG + '"{{ org_slug }}"\n',
            ":8: steps[0].config.days: input should be a valid integer",
        ),
        (
            "    ps_type: acme.usage\n",
            CONFIG + "2\n      dys: 1\n",
            ":9: steps[0].config.dys: unknown key",
        ),
    ],
)
def test_each_problem_has_its_line(tmp_path: Path, old: str, new: str, problem: str) -> None:
    found = problems(tmp_path, PIPELINE.replace(old, new, 1))
    assert len(found) == 1, found
    assert f"configs/acme/spend.yml{problem}" in found[0]


def test_ps_type_without_a_dot(tmp_path: Path) -> None:
    found = problems(tmp_path, PIPELINE.replace("acme.usage", "usage"))
    assert any("steps[0].ps_type: 'usage' is no dot notation" in one for one in found)


def test_every_template_is_tried_on_its_own(tmp_path: Path) -> None:
    config = "    config:\n      a: ['{{ x }}', fine, '{{ y }}']\n      b: {c: '{{ z }}'}\n"
    found = problems(tmp_path, PIPELINE.replace("acme.usage\n", f"acme.usage\n{config}"))
    assert [one.split(": '")[0] for one in found] == [
        "configs/acme/spend.yml:8: steps[0].config.a[0]",
        "configs/acme/spend.yml:8: steps[0].config.a[2]",
        "configs/acme/spend.yml:9: steps[0].config.b.c",
    ]


def test_the_pipelines_own_variables_are_known(tmp_path: Path) -> None:
    text = PIPELINE.replace("    ps_type: acme.usage\n", CONFIG + '"{{ variables.n }}"\n')
    assert problems(tmp_path, text.replace("steps:\n", "variables: {n: 4}\nsteps:\n")) == []


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("configs/spend.yml", "lies 1 levels deep"),
        ("configs/a/b/c/spend.yml", "lies 4 levels deep"),
        ("configs/Acme/spend.yml", "'Acme' in its path is not snake_case"),
        ("configs/acme/usage-cost.yml", "'usage-cost' in its path is not snake_case"),
        ("configs/acme/plan.yml", "is called 'plan', which is a path of the run API"),
        ("configs/acme/cost/plan.yml", "is called 'plan', which is a path of the run API"),
        ("configs/runs/spend.yml", "lies in the folder 'runs', which is a path of the run API"),
        ("configs/runs/cost/spend.yml", "lies in the folder 'runs', which is a path of the run API"),
    ],
)
def test_places(tmp_path: Path, place: str, said: str) -> None:
    found = problems(tmp_path, PIPELINE, place)
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize("slug", ["acme", "acme_corp", "a12", "a" * 50])
def test_good_slugs(tmp_path: Path, slug: str) -> None:
    assert slug_problem(slug, tmp_path) is None


@pytest.mark.parametrize(
    "slug", ["", "ac", "Acme", "acme-corp", "1acme", "_acme", "a" * 51, "acmé", "acme\n"]
)
def test_bad_slugs(tmp_path: Path, slug: str) -> None:
    assert "is no slug" in str(slug_problem(slug, tmp_path))


def test_a_slug_is_no_folder_of_pipelines(tmp_path: Path) -> None:
    problems(tmp_path, PIPELINE)
    (tmp_path / "configs" / "globex").mkdir()
    (tmp_path / "configs" / "globex" / "prices.yml").write_text("overrides: []\n")
    assert "configs/acme" in str(slug_problem("acme", tmp_path))
    assert "configs/system" in str(slug_problem("system", tmp_path))
    # An organisation's own folder holds its notifications and rates, but no pipelines.
    assert slug_problem("globex", tmp_path) is None


@pytest.mark.parametrize("place", ["configs/globex/prices.yml", "configs/system/prices/acme_ai.yml"])
def test_price_files_are_no_pipelines_but_checked(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("\noveride: []\n")
    found = problems(tmp_path, PIPELINE)
    assert f"{place}:2: overide: unknown key: remove it or correct its name" in found
    assert {one.split(":")[0] for one in found} == {place}

"""Configs as models: what is read, in which order steps run, and each refusal with its file and line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.catalog import Catalog, read_catalog
from engine.errors import ConfigurationError, NotFoundError

PROVIDERS = """\
acme_ai:
  display_name: Acme AI
  setting: openai_base_url
  official_hosts: [api.acme.example]
  day_timezone: UTC
  auth: {kind: bearer}
  days_per_call: 31
  rate: {requests_per_minute: 60, burst: 5}
  key: {admin_prefix: adm-, where: https://acme.example/keys}
"""
PLANS = """\
default: SMALL
plans:
  SMALL: {daily: 6, monthly: 180, concurrent: 1}
  LARGE: {daily: null, monthly: null, concurrent: 50}
"""
SCHEMA = """\
table: spend_daily
scope: tenant
description: Spend.
partition: usage_date
key: [usage_date]
columns:
  - {name: usage_date, type: DATE, mode: REQUIRED, description: Day.}
  - {name: total_cost, type: NUMERIC, description: Total.}
"""
VIEW = """\
table: v
scope: tenant
description: Days with spend.
columns:
  - {name: usage_date, type: DATE, description: Day.}

view: |
  WITH days AS (SELECT usage_date FROM spend_daily) SELECT usage_date FROM days
"""
PIPELINE = """\
name: Spend
description: What was spent.
provider: acme_ai
steps:
  - step_id: extract
    ps_type: acme.usage
outputs:
  - table: spend_daily
    checks:
      - kind: not_negative
        columns:
          - total_cost
"""
PLACE = "configs/acme/spend.yml"

Root = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    def build(pipeline: str = PIPELINE, **files: str) -> Path:
        texts = {
            "configs/system/plans.yml": PLANS,
            "configs/system/providers.yml": PROVIDERS,
            "configs/system/schemas/spend_daily.yml": SCHEMA,
            PLACE: pipeline,
            **files,
        }
        for name, text in texts.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return build


def test_a_pipeline_is_addressed_by_its_place(root: Root) -> None:
    catalog = Catalog.load(
        root(
            **{"configs/acme/cost/usage_cost.yml": PIPELINE.replace("spend_daily", "x")}
            | {"configs/system/schemas/x.yml": SCHEMA.replace("spend_daily", "x")}
        )
    )
    assert sorted(catalog.pipelines) == ["acme/cost/usage_cost", "acme/spend"]
    assert catalog.pipeline("acme/cost/usage_cost").id_for("acme_corp") == "acme-corp-acme-cost-usage-cost"
    assert catalog.providers["acme_ai"].name == "acme_ai"
    assert list(catalog.schemas) == ["spend_daily", "x"]


def test_defaults(root: Root) -> None:
    pipeline = Catalog.load(root()).pipeline("acme/spend")
    step, output = pipeline.steps[0], pipeline.outputs[0]
    assert (step.timeout_seconds, step.on_failure, step.config) == (300, "stop", {})
    assert (step.retry.max_attempts, step.retry.initial_delay_seconds, step.retry.max_delay_seconds) == (
        3,
        1,
        60,
    )
    assert (pipeline.partition.max_days_per_unit, pipeline.partition.restatement_days) == (1, 0)
    assert pipeline.resources.num_cpus == 0.25
    assert output.schema_ == "spend_daily"


def test_steps_follow_what_they_depend_on_else_the_file(root: Root) -> None:
    steps = "".join(
        f"  - {{step_id: {name}, ps_type: a.b, depends_on: [{needs}]}}\n"
        for name, needs in [("last", "a, c"), ("c", "b"), ("a", ""), ("b", ""), ("z", "")]
    )
    text = PIPELINE.replace("  - step_id: extract\n    ps_type: acme.usage\n", steps)
    pipeline = Catalog.load(root(text)).pipeline("acme/spend")
    assert [step.step_id for step in pipeline.ordered_steps()] == ["a", "b", "c", "last", "z"]


def test_an_unknown_pipeline_names_the_nearest(root: Root) -> None:
    with pytest.raises(NotFoundError) as missing:
        Catalog.load(root()).pipeline("acme/spent")
    assert missing.value.fix == "Did you mean acme/spend?"


SECOND = "  - step_id: extract\n    ps_type: acme.usage\n  - step_id: cost\n    ps_type: acme.cost\n"
ONE_STEP = "  - step_id: extract\n    ps_type: acme.usage\n"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("name: Spend\n", "name: Spend\ntags: [a]\n", ":2: tags: unknown key: remove it"),
        (
            "    ps_type: acme.usage\n",
            "    ps_type: acme.usage\n    retries: 3\n",
            ":7: steps[0].retries: unknown key",
        ),
        ("    ps_type: acme.usage\n", "", ":5: steps[0].ps_type: is missing: add it"),
        (
            "provider: acme_ai\n",
            "provider: acme\n",
            ":3: provider: there is no provider 'acme': did you mean acme_ai?",
        ),
        (
            "provider: acme_ai\n",
            "provider: acme_ai\npath: x\n",
            ":4: path: unknown key: remove it: it follows",
        ),
        ("name: Spend\n", "name: Spend\nname: Twice\n", ":2: name: the key appears twice: keep one"),
        ("name: Spend\n", "name: [\n", ": file: no YAML: "),
        ("name: Spend\n", "name: Spend\n1: x\n", ":2: 1: a key that is no text"),
        (ONE_STEP, SECOND.replace("cost\n", "extract\n", 1), ":7: steps[1].step_id: 'extract' is used twice"),
        (
            ONE_STEP,
            SECOND + "    depends_on:\n      - extrct\n",
            ":10: steps[1].depends_on[0]: there is no step 'extrct': name a step of this pipeline, such as",
        ),
        (
            ONE_STEP,
            ONE_STEP + "    depends_on: [cost]\n" + SECOND.split(ONE_STEP)[1] + "    depends_on: [extract]\n",
            "].depends_on: the steps wait for each other: ",
        ),
        (
            ONE_STEP,
            ONE_STEP + "    depends_on: [extract]\n",
            "the steps wait for each other: extract -> extract",
        ),
        (
            ONE_STEP,
            ONE_STEP + "    retry: {initial_delay_seconds: 9, max_delay_seconds: 2}\n",
            ":7: steps[0].retry.max_delay_seconds: is below initial_delay_seconds: make it at least as long",
        ),
        (
            ONE_STEP,
            ONE_STEP + "    timeout_seconds: 0\n",
            ":7: steps[0].timeout_seconds: input should be greater",
        ),
        (ONE_STEP, ONE_STEP + "    on_failure: alert\n", ":7: steps[0].on_failure: input should be 'stop'"),
        (
            ONE_STEP,
            ONE_STEP + "    depends_on: extract\n",
            ":7: steps[0].depends_on: input should be a valid tuple",
        ),
        (
            "  - table: spend_daily\n",
            "  - table: spent\n",
            ":8: outputs[0].table: there is no schema 'spent': add",
        ),
        (
            "  - table: spend_daily\n",
            "  - table: spend_daily\n    schema: spendings\n",
            ":9: outputs[0].schema: there is no schema 'spendings': add configs/system/schemas/spendings.yml",
        ),
        (
            "          - total_cost\n",
            "          - totl_cost\n",
            ":12: outputs[0].checks[0].columns[0]: spend_daily has no column 'totl_cost': did you mean total",
        ),
        ("steps:\n" + ONE_STEP, "steps: []\n", ":4: steps: is empty: list at least one"),
        ("kind: not_negative", "kind: positive", "outputs[0].checks[0]: input tag 'positive'"),
        (
            ONE_STEP,
            SECOND.replace("acme.usage\n", "acme.usage\n    scope: run\n") + "    depends_on: [extract]\n",
            "steps[1].depends_on[0]: extract runs after all units, and cost within each: give both",
        ),
        (
            ONE_STEP,
            ONE_STEP + "    scope: run\n",
            "outputs: has no step of scope partition to fill it: add one",
        ),
        (
            PIPELINE[PIPELINE.index("outputs:") :],
            "",
            "outputs: is empty: list at least one, or give every step scope: run",
        ),
        ("        columns:\n          - total_cost\n", "", "outputs[0].checks[0].columns: is missing"),
    ],
)
def test_each_problem_has_its_line(root: Root, old: str, new: str, problem: str) -> None:
    assert old in PIPELINE
    found = [str(one) for one in read_catalog(root(PIPELINE.replace(old, new, 1))).problems]
    assert len(found) == 1, found
    assert found[0].startswith(PLACE)
    assert problem in found[0]


def test_load_raises_the_first_problem(root: Root) -> None:
    text = PIPELINE.replace("name: Spend\n", "name: Spend\ntags: [a]\n").replace("acme_ai", "nobody")
    with pytest.raises(ConfigurationError) as refused:
        Catalog.load(root(text))
    assert refused.value.message == f"{PLACE}:2: tags: unknown key."
    assert "`manta validate` lists every problem" in refused.value.fix


def test_one_table_has_one_owner(root: Root) -> None:
    found = read_catalog(root(**{"configs/acme/other.yml": PIPELINE})).problems
    assert [str(one).split(": let")[0] for one in found] == [
        f"{PLACE}:8: outputs[0].table: spend_daily is already written by acme/other"
    ]


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("configs/acme/late.yaml", PIPELINE.replace("spend_daily", "x"), "late.yaml:1: file: ends in .yaml"),
        ("configs/acme/empty.yml", "", "configs/acme/empty.yml:1: file: holds no keys"),
        ("configs/acme/list.yml", "- a\n", "configs/acme/list.yml:1: file: holds no keys"),
        ("configs/system/schemas/x.yml", SCHEMA, "x.yml:1: table: is 'spend_daily': name it x, as the file"),
        (
            "configs/system/schemas/spend_daily.yml",
            SCHEMA.replace("description: Total.", "description: All, in all."),
            "spend_daily.yml:8: columns[1].in all.: unknown key",
        ),
        (
            "configs/system/schemas/spend_daily.yml",
            SCHEMA.replace("scope: tenant", "scope: central"),
            f"{PLACE}:8: outputs[0]: spend_daily cannot be published by day",
        ),
        (
            "configs/system/providers.yml",
            PROVIDERS.replace("kind: bearer", "kind: header"),
            "providers.yml:6: acme_ai.auth.header: does not go with kind header: give it",
        ),
        (
            "configs/system/providers.yml",
            PROVIDERS.replace("openai_base_url", "key_file"),
            "providers.yml:3: acme_ai.setting: no setting 'key_file' holds a base URL: use one of",
        ),
        (
            "configs/system/providers.yml",
            PROVIDERS.replace("day_timezone: UTC", "day_timezone: Mars"),
            "providers.yml:5: acme_ai.day_timezone: 'Mars' is no timezone",
        ),
        ("configs/system/providers.yml", "acme_ai: 7\n", "providers.yml:1: acme_ai: is no mapping"),
        (
            "configs/system/plans.yml",
            PLANS.replace("default: SMALL", "default: TINY"),
            "plans.yml:1: default: there is no plan 'TINY': use one of SMALL, LARGE",
        ),
        (
            "configs/system/plans.yml",
            PLANS.replace("daily: 6", "daily: 600"),
            "plans.yml:3: plans.SMALL.monthly: is below daily: make it at least as large",
        ),
        (
            "configs/system/plans.yml",
            PLANS.replace("daily: 6, ", ""),
            "plans.yml:3: plans.SMALL.daily: is missing: add it",
        ),
        (
            "configs/system/plans.yml",
            PLANS.replace("daily: 6", "daily: 0"),
            "plans.yml:3: plans.SMALL.daily: input should be greater than or equal to 1",
        ),
        (
            "configs/system/plans.yml",
            PLANS.replace("daily: 6", "daily: true"),
            "plans.yml:3: plans.SMALL.daily: input should be a valid integer",
        ),
        (
            "configs/system/plans.yml",
            PLANS.replace("daily: 6", "seats: 3, daily: 6"),
            "plans.yml:3: plans.SMALL.seats: unknown key",
        ),
        (
            "configs/system/plans.yml",
            PLANS.replace("SMALL", "small"),
            "plans.yml:3: plans.small: 'small' is no plan name",
        ),
        (
            "configs/system/schemas/spend_daily.yml",
            SCHEMA.replace("key: [usage_date]\n", ""),
            "spend_daily.yml:1: key: is missing: name the columns that make a row unique",
        ),
        (
            "configs/system/schemas/v.yml",
            VIEW.replace("spend_daily", "spent"),
            "v.yml:7: view: 'spent' is no",
        ),
        (
            "configs/system/schemas/v.yml",
            VIEW.replace("tenant", "central"),
            "v.yml:7: view: 'spend_daily' is no",
        ),
        (
            "configs/system/schemas/v.yml",
            VIEW + "cluster: [usage_date]\n",
            "v.yml:7: view: does not go with partition or cluster",
        ),
    ],
)
def test_problems_of_other_files(root: Root, file: str, text: str, problem: str) -> None:
    found = [str(one) for one in read_catalog(root(**{file: text})).problems]
    assert any(problem in one for one in found), found


@pytest.mark.parametrize("name", ["providers.yml", "plans.yml"])
def test_missing_system_file(root: Root, name: str) -> None:
    at = root()
    (at / "configs/system" / name).unlink()
    assert str(read_catalog(at).problems[0]).startswith(f"configs/system/{name}:1: file: is missing")


def test_a_view_is_read_with_the_tables_it_is_over(root: Root) -> None:
    catalog = Catalog.load(root(**{"configs/system/schemas/v.yml": VIEW}))
    assert catalog.schemas["v"].sources == {"spend_daily"}
    assert catalog.schemas["spend_daily"].sources == frozenset()

"""Plans as the file has them, and what SQL a view's text becomes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from engine.catalog import Catalog
from engine.errors import UsageError
from engine.plans import Limits, Plans, default_subscription
from engine.schemas import Column, Schema
from engine.views import definition

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def plans() -> Plans:
    return Catalog.load(ROOT).plans


def test_the_plans_of_the_original_are_there(plans: Plans) -> None:
    assert plans.limits("STARTER") == Limits(6, 180, 1)
    assert plans.limits("PROFESSIONAL") == Limits(25, 750, 2)
    assert plans.limits("SCALE") == Limits(100, 3000, 5)
    assert plans.limits("ENTERPRISE") == Limits(None, None, 50)
    assert pickle.loads(pickle.dumps(plans)) == plans


def test_without_a_record_the_default_plan_holds(plans: Plans) -> None:
    found = default_subscription("acme_corp", plans)
    assert (found.plan, found.limits, found.version) == ("SCALE", Limits(100, 3000, 5), 0)


@pytest.mark.parametrize(("name", "fix"), [("STARTR", "STARTER?"), ("scale", "SCALE?"), ("x", "one of")])
def test_a_plan_that_is_not_there(plans: Plans, name: str, fix: str) -> None:
    with pytest.raises(UsageError, match="There is no plan") as caught:
        plans.limits(name)
    assert fix in caught.value.fix
    assert caught.value.field == "plan"


def view(select: str, description: str = "One.") -> Schema:
    column = Column(name="a", type="INT64", description='The "a".')
    return Schema(table="v", scope="central", description=description, columns=(column,), view=select)


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("SELECT a FROM t", "SELECT a FROM `p.d.t`"),
        ("SELECT t.a FROM t JOIN u ON t.a = u.a", "SELECT t.a FROM `p.d.t` JOIN `p.d.u` ON t.a = u.a"),
        ("WITH t AS (SELECT a FROM u) SELECT a FROM t", "WITH t AS (SELECT a FROM `p.d.u`) SELECT a FROM t"),
        ("SELECT a FROM (SELECT a FROM t)", "SELECT a FROM (SELECT a FROM `p.d.t`)"),
        ("SELECT a FROM UNNEST([1]) AS a", "SELECT a FROM UNNEST([1]) AS a"),
        ("SELECT a FROM other.t", "SELECT a FROM other.t"),
        (
            "SELECT a FROM t UNION ALL SELECT a\nfrom\n  t2",
            "SELECT a FROM `p.d.t` UNION ALL SELECT a\nfrom\n  `p.d.t2`",
        ),
        ("SELECT a IS DISTINCT FROM b AS a FROM t", "SELECT a IS DISTINCT FROM b AS a FROM `p.d.t`"),
    ],
)
def test_a_view_names_its_tables_in_full(select: str, expected: str) -> None:
    statement, fingerprint = definition(view(select), "p", "d")
    assert statement.endswith(f" AS {expected}")
    assert statement.startswith(r'CREATE OR REPLACE VIEW `p.d.v` (a OPTIONS(description="The \"a\"."))')
    assert f'labels=[("manta-view", "{fingerprint}")]' in statement


def test_whatever_a_view_says_changes_its_fingerprint() -> None:
    made = [view("SELECT a FROM t"), view("SELECT a + 1 AS a FROM t"), view("SELECT a FROM t", "Two.")]
    assert len({definition(one, "p", "d")[1] for one in made}) == 3
    assert definition(made[0], "p", "d") == definition(view("SELECT a FROM t"), "p", "d")
    assert definition(made[0], "p", "e")[1] != definition(made[0], "p", "d")[1]

"""Our package names are common words: nobody else may install over them."""

from __future__ import annotations

import importlib
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]


def test_no_other_distribution_owns_our_packages() -> None:
    owners = packages_distributions()
    strangers = {name: set(owners.get(name, [])) - {"manta"} for name in (*WHEEL["packages"], "configs")}
    assert {name: found for name, found in strangers.items() if found} == {}


def test_our_packages_are_the_ones_imported() -> None:
    for name in WHEEL["packages"]:
        assert Path(str(importlib.import_module(name).__file__)).parent == CHECKOUT / name


def test_every_package_folder_is_shipped() -> None:
    here = {path.parent.name for path in CHECKOUT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert here == set(WHEEL["packages"])


def test_data_is_shipped_beside_the_packages() -> None:
    for name in ("configs", "procedures", ".env.local", ".env.stage", ".env.prod"):
        assert WHEEL["force-include"][name] == name
        assert (CHECKOUT / name).exists()


def test_known_strangers_are_kept_out_of_the_lock() -> None:
    constraints = PROJECT["tool"]["uv"]["constraint-dependencies"]
    assert {"cluster<0", "processors<0", "configs<0"} <= set(constraints)

"""docs/dependencies.md names exactly the direct dependencies, in the groups they belong to."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _names(requirements: list[str]) -> set[str]:
    return {re.match(r"[A-Za-z0-9._-]+", requirement).group() for requirement in requirements}  # type: ignore[union-attr]


def test_every_direct_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    documented = {
        part.splitlines()[0]: set(re.findall(r"^\| ([a-z][a-z0-9-]*) \| \S", part, flags=re.MULTILINE))
        - {"package"}
        for part in sections
    }
    assert documented == {
        "Run time": _names(project["project"]["dependencies"]),
        **{
            f"Extra `{extra}`": _names(packages)
            for extra, packages in project["project"]["optional-dependencies"].items()
        },
        "Development": _names(project["dependency-groups"]["dev"]),
    }


def test_the_lock_holds_them_all_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    locked = {package["name"]: package for package in lock["package"]}
    wanted = _names(project["project"]["dependencies"]) | _names(project["dependency-groups"]["dev"])
    for name in wanted:
        assert name in locked, f"{name} is not in uv.lock: run uv lock"
        assert all("hash" in wheel for wheel in locked[name]["wheels"]), name

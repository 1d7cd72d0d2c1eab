"""serve -> cluster -> processors -> engine, never back; Ray, FastAPI and the sandbox keep to their places."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
LAYERS = ("engine", "processors", "cluster", "serve")
PACKAGES = (*LAYERS, "sandbox")
# Who may import these, as beginnings of file names.
ONLY_IN = {"ray": ("cluster/", "serve/app.py"), "fastapi": ("serve/", "sandbox/")}


def files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (CHECKOUT / package).rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")


def imports(source: str, module: str, *, package: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(imported module, names taken from it) for every import, also within functions and by importlib."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")
            base = base[: len(base) - node.level + package] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name, tuple(alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module" and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value, ()


def breaches(source: str, file: str) -> list[str]:
    """What a file imports that it may not."""
    module = file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    mine = module.split(".")[0]
    allowed = {"sandbox"} if mine == "sandbox" else set(LAYERS[: LAYERS.index(mine) + 1])
    found = []
    for name, _ in imports(source, module, package=file.endswith("__init__.py")):
        top = name.split(".")[0]
        if top in PACKAGES and top not in allowed:
            found.append(f"{file} imports {name}")
        if top in ONLY_IN and not file.startswith(ONLY_IN[top]):
            found.append(f"{file} imports {name}")
    return found


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_imports_run_one_way(path: Path) -> None:
    assert breaches(path.read_text(), path.relative_to(CHECKOUT).as_posix()) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("engine/unit.py", "import cluster.tasks"),
        ("engine/unit.py", "def f():\n    from processors import resolve"),
        ("engine/deep/er.py", "import importlib\nimportlib.import_module('serve.app')"),
        ("engine/unit.py", "from ray import remote"),
        ("processors/openai/usage.py", "import ray"),
        ("processors/openai/usage.py", "from cluster import tasks"),
        ("cluster/driver.py", "import serve.cli"),
        ("cluster/driver.py", "import sandbox"),
        ("cluster/driver.py", "import fastapi"),
        ("serve/routers/runs.py", "import ray"),
        ("serve/cli/local.py", "from sandbox import openai"),
        ("sandbox/openai.py", "from engine.types import Unit"),
    ],
)
def test_a_breach_is_seen(file: str, source: str) -> None:
    assert len(breaches(source, file)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("serve/app.py", "from ray import serve as ray_serve"),
        ("serve/app.py", "import engine.types, processors, cluster.driver"),
        ("cluster/__init__.py", "from . import driver"),
        ("processors/openai/usage.py", "from engine.http import Http"),
        ("sandbox/openai.py", "from sandbox.faults import Faults\nimport fastapi"),
    ],
)
def test_what_is_allowed_passes(file: str, source: str) -> None:
    assert breaches(source, file) == []


def circle(sources: dict[str, tuple[str, bool]]) -> list[str]:
    """A circle among modules, given as module -> (source, is a package's __init__); empty without one."""
    edges: dict[str, set[str]] = {}
    for module, (source, package) in sources.items():
        wanted: set[str] = set()
        for name, taken in imports(source, module, package=package):
            # `from package import module` needs that module, and the package itself only for other names.
            inner = {f"{name}.{one}" for one in taken if f"{name}.{one}" in sources}
            wanted |= inner or ({name} & sources.keys())
        edges[module] = wanted - {module}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return [str(module) for module in error.args[1]]
    return []


def test_no_circles() -> None:
    assert circle({module_of(p): (p.read_text(), p.name == "__init__.py") for p in files()}) == []


def test_a_circle_is_seen() -> None:
    sources = {
        "engine.a": ("from engine import b", False),
        "engine.b": ("def f():\n    from engine.c import x", False),
        "engine.c": ("import engine.a", False),
    }
    assert set(circle(sources)) == {"engine.a", "engine.b", "engine.c"}

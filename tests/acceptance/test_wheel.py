"""The wheel is the whole product: unpacked elsewhere it runs without the checkout. No network, no uv."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = {"cluster", "engine", "processors", "sandbox", "serve"}
#: Where the parts of the program came from, asked of a child that runs the unpacked wheel.
WHERE = """
import importlib, json, sys
from importlib.metadata import entry_points
from engine.settings import Settings
(script,) = [e for e in entry_points(group="console_scripts", name="manta")]
found = {name: importlib.import_module(name).__file__ for name in sys.argv[1:]}
settings = Settings.load({})
print(json.dumps(found | {"script": script.value, "root": str(settings.root)}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    (built,) = WheelBuilder(str(CHECKOUT)).build(directory=str(folder), versions=["standard"])
    return Path(built)


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like site-packages that holds the wheel's content: what installing it would make."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with the wheel's content first on its path, far from the checkout."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**kept, "HOME": str(cwd), "MANTA_HOME": str(cwd / "home"), "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def tracked(folder: str, pattern: str) -> set[str]:
    """What the checkout has under a folder, bytecode apart."""
    return {
        path.relative_to(CHECKOUT).as_posix()
        for path in (CHECKOUT / folder).rglob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_everything_that_is_read_at_run_time_is_in_it(names: set[str]) -> None:
    assert {".env.local", ".env.stage", ".env.prod"} <= names
    assert tracked("configs", "*") <= names
    assert tracked("procedures", "*") <= names
    statements = tracked("engine", "*.sql")
    assert statements
    assert statements <= names
    for package in PACKAGES:
        assert tracked(package, "*.py") <= names


def test_nothing_else_is_in_it(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    (info,) = [top for top in tops if top.endswith(".dist-info")]
    assert tops == PACKAGES | {"configs", "procedures", ".env.local", ".env.stage", ".env.prod", info}
    assert not [name for name in names if "test" in Path(name).stem and not name.startswith(info)]
    assert not [name for name in names if name.endswith((".pyc", ".key"))]


def test_it_installs_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (listed,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        parser = configparser.ConfigParser()
        parser.read_string(archive.read(listed).decode())
    module, _, function = parser["console_scripts"]["manta"].partition(":")
    assert callable(getattr(import_module(module), function))


def test_code_and_configs_are_the_wheels_own(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "-c", WHERE, *sorted(PACKAGES))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("script") == "serve.cli.main:main"
    assert Path(found.pop("root")) == installed
    assert {name: Path(file).parents[1] for name, file in found.items()} == dict.fromkeys(PACKAGES, installed)


def manta(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call what the entry point calls."""
    start = "import sys; from serve.cli.main import main; sys.argv[0] = 'manta'; main()"
    return run(installed, cwd, "-c", start, *arguments)


def test_manta_helps_and_validates_elsewhere(installed: Path, tmp_path: Path) -> None:
    helped = manta(installed, tmp_path, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "validate" in helped.stdout
    checked = manta(installed, tmp_path, "validate")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "no problem found" in checked.stdout


def test_it_is_the_wheels_configs_that_are_validated(wheel: Path, tmp_path: Path) -> None:
    spoiled = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(spoiled)
    pipeline = spoiled / "configs" / "anthropic" / "usage_cost.yml"
    pipeline.write_text(pipeline.read_text() + "no_such_key: 1\n")
    checked = manta(spoiled, tmp_path, "validate", "--json")
    assert checked.returncode == 1
    problems = [json.loads(line) for line in checked.stdout.splitlines()]
    assert problems
    assert all(str(problem["file"]).endswith("configs/anthropic/usage_cost.yml") for problem in problems)

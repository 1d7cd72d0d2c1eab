"""docs/cli.md and the commands say the same: each command, each option, and help for all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from serve.cli.main import app
from tests.unit.serve.doubles import ROOT

TEXT = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
SECTIONS = {part.split("`", 1)[0]: part for part in re.split(r"^### `", TEXT, flags=re.MULTILINE)[1:]}


def commands() -> Iterator[tuple[str, Any]]:
    def walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                yield from walk(f"{path} {name}", inner)
        else:
            yield path, command

    yield from walk("manta", typer.main.get_command(app))


ALL = dict(commands())


def test_every_command_is_documented_and_no_other() -> None:
    assert set(SECTIONS) == set(ALL)


@pytest.mark.parametrize("path", ALL)
def test_every_option_is_documented_and_has_help(path: str) -> None:
    command = ALL[path]
    assert command.help
    for parameter in command.params:
        if parameter.name == "help":
            continue
        assert getattr(parameter, "help", None), f"{path} {parameter.name} has no help"
        if parameter.param_type_name == "option":
            assert parameter.opts[0] in SECTIONS[path], f"{path} {parameter.opts[0]} is not in docs/cli.md"


@pytest.mark.parametrize("path", ALL)
def test_a_section_names_no_option_that_is_not_there(path: str) -> None:
    known = {option for parameter in ALL[path].params for option in parameter.opts}
    named = set(re.findall(r"--[a-z][a-z-]*", SECTIONS[path].split("\n## ")[0]))
    assert named <= known | {"--help"}


@pytest.mark.parametrize("path", ALL)
def test_the_short_help_fits_its_line(path: str) -> None:
    first = (ALL[path].help or "").split("\n\n")[0].replace("\n", " ")
    assert len(first) <= 56

"""Root keys: where they come from, how many are valid, and changing them without a gap."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigurationError, StateError
from engine.root_keys import make_root_key, read_root_keys, retire_root_file, root_key_file, rotate_root_file
from engine.settings import Settings

NEW, OLD = "n" * 32, "o" * 32


def settings(home: Path, **environ: str) -> Settings:
    return Settings.load({"MANTA_HOME": str(home), **environ}, root=home)


def put(home: Path, text: str, *, mode: int = 0o600) -> Path:
    path = root_key_file(home)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_file_is_made_once_and_private(tmp_path: Path) -> None:
    path, made = make_root_key(tmp_path)
    assert made
    assert (path, path.stat().st_mode & 0o777) == (root_key_file(tmp_path), 0o600)
    (key,) = read_root_keys(settings(tmp_path))
    assert len(key) == 64
    assert make_root_key(tmp_path) == (path, False)
    assert read_root_keys(settings(tmp_path)) == (key,)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    make_root_key(tmp_path)
    given = settings(tmp_path, CA_ROOT_API_KEY=NEW, CA_ROOT_API_KEY_PREVIOUS=OLD)
    assert read_root_keys(given) == (NEW, OLD)
    assert read_root_keys(settings(tmp_path, CA_ROOT_API_KEY=NEW, CA_ROOT_API_KEY_PREVIOUS=NEW)) == (NEW,)


def test_only_local_reads_the_file(tmp_path: Path) -> None:
    make_root_key(tmp_path)
    with pytest.raises(ConfigurationError, match="There is no root key"):
        read_root_keys(settings(tmp_path, MANTA_ENV="prod"))


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "There is no root key"),
        ({"CA_ROOT_API_KEY": "n" * 31}, "CA_ROOT_API_KEY: the root key has 31 characters"),
        (
            {"CA_ROOT_API_KEY": NEW, "CA_ROOT_API_KEY_PREVIOUS": "short"},
            "CA_ROOT_API_KEY_PREVIOUS: the root key has 5",
        ),
        ({"CA_ROOT_API_KEY_PREVIOUS": OLD}, "PREVIOUS is set without CA_ROOT_API_KEY"),
    ],
)
def test_what_is_refused(tmp_path: Path, environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        read_root_keys(settings(tmp_path, **environ))
    assert refused.value.field
    assert not {NEW, OLD} & set(str(refused.value).split())


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        (f"{NEW}\n", 0o640, "has mode 0640"),
        ("\n \n", 0o600, "has 0 lines"),
        (f"{NEW}\n{OLD}\n{OLD}\n", 0o600, "has 3 lines"),
        (f"{NEW}\nshort\n", 0o600, "line 2: the root key has 5 characters"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, mode: int, said: str) -> None:
    put(tmp_path, text, mode=mode)
    with pytest.raises(ConfigurationError, match=said) as refused:
        read_root_keys(settings(tmp_path))
    assert NEW not in str(refused.value)


def test_rotation_has_two_steps_and_no_gap(tmp_path: Path) -> None:
    here = settings(tmp_path)
    path, _ = make_root_key(tmp_path)
    (former,) = read_root_keys(here)
    assert rotate_root_file(tmp_path) == path
    new, kept = read_root_keys(here)
    assert kept == former != new
    with pytest.raises(StateError, match="Two root keys are valid already"):
        rotate_root_file(tmp_path)
    assert read_root_keys(here) == (new, former)
    assert retire_root_file(tmp_path) == path
    assert read_root_keys(here) == (new,)
    with pytest.raises(StateError, match="no former root key"):
        retire_root_file(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in path.parent.iterdir()] == ["root.key"]


def test_rotating_without_a_file_makes_one(tmp_path: Path) -> None:
    with pytest.raises(StateError):
        retire_root_file(tmp_path)
    rotate_root_file(tmp_path)
    assert len(read_root_keys(settings(tmp_path))) == 1

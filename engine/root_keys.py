"""The operator's keys: one or, while it is being changed, two valid ones, from settings or a private file."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from engine.errors import ConfigurationError, StateError
from engine.settings import MIN_ROOT_KEY_CHARS, Settings

ROOT_KEY_BYTES = 32
#: The new one and the one before it.
MAX_ROOT_KEYS = 2


def root_key_file(home: Path) -> Path:
    """Where the keys of a data folder are: one a line, newest first."""
    return home / "keys" / "root.key"


def read_root_keys(settings: Settings) -> tuple[str, ...]:
    """The valid root keys, newest first.

    They are CA_ROOT_API_KEY and CA_ROOT_API_KEY_PREVIOUS; locally, without these, the lines of the file that
    `manta up` makes. Raises ConfigurationError when there is none, or one is shorter than 32 characters.
    """
    given = [
        (name, key.get_secret_value())
        for name, key in (
            ("CA_ROOT_API_KEY", settings.ca_root_api_key),
            ("CA_ROOT_API_KEY_PREVIOUS", settings.ca_root_api_key_previous),
        )
        if key is not None
    ]
    if given and settings.ca_root_api_key is None:
        raise ConfigurationError(
            "CA_ROOT_API_KEY_PREVIOUS is set without CA_ROOT_API_KEY.",
            fix="Export CA_ROOT_API_KEY, the new key.",
            field="CA_ROOT_API_KEY",
        )
    path = root_key_file(settings.home)
    if not given and settings.env == "local" and path.exists():
        given = [(f"{path}, line {n}", key) for n, key in enumerate(_lines(path), start=1)]
    if not given:
        raise ConfigurationError(
            "There is no root key for the API.",
            fix="Run `manta up`, which makes one, or export CA_ROOT_API_KEY (openssl rand -hex 32).",
            field="CA_ROOT_API_KEY",
        )
    for name, key in given:
        if len(key) < MIN_ROOT_KEY_CHARS:
            raise ConfigurationError(
                f"{name}: the root key has {len(key)} characters, fewer than {MIN_ROOT_KEY_CHARS}.",
                fix="Make a long one: openssl rand -hex 32",
                field="CA_ROOT_API_KEY",
            )
    return tuple(dict.fromkeys(key for _, key in given))


def make_root_key(home: Path) -> tuple[Path, bool]:
    """The file with the API's root key, and whether it was made now; only its owner reads it."""
    path = root_key_file(home)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path, False
    with os.fdopen(descriptor, "w") as file:
        file.write(_new_key() + "\n")
    return path, True


def rotate_root_file(home: Path) -> Path:
    """Put a new key first and keep the former one valid; answers the file.

    Raises StateError while an earlier rotation has not been retired: somebody may still use that key.
    """
    path = root_key_file(home)
    if not path.exists():
        return make_root_key(home)[0]
    held = _lines(path)
    if len(held) == MAX_ROOT_KEYS:
        raise StateError(
            "Two root keys are valid already.",
            fix="Bring everyone to the newer one, then end the older: manta key root --retire",
            field="rotate",
        )
    _write(path, [_new_key(), *held])
    return path


def retire_root_file(home: Path) -> Path:
    """End the former key of a rotation; answers the file. Raises StateError when only one is valid."""
    path = root_key_file(home)
    held = _lines(path) if path.exists() else ()
    if len(held) < MAX_ROOT_KEYS:
        raise StateError(
            "There is no former root key to end.",
            fix="Make a new one first: manta key root --rotate",
            field="retire",
        )
    _write(path, held[:1])
    return path


def _new_key() -> str:
    return secrets.token_hex(ROOT_KEY_BYTES)


def _lines(path: Path) -> tuple[str, ...]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        held = tuple(filter(None, (line.strip() for line in path.read_text(encoding="utf-8").splitlines())))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The root key {path} cannot be read: {error}.",
            fix="Mend or delete the file; `manta up` makes a new one.",
            field="CA_ROOT_API_KEY",
        ) from error
    if mode & 0o077:
        raise ConfigurationError(
            f"The root key {path} has mode {mode:04o}: others can read it.",
            fix=f"chmod 600 {path}",
            field="CA_ROOT_API_KEY",
        )
    if not 0 < len(held) <= MAX_ROOT_KEYS:
        raise ConfigurationError(
            f"The root key {path} has {len(held)} lines, not 1 or {MAX_ROOT_KEYS}.",
            fix="Keep the newest key on the first line, or delete the file; `manta up` makes a new one.",
            field="CA_ROOT_API_KEY",
        )
    return held


def _write(path: Path, keys: Sequence[str]) -> None:
    # Whoever reads meanwhile sees the old file or the new one, never half of it.
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write("\n".join(keys) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)

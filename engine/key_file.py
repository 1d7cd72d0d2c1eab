"""A master key in a file of this machine; former ones stay beside it until nothing names them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine.errors import ConfigurationError
from engine.master_keys import Wrapped

KEY_BYTES = 32
NONCE_BYTES = 12
#: A fingerprint of the key, not its path: a file may be replaced.
NAME = re.compile(r"file:([0-9a-f]{16})")


class FileKeyWrapper:
    """A master key of 32 bytes in a file that only its owner can read; made when first needed to wrap.

    Every call reads the file, so a long-lived process follows a rotation. Former keys are named
    `master.<fingerprint>.key` after a `master.key`.
    """

    def __init__(self, path: Path, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._path = path
        self._random = random

    def current(self) -> str | None:
        """The fingerprint of the key in the file; None while there is no file."""
        return name_of(read_key(self._path)) if self._path.exists() else None

    def knows(self, key_name: str) -> bool:
        """Whether it is the current key, or a former one is there under that name.

        Raises ConfigurationError when the current key cannot be read.
        """
        if name_of(read_key(self._path)) == key_name:
            return True
        former = self._former(key_name)
        return former is not None and former.exists()

    def wrap(self, data: bytes, aad: bytes) -> Wrapped:
        """Encrypt a data key, making the master key when there is none."""
        if not self._path.exists():
            self._make()
        # Read once: the name must be the one of the key that wraps, whoever replaces the file meanwhile.
        key, nonce = read_key(self._path), self._random(NONCE_BYTES)
        return Wrapped(nonce + AESGCM(key).encrypt(nonce, data, aad), name_of(key))

    def unwrap(self, wrapped: Wrapped, aad: bytes) -> bytes:
        """Decrypt a data key; InvalidTag when data or aad differ."""
        key = read_key(self._path)
        if name_of(key) != wrapped.key_name and (former := self._former(wrapped.key_name)) is not None:
            key = read_key(former)
        return AESGCM(key).decrypt(wrapped.data[:NONCE_BYTES], wrapped.data[NONCE_BYTES:], aad)

    def renew(self) -> str:
        """Replace the key by a new one and keep the former beside it; a kill leaves one of the two current.

        Raises ConfigurationError when there is no key to renew.
        """
        with self._alone():
            key = read_key(self._path)
            former = self._former(name_of(key))
            assert former is not None  # noqa: S101 - for the type checker; we made the name
            # The former key has its second name before it loses the first: no moment is without it.
            if not former.exists():
                former.hardlink_to(self._path)
                _sync_folder(self._path.parent)
            draft = self._draft()
            new = read_key(draft)
            draft.replace(self._path)
            _sync_folder(self._path.parent)
            return name_of(new)

    def _former(self, key_name: str) -> Path | None:
        named = NAME.fullmatch(key_name)
        return self._path.with_name(f"{self._path.stem}.{named[1]}{self._path.suffix}") if named else None

    def _make(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._draft()
        try:
            # A link fails where a rename would replace: of two first users one wins and both use its key.
            self._path.hardlink_to(draft)
            _sync_folder(self._path.parent)
        except FileExistsError:
            pass
        finally:
            draft.unlink()

    def _draft(self) -> Path:
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}.{self._random(8).hex()}")
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self._random(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        return draft

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder's lock: of two renewals at once the second would lose the first one's key."""
        try:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _unreadable(self._path, error) from error
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def name_of(key: bytes) -> str:
    """What rows call this key."""
    return f"file:{hashlib.sha256(b'manta master key ' + key).hexdigest()[:16]}"


def read_key(path: Path) -> bytes:
    """The key in a file. Raises ConfigurationError when it is missing, readable for others or no key."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        key = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if mode & 0o077:
        raise ConfigurationError(
            f"The master key {path} has mode {mode:04o}: others can read it.",
            fix=f"chmod 600 {path}",
            field="key_file",
        )
    if len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"The master key {path} has {len(key)} bytes, not {KEY_BYTES}.",
            fix="Restore the file from its backup, or set KEY_FILE.",
            field="key_file",
        )
    return key


def _unreadable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"The master key {path} cannot be read: {error.strerror}.",
        fix="Restore the file from its backup, or set KEY_FILE: without it credentials stay closed.",
        field="key_file",
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

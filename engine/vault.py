"""Credentials at rest: AES-256-GCM under a key of their own, which a master key wraps; none is ever shown."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import google_crc32c
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud.kms_v1 import DecryptRequest, EncryptRequest, KeyManagementServiceClient

from engine.errors import ConfigurationError, TransientError
from engine.foreign import mapped
from engine.settings import Settings

KEY_BYTES = 32
NONCE_BYTES = 12
REDACTED = "[redacted]"


class Secret:
    """A decrypted credential. Only `reveal()` shows it; unpicklable, so it never becomes a task argument."""

    __slots__ = ("_value",)
    _value: str

    def __init__(self, value: str) -> None:
        object.__setattr__(self, "_value", value)

    def reveal(self) -> str:
        """The credential itself, for the request that needs it."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({REDACTED})"

    def __str__(self) -> str:
        return REDACTED

    def __format__(self, spec: str) -> str:
        return REDACTED

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("A Secret does not change.")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A Secret does not travel; send its credential_id and open it where it is needed.")


class KeyWrapper(Protocol):
    """Holds the master key and never gives it away."""

    @property
    def name(self) -> str:
        """Which master key this is; stored beside what it wrapped."""
        ...

    def wrap(self, data: bytes, aad: bytes) -> bytes: ...

    def unwrap(self, data: bytes, aad: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Sealed:
    """A credential as it is stored: nonce and ciphertext, its wrapped data key, the master key's name."""

    ciphertext: bytes
    wrapped_key: bytes
    key_name: str


class Vault:
    """Seals and opens credentials; `random` gives that many random bytes."""

    def __init__(self, wrapper: KeyWrapper, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._wrapper = wrapper
        self._random = random

    def seal(self, secret: str, *, org: str, provider: str, credential_id: str) -> Sealed:
        """Encrypt a credential so that it opens only for this organisation, provider and id."""
        aad = _aad(org, provider, credential_id)
        data_key, nonce = self._random(KEY_BYTES), self._random(NONCE_BYTES)
        ciphertext = nonce + AESGCM(data_key).encrypt(nonce, secret.encode(), aad)
        # Wrapping comes first: it makes the key that the name is a fingerprint of.
        wrapped = self._wrapper.wrap(data_key, aad)
        return Sealed(ciphertext, wrapped, self._wrapper.name)

    def open(self, sealed: Sealed, *, org: str, provider: str, credential_id: str) -> Secret:
        """Decrypt a credential.

        Raises ConfigurationError when it was altered, belongs to another organisation, provider or id, or was
        sealed with another master key.
        """
        aad = _aad(org, provider, credential_id)
        if sealed.key_name != self._wrapper.name:
            raise ConfigurationError(
                f"Credential {credential_id} was sealed with master key {sealed.key_name}, but this is "
                f"{self._wrapper.name}.",
                fix="Bring the former key back (KEY_FILE, KMS_KEY) or add the credential again.",
            )
        nonce, body = sealed.ciphertext[:NONCE_BYTES], sealed.ciphertext[NONCE_BYTES:]
        try:
            data_key = self._wrapper.unwrap(sealed.wrapped_key, aad)
            return Secret(AESGCM(data_key).decrypt(nonce, body, aad).decode())
        except (InvalidTag, ValueError) as error:
            raise _does_not_open(f"Credential {credential_id} of {org} ({provider})") from error


def _aad(*parts: str) -> bytes:
    if any("|" in part or not part for part in parts):
        raise ConfigurationError("Organisation, provider and credential id must be given and hold no '|'.")
    return "|".join(parts).encode()


def _does_not_open(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{what} does not decrypt: it was altered or belongs to another organisation, provider or id.",
        fix="Add it again with `manta credential add` and deactivate this one.",
    )


class FileKeyWrapper:
    """A master key of 32 bytes in a file that only its owner can read; made when first needed to wrap."""

    def __init__(self, path: Path, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._path = path
        self._random = random

    @property
    def name(self) -> str:
        """A fingerprint of the key, not its path: a file may be replaced."""
        return f"file:{hashlib.sha256(b'manta master key ' + self._key()).hexdigest()[:16]}"

    def wrap(self, data: bytes, aad: bytes) -> bytes:
        """Encrypt a data key, making the master key when there is none."""
        if not self._path.exists():
            self._make()
        nonce = self._random(NONCE_BYTES)
        return nonce + AESGCM(self._key()).encrypt(nonce, data, aad)

    def unwrap(self, data: bytes, aad: bytes) -> bytes:
        """Decrypt a data key; InvalidTag when data or aad differ."""
        return AESGCM(self._key()).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], aad)

    def _make(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}.{self._random(8).hex()}")
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._random(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            # A link fails where a rename would replace: of two first users one wins and both use its key.
            self._path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()

    def _key(self) -> bytes:
        try:
            mode = stat.S_IMODE(self._path.stat().st_mode)
            key = self._path.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"The master key {self._path} cannot be read: {error.strerror}.",
                fix="Restore the file from its backup, or set KEY_FILE: without it credentials stay closed.",
                field="key_file",
            ) from error
        if mode & 0o077:
            raise ConfigurationError(
                f"The master key {self._path} has mode {mode:04o}: others can read it.",
                fix=f"chmod 600 {self._path}",
                field="key_file",
            )
        if len(key) != KEY_BYTES:
            raise ConfigurationError(
                f"The master key {self._path} has {len(key)} bytes, not {KEY_BYTES}.",
                fix="Restore the file from its backup, or set KEY_FILE.",
                field="key_file",
            )
        return key


class KmsKeyWrapper:
    """A master key in Cloud KMS, with checksums both ways: a damaged data key would lose a credential."""

    def __init__(self, client: KeyManagementServiceClient, key: str, *, timeout_s: float = 10) -> None:
        self._client = client
        self._key = key
        self._timeout_s = timeout_s

    @property
    def name(self) -> str:
        """The key's resource name; KMS itself knows its versions."""
        return f"kms:{self._key}"

    def wrap(self, data: bytes, aad: bytes) -> bytes:
        """Encrypt a data key."""
        request = EncryptRequest(
            name=self._key,
            plaintext=data,
            plaintext_crc32c=_crc(data),
            additional_authenticated_data=aad,
            additional_authenticated_data_crc32c=_crc(aad),
        )
        with mapped("Cloud KMS encrypt"):
            answer = self._client.encrypt(request=request, timeout=self._timeout_s)
        intact = answer.verified_plaintext_crc32c and answer.verified_additional_authenticated_data_crc32c
        if not intact or answer.ciphertext_crc32c != _crc(answer.ciphertext):
            raise _damaged()
        return bytes(answer.ciphertext)

    def unwrap(self, data: bytes, aad: bytes) -> bytes:
        """Decrypt a data key; ConfigurationError when KMS refuses it."""
        request = DecryptRequest(
            name=self._key,
            ciphertext=data,
            ciphertext_crc32c=_crc(data),
            additional_authenticated_data=aad,
            additional_authenticated_data_crc32c=_crc(aad),
        )
        with mapped("Cloud KMS decrypt"):
            answer = self._client.decrypt(request=request, timeout=self._timeout_s)
        if answer.plaintext_crc32c != _crc(answer.plaintext):
            raise _damaged()
        return bytes(answer.plaintext)


def _crc(data: bytes) -> int:
    return int(google_crc32c.value(data))


def _damaged() -> TransientError:
    return TransientError("What Cloud KMS answered was damaged on the way.", fix="Try again.")


def open_vault(settings: Settings, *, connect_kms: Callable[[], KeyManagementServiceClient]) -> Vault:
    """The vault of an environment; `connect_kms` is called only where KMS holds the master key."""
    if settings.key_store == "file":
        return Vault(FileKeyWrapper(settings.key_file))
    if settings.kms_key is None:
        raise ConfigurationError("There is no KMS key.", fix="Set KMS_KEY.", field="kms_key")
    return Vault(KmsKeyWrapper(connect_kms(), settings.kms_key))

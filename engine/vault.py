"""Credentials at rest: AES-256-GCM under a key of their own, which a master key wraps; none is ever shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud.kms_v1 import KeyManagementServiceClient

from engine.errors import ConfigurationError
from engine.key_file import FileKeyWrapper
from engine.key_kms import KmsKeyWrapper
from engine.master_keys import KeyWrapper, Stores, Wrapped
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
        wrapped = self._wrapper.wrap(data_key, aad)
        return Sealed(ciphertext, wrapped.data, wrapped.key_name)

    def open(self, sealed: Sealed, *, org: str, provider: str, credential_id: str) -> Secret:
        """Decrypt a credential, under the current or a former master key.

        Raises ConfigurationError when it was altered, belongs to another organisation, provider or id, or was
        sealed with a master key that is not at hand; TransientError while Cloud KMS is away.
        """
        aad = _aad(org, provider, credential_id)
        nonce, body = sealed.ciphertext[:NONCE_BYTES], sealed.ciphertext[NONCE_BYTES:]
        try:
            data_key = self._unwrap(sealed, aad, credential_id)
            return Secret(AESGCM(data_key).decrypt(nonce, body, aad).decode())
        except (InvalidTag, ValueError) as error:
            raise _does_not_open(org, provider, credential_id) from error

    def rewrap(self, sealed: Sealed, *, org: str, provider: str, credential_id: str) -> Sealed:
        """Wrap the data key anew under the current master key; the ciphertext stays.

        Raises what `open` does.
        """
        aad = _aad(org, provider, credential_id)
        try:
            data_key = self._unwrap(sealed, aad, credential_id)
        except (InvalidTag, ValueError) as error:
            raise _does_not_open(org, provider, credential_id) from error
        wrapped = self._wrapper.wrap(data_key, aad)
        return Sealed(sealed.ciphertext, wrapped.data, wrapped.key_name)

    def master_key(self) -> str | None:
        """Name of the master key that seals now; None while there is none. Asks Cloud KMS."""
        return self._wrapper.current()

    def has_master_key(self, key_name: str) -> bool:
        """Whether what was sealed under this master key can be opened."""
        return self._wrapper.knows(key_name)

    def renew_master_key(self) -> str:
        """Make a new master key and answer its name; the former keeps opening what it sealed.

        Raises UsageError where Cloud KMS holds it, ConfigurationError when there is none to renew.
        """
        return self._wrapper.renew()

    def _unwrap(self, sealed: Sealed, aad: bytes, credential_id: str) -> bytes:
        if not self._wrapper.knows(sealed.key_name):
            raise ConfigurationError(
                f"Credential {credential_id} was sealed with master key {sealed.key_name}, "
                "which is not at hand.",
                fix="Bring the former key back (KEY_FILE, KMS_KEY_PREVIOUS) or add the credential again.",
            )
        return self._wrapper.unwrap(Wrapped(sealed.wrapped_key, sealed.key_name), aad)


def _aad(*parts: str) -> bytes:
    if any("|" in part or not part for part in parts):
        raise ConfigurationError("Organisation, provider and credential id must be given and hold no '|'.")
    return "|".join(parts).encode()


def _does_not_open(org: str, provider: str, credential_id: str) -> ConfigurationError:
    return ConfigurationError(
        f"Credential {credential_id} of {org} ({provider}) does not decrypt: it was altered or belongs to "
        "another organisation, provider or id.",
        fix="Add it again with `manta credential add` and deactivate this one.",
    )


def open_vault(settings: Settings, *, connect_kms: Callable[[], KeyManagementServiceClient]) -> Vault:
    """The vault of an environment; `connect_kms` is called only where a key of Cloud KMS is needed.

    KEY_STORE says which store seals. The other one, where its setting is there too, opens what it sealed
    before; prod takes no master key from a file.
    """
    stores: dict[str, Callable[[], KeyWrapper]] = {}
    kms = [key for key in (settings.kms_key, settings.kms_key_previous) if key]
    if kms:
        stores["kms"] = lambda: KmsKeyWrapper(connect_kms(), kms[0], former=kms[1:])
    if settings.key_store == "file" or (settings.env != "prod" and settings.key_file.exists()):
        stores["file"] = lambda: FileKeyWrapper(settings.key_file)
    if settings.key_store == "kms" and settings.kms_key is None:
        raise ConfigurationError("There is no KMS key.", fix="Set KMS_KEY.", field="kms_key")
    return Vault(Stores(settings.key_store, stores))

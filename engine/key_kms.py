"""A master key in Cloud KMS, with checksums both ways: a damaged data key would lose a credential."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import google_crc32c
from google.api_core import exceptions as google
from google.api_core.retry import Retry
from google.cloud.kms_v1 import DecryptRequest, EncryptRequest, KeyManagementServiceClient

from engine.errors import ConfigurationError, MantaError, TransientError, UsageError
from engine.foreign import mapped
from engine.master_keys import Wrapped

#: KMS answers INVALID_ARGUMENT to a request whose checksum does not fit; the words tell it from a refusal.
CHECKSUM = re.compile("checksum|crc32c", re.IGNORECASE)
VERSIONS = "/cryptoKeyVersions/"
PROBE = b"which version"
ROLE = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
#: What to do about Google's answers that mean a person must act.
FIXES: dict[type[Exception], str] = {
    google.PermissionDenied: f"Grant this process's account {ROLE} on the key.",
    google.NotFound: "Correct KMS_KEY, or KMS_KEY_PREVIOUS for what the former key has wrapped.",
    google.FailedPrecondition: "Enable the key's version again, or restore it while it is scheduled to go.",
}


class KmsKeyWrapper:
    """`key` wraps with its primary version, and `former` keys only unwrap.

    A row names the version, so `manta vault status` can tell what an older one still holds; KMS finds the
    version by itself. Only keys named here are ever asked: a row cannot bring a key of its own.
    """

    def __init__(
        self,
        client: KeyManagementServiceClient,
        key: str,
        *,
        former: Sequence[str] = (),
        timeout_s: float = 10,
    ) -> None:
        self._client = client
        self._key = key
        self._keys = frozenset((key, *former))
        self._timeout_s = timeout_s

    def current(self) -> str | None:
        """The primary version. A trial wrap tells it: reading the key's record needs one more permission."""
        return self.wrap(PROBE, PROBE).key_name

    def knows(self, key_name: str) -> bool:
        """Whether it is a version of one of the keys that the settings name."""
        return key_name.startswith("kms:") and _key_of(key_name) in self._keys

    def wrap(self, data: bytes, aad: bytes) -> Wrapped:
        """Encrypt a data key."""
        request = EncryptRequest(
            name=self._key,
            plaintext=data,
            plaintext_crc32c=_crc(data),
            additional_authenticated_data=aad,
            additional_authenticated_data_crc32c=_crc(aad),
        )
        with _asking("Cloud KMS encrypt"):
            answer = self._client.encrypt(request=request, timeout=self._timeout_s, retry=self._retry())
        intact = answer.verified_plaintext_crc32c and answer.verified_additional_authenticated_data_crc32c
        if not intact or answer.ciphertext_crc32c != _crc(answer.ciphertext):
            raise _damaged()
        if not answer.name.startswith(f"{self._key}{VERSIONS}"):
            raise TransientError("Cloud KMS answered with another key than was asked for.", fix="Try again.")
        return Wrapped(bytes(answer.ciphertext), f"kms:{answer.name}")

    def unwrap(self, wrapped: Wrapped, aad: bytes) -> bytes:
        """Decrypt a data key; ValueError when it was altered, or `aad` or the key are others."""
        request = DecryptRequest(
            name=_key_of(wrapped.key_name),
            ciphertext=wrapped.data,
            ciphertext_crc32c=_crc(wrapped.data),
            additional_authenticated_data=aad,
            additional_authenticated_data_crc32c=_crc(aad),
        )
        try:
            with _asking("Cloud KMS decrypt"):
                answer = self._client.decrypt(request=request, timeout=self._timeout_s, retry=self._retry())
        except ConfigurationError as error:
            if isinstance(error.__cause__, google.InvalidArgument):
                raise ValueError(error.message) from error
            raise
        if answer.plaintext_crc32c != _crc(answer.plaintext):
            raise _damaged()
        return bytes(answer.plaintext)

    def renew(self) -> str:
        """Versions are KMS's own: raises UsageError."""
        raise UsageError(
            "Cloud KMS makes the versions of its keys itself.",
            fix="gcloud kms keys versions create --primary --key KEY --keyring RING --location LOCATION",
            field="new_master",
        )

    def _retry(self) -> Retry:
        # The client's own would go on for a minute, whatever `timeout` says.
        away = (google.ServiceUnavailable, google.DeadlineExceeded)
        return Retry(
            predicate=lambda error: isinstance(error, away), initial=0.1, maximum=2, timeout=self._timeout_s
        )


@contextmanager
def _asking(doing: str) -> Iterator[None]:
    """A refusal is never the caller's own fault, not even NOT_FOUND: the settings name the key."""
    try:
        with mapped(doing):
            yield
    except TransientError:
        raise
    except MantaError as error:
        cause = error.__cause__
        if isinstance(cause, google.InvalidArgument) and CHECKSUM.search(error.message):
            raise _damaged() from cause
        fix = next((fix for kind, fix in FIXES.items() if isinstance(cause, kind)), error.fix)
        raise ConfigurationError(error.message, fix=fix, field="kms_key") from cause


def _key_of(key_name: str) -> str:
    return key_name.removeprefix("kms:").partition(VERSIONS)[0]


def _crc(data: bytes) -> int:
    return int(google_crc32c.value(data))


def _damaged() -> TransientError:
    return TransientError("What Cloud KMS answered was damaged on the way.", fix="Try again.")

"""Cloud KMS on loopback: symmetric keys with versions, on the real wire format, with faults on demand."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NoReturn

import google_crc32c
import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud.kms_v1 import (
    CryptoKey,
    CryptoKeyVersion,
    DecryptRequest,
    DecryptResponse,
    EncryptRequest,
    EncryptResponse,
    GetCryptoKeyRequest,
)

SERVICE = "google.cloud.kms.v1.KeyManagementService"
NONCE_BYTES = 12
#: Cloud KMS takes 64 KiB of each.
MOST_BYTES = 64 * 1024
VERSION = struct.Struct(">I")
#: `unavailable` and `permission_denied` are answered instead; the others damage what is answered.
FAULTS = (
    "unavailable",
    "permission_denied",
    "unverified",  # the request's checksums are not confirmed
    "cut_ciphertext",  # what arrives is not what its checksum is of
    "wrong_checksum",  # the plaintext's
    "wrong_key",  # another key's name in the answer
)


@dataclass(slots=True)
class Key:
    """One key: its versions by number, and which of them encrypts."""

    name: str
    versions: dict[int, bytes] = field(default_factory=dict)
    disabled: set[int] = field(default_factory=set)
    primary: int = 0


class State:
    """The keys that exist, the faults to come, and what was asked: (method, key, additional data)."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.calls: list[tuple[str, str, bytes]] = []
        self._faults: list[tuple[str, int | None]] = []
        self._lock = Lock()

    def add_key(self, name: str) -> Key:
        """Create a key with its first version."""
        self.keys[name] = Key(name)
        self.add_version(name)
        return self.keys[name]

    def add_version(self, name: str) -> int:
        """Create a version, make it primary and answer its number."""
        key = self.keys[name]
        key.primary = max(key.versions, default=0) + 1
        key.versions[key.primary] = os.urandom(32)
        return key.primary

    def put(self, fault: str, *, count: int | None = 1) -> None:
        """Hit the next `count` calls (None: all until `clear`) with one of FAULTS."""
        if fault not in FAULTS:
            raise ValueError(f"unknown fault '{fault}'; there are {', '.join(FAULTS)}")
        with self._lock:
            self._faults.append((fault, count))

    def clear(self) -> None:
        """No more faults."""
        with self._lock:
            self._faults.clear()

    def note(self, method: str, name: str, aad: bytes) -> str:
        """Record a call and answer the fault that hits it, or an empty string."""
        with self._lock:
            self.calls.append((method, name, aad))
            if not self._faults:
                return ""
            fault, count = self._faults[0]
            if count is not None:
                self._faults[0] = (fault, count - 1)
                if count <= 1:
                    self._faults.pop(0)
            return fault


@dataclass(frozen=True, slots=True)
class Kms:
    """A running server: host:port for the official client, and its live state."""

    host: str
    state: State = field(repr=False)


@contextmanager
def running(*keys: str) -> Iterator[Kms]:
    """Serve these keys in this process, on a free loopback port, until the block ends."""
    state = State()
    for name in keys:
        state.add_key(name)
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, handlers=[_handler(state)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield Kms(f"127.0.0.1:{port}", state)
        finally:
            server.stop(None).wait()


def _handler(state: State) -> Any:
    def method(answer: Callable[[State, Any, Any], Any], asked: Any, answered: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: answer(state, request, context), asked.deserialize, answered.serialize
        )

    methods = {
        "Encrypt": method(_encrypt, EncryptRequest, EncryptResponse),
        "Decrypt": method(_decrypt, DecryptRequest, DecryptResponse),
        "GetCryptoKey": method(_get, GetCryptoKeyRequest, CryptoKey),
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def _encrypt(state: State, request: EncryptRequest, context: Any) -> EncryptResponse:
    aad = request.additional_authenticated_data
    fault = _noted(state, "Encrypt", request.name, aad, context)
    key = _key(state, request.name, context)
    _check_sizes(context, plaintext=request.plaintext, additional_authenticated_data=aad)
    checked = _check_sums(context, request, "plaintext", "additional_authenticated_data")
    nonce = os.urandom(NONCE_BYTES)
    body = AESGCM(_material(key, key.primary, context)).encrypt(nonce, request.plaintext, aad)
    sealed = VERSION.pack(key.primary) + nonce + body
    name = f"{request.name}x" if fault == "wrong_key" else request.name
    return EncryptResponse(
        name=f"{name}/cryptoKeyVersions/{key.primary}",
        ciphertext=sealed[:-1] if fault == "cut_ciphertext" else sealed,
        ciphertext_crc32c=_crc(sealed),
        verified_plaintext_crc32c=checked["plaintext"] and fault != "unverified",
        verified_additional_authenticated_data_crc32c=checked["additional_authenticated_data"],
    )


def _decrypt(state: State, request: DecryptRequest, context: Any) -> DecryptResponse:
    aad = request.additional_authenticated_data
    fault = _noted(state, "Decrypt", request.name, aad, context)
    key = _key(state, request.name, context)
    _check_sums(context, request, "ciphertext", "additional_authenticated_data")
    head, rest = request.ciphertext[: VERSION.size], request.ciphertext[VERSION.size :]
    version = VERSION.unpack(head)[0] if len(head) == VERSION.size else 0
    if version not in key.versions:
        _abort(context, "INVALID_ARGUMENT", "Decryption failed: the ciphertext is invalid.")
    cipher = AESGCM(_material(key, version, context))
    try:
        data = cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], aad)
    except (InvalidTag, ValueError):
        # One answer for an altered text, another key's and other additional data, as the real service.
        _abort(context, "INVALID_ARGUMENT", "Decryption failed: the ciphertext is invalid.")
    return DecryptResponse(
        plaintext=data,
        plaintext_crc32c=_crc(data) + (fault == "wrong_checksum"),
        used_primary=version == key.primary,
    )


def _get(state: State, request: GetCryptoKeyRequest, context: Any) -> CryptoKey:
    _noted(state, "GetCryptoKey", request.name, b"", context)
    key = _key(state, request.name, context)
    enabled = CryptoKeyVersion.CryptoKeyVersionState.ENABLED
    primary = CryptoKeyVersion(name=f"{key.name}/cryptoKeyVersions/{key.primary}", state=enabled)
    return CryptoKey(name=key.name, primary=primary, purpose=CryptoKey.CryptoKeyPurpose.ENCRYPT_DECRYPT)


def _noted(state: State, method: str, name: str, aad: bytes, context: Any) -> str:
    fault = state.note(method, name, aad)
    if fault == "unavailable":
        _abort(context, "UNAVAILABLE", "The service is currently unavailable.")
    if fault == "permission_denied":
        need = {"Encrypt": "useToEncrypt", "Decrypt": "useToDecrypt"}.get(method, "get")
        said = f"Permission 'cloudkms.cryptoKeyVersions.{need}' denied on resource '{name}'"
        _abort(context, "PERMISSION_DENIED", f"{said} (or it may not exist).")
    return fault


def _key(state: State, name: str, context: Any) -> Key:
    if name not in state.keys:
        _abort(context, "NOT_FOUND", f"CryptoKey {name} not found.")
    return state.keys[name]


def _material(key: Key, version: int, context: Any) -> bytes:
    if version in key.disabled:
        said = f"{key.name}/cryptoKeyVersions/{version} is not enabled, current state is: DISABLED."
        _abort(context, "FAILED_PRECONDITION", said)
    return key.versions[version]


def _check_sizes(context: Any, **texts: bytes) -> None:
    for name, text in texts.items():
        if len(text) > MOST_BYTES:
            _abort(context, "INVALID_ARGUMENT", f"The {name} is larger than {MOST_BYTES} bytes.")


def _check_sums(context: Any, request: Any, *names: str) -> dict[str, bool]:
    """Which checksums came and fit; one that does not fit ends the call."""
    checked = {}
    for name in names:
        checked[name] = f"{name}_crc32c" in request
        if checked[name] and getattr(request, f"{name}_crc32c") != _crc(getattr(request, name)):
            _abort(context, "INVALID_ARGUMENT", f"The checksum in field {name}_crc32c did not match.")
    return checked


def _abort(context: Any, code: str, said: str) -> NoReturn:
    context.abort(getattr(grpc.StatusCode, code), said)
    raise AssertionError("abort raises")


def _crc(data: bytes) -> int:
    return int(google_crc32c.value(data))

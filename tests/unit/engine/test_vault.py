"""Secrets stay closed: sealed for one owner, never printed, never pickled, key files checked."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import google_crc32c
import grpc
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud.kms_v1 import (
    DecryptRequest,
    DecryptResponse,
    EncryptRequest,
    EncryptResponse,
    KeyManagementServiceClient,
)
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport

from engine.errors import ConfigurationError, TransientError
from engine.settings import Settings
from engine.vault import FileKeyWrapper, KmsKeyWrapper, Sealed, Secret, Vault, open_vault

SECRET = "sk-ant-admin01-the-secret"
OWNER = {"org": "acme", "provider": "anthropic", "credential_id": "c1"}


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(FileKeyWrapper(tmp_path / "keys" / "master.key"))


def test_what_is_sealed_opens_for_its_owner(vault: Vault) -> None:
    sealed = vault.seal(SECRET, **OWNER)
    assert SECRET.encode() not in sealed.ciphertext
    assert vault.open(sealed, **OWNER).reveal() == SECRET


def test_each_credential_has_its_own_key_and_nonce(vault: Vault) -> None:
    one, two = vault.seal(SECRET, **OWNER), vault.seal(SECRET, **OWNER)
    assert one.ciphertext != two.ciphertext
    with pytest.raises(ConfigurationError):
        vault.open(Sealed(one.ciphertext, two.wrapped_key, one.key_name), **OWNER)


@pytest.mark.parametrize("field", sorted(OWNER))
def test_moved_to_another_owner_it_stays_closed(vault: Vault, field: str) -> None:
    sealed = vault.seal(SECRET, **OWNER)
    with pytest.raises(ConfigurationError, match="does not decrypt") as refused:
        vault.open(sealed, **{**OWNER, field: "other"})
    assert SECRET not in str(refused.value)


def test_owners_cannot_be_shifted_across_the_separator(vault: Vault) -> None:
    with pytest.raises(ConfigurationError, match=r"no '\|'"):
        vault.seal(SECRET, org="acme|anthropic", provider="c1", credential_id="x")


@pytest.mark.parametrize("part", ["ciphertext", "wrapped_key"])
@pytest.mark.parametrize("place", [0, 15, -1])
def test_an_altered_byte_is_noticed(vault: Vault, part: str, place: int) -> None:
    sealed = vault.seal(SECRET, **OWNER)
    parts = {"ciphertext": sealed.ciphertext, "wrapped_key": sealed.wrapped_key}
    altered = bytearray(parts[part])
    altered[place] ^= 1
    with pytest.raises(ConfigurationError, match="does not decrypt"):
        vault.open(Sealed(**{**parts, part: bytes(altered)}, key_name=sealed.key_name), **OWNER)


def test_a_truncated_record_is_noticed(vault: Vault) -> None:
    sealed = vault.seal(SECRET, **OWNER)
    with pytest.raises(ConfigurationError, match="does not decrypt"):
        vault.open(Sealed(b"", b"", sealed.key_name), **OWNER)


def test_another_master_key_is_named(vault: Vault, tmp_path: Path) -> None:
    sealed = vault.seal(SECRET, **OWNER)
    other = Vault(FileKeyWrapper(tmp_path / "other.key"))
    other.seal("x", **OWNER)
    with pytest.raises(ConfigurationError, match="sealed with master key file:"):
        other.open(sealed, **OWNER)


def test_a_secret_shows_itself_only_on_request() -> None:
    secret = Secret(SECRET)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>40}", "%s" % secret, repr({"a": [secret]})]  # noqa: UP031
    assert all("the-secret" not in text for text in shown)
    assert secret.reveal() == SECRET
    for leak in (json.dumps, vars):
        with pytest.raises(TypeError):
            leak(secret)
    with pytest.raises(TypeError, match="does not travel"):
        pickle.dumps({"task argument": secret})
    with pytest.raises(AttributeError):
        secret._value = "x"
    assert copy.deepcopy([secret])[0] is secret


def test_the_key_file_is_private_and_lasts(vault: Vault, tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.key"
    sealed = vault.seal(SECRET, **OWNER)
    assert (path.stat().st_mode & 0o777, path.stat().st_size) == (0o600, 32)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [found.name for found in path.parent.iterdir()] == ["master.key"]
    assert Vault(FileKeyWrapper(path)).open(sealed, **OWNER).reveal() == SECRET


def test_first_users_at_the_same_time_share_one_key(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def first_use(_: int) -> Sealed:
        mine = Vault(FileKeyWrapper(tmp_path / "master.key"))
        start.wait()
        return mine.seal(SECRET, **OWNER)

    with futures.ThreadPoolExecutor(8) as pool:
        sealed = list(pool.map(first_use, range(8)))
    later = Vault(FileKeyWrapper(tmp_path / "master.key"))
    assert {later.open(one, **OWNER).reveal() for one in sealed} == {SECRET}


def test_a_lost_key_file_is_not_replaced_by_opening(vault: Vault, tmp_path: Path) -> None:
    sealed = vault.seal(SECRET, **OWNER)
    (tmp_path / "keys" / "master.key").unlink()
    with pytest.raises(ConfigurationError, match="cannot be read") as refused:
        vault.open(sealed, **OWNER)
    assert "Restore the file" in refused.value.fix
    assert not (tmp_path / "keys" / "master.key").exists()


@pytest.mark.parametrize(
    ("mode", "size", "message", "fix"),
    [(0o644, 32, "has mode 0644", "chmod 600"), (0o600, 31, "has 31 bytes, not 32", "Restore the file")],
)
def test_a_bad_key_file_is_refused(tmp_path: Path, mode: int, size: int, message: str, fix: str) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(b"k" * size)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=message) as refused:
        Vault(FileKeyWrapper(path)).seal(SECRET, **OWNER)
    assert fix in refused.value.fix


KMS_KEY = "projects/p/locations/l/keyRings/r/cryptoKeys/k"


class Kms(grpc.GenericRpcHandler):
    """Cloud KMS's encrypt and decrypt on its own wire format; `damage` spoils what it answers."""

    def __init__(self) -> None:
        self.key = AESGCM(b"m" * 32)
        self.damage = ""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = details.method.rpartition("/")[2]
        if method == "Encrypt":
            return grpc.unary_unary_rpc_method_handler(
                self.encrypt, EncryptRequest.deserialize, EncryptResponse.serialize
            )
        return grpc.unary_unary_rpc_method_handler(
            self.decrypt, DecryptRequest.deserialize, DecryptResponse.serialize
        )

    def encrypt(self, request: EncryptRequest, context: grpc.ServicerContext) -> EncryptResponse:
        sealed = self.key.encrypt(b"n" * 12, request.plaintext, request.additional_authenticated_data)
        crc = google_crc32c.value(sealed)
        return EncryptResponse(
            name=request.name,
            ciphertext=sealed if self.damage != "ciphertext" else sealed[:-1],
            ciphertext_crc32c=crc,
            verified_plaintext_crc32c=request.plaintext_crc32c == google_crc32c.value(request.plaintext)
            and self.damage != "request",
            verified_additional_authenticated_data_crc32c=request.additional_authenticated_data_crc32c
            == google_crc32c.value(request.additional_authenticated_data),
        )

    def decrypt(self, request: DecryptRequest, context: grpc.ServicerContext) -> DecryptResponse:
        try:
            data = self.key.decrypt(b"n" * 12, request.ciphertext, request.additional_authenticated_data)
        except InvalidTag:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed: the ciphertext is invalid.")
        crc = google_crc32c.value(data)
        return DecryptResponse(plaintext=data, plaintext_crc32c=crc + (self.damage == "plaintext"))


@pytest.fixture
def kms() -> Iterator[tuple[Kms, KeyManagementServiceClient]]:
    handler = Kms()
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    yield handler, KeyManagementServiceClient(transport=KeyManagementServiceGrpcTransport(channel=channel))
    channel.close()
    server.stop(None).wait()


def test_kms_wraps_and_unwraps(kms: tuple[Kms, KeyManagementServiceClient]) -> None:
    vault = Vault(KmsKeyWrapper(kms[1], KMS_KEY))
    sealed = vault.seal(SECRET, **OWNER)
    assert sealed.key_name == f"kms:{KMS_KEY}"
    assert vault.open(sealed, **OWNER).reveal() == SECRET
    with pytest.raises(ConfigurationError, match="Cloud KMS decrypt"):
        vault.open(sealed, **{**OWNER, "org": "other"})


@pytest.mark.parametrize("damage", ["request", "ciphertext", "plaintext"])
def test_kms_damage_is_worth_another_try(kms: tuple[Kms, KeyManagementServiceClient], damage: str) -> None:
    vault = Vault(KmsKeyWrapper(kms[1], KMS_KEY))
    sealed = vault.seal(SECRET, **OWNER)
    kms[0].damage = damage
    with pytest.raises(TransientError, match="damaged on the way"):
        vault.seal(SECRET, **OWNER) if damage != "plaintext" else vault.open(sealed, **OWNER)


def test_the_key_store_setting_chooses(tmp_path: Path, kms: tuple[Kms, KeyManagementServiceClient]) -> None:
    def never() -> KeyManagementServiceClient:
        raise AssertionError("a file needs no KMS")

    local = Settings.load({"MANTA_HOME": str(tmp_path)}, root=tmp_path)
    assert open_vault(local, connect_kms=never).seal(SECRET, **OWNER).key_name.startswith("file:")
    remote = Settings.load({"MANTA_ENV": "prod", "KMS_KEY": KMS_KEY}, root=tmp_path)
    assert open_vault(remote, connect_kms=lambda: kms[1]).seal(SECRET, **OWNER).key_name == f"kms:{KMS_KEY}"
    with pytest.raises(ConfigurationError, match="no KMS key"):
        open_vault(Settings.load({"MANTA_ENV": "prod"}, root=tmp_path), connect_kms=never)

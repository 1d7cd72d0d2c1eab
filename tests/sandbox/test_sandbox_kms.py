"""The sandbox's Cloud KMS through the official client: versions, checksums, refusals."""

from __future__ import annotations

from collections.abc import Iterator

import google_crc32c
import grpc
import pytest
from google.api_core import exceptions as google
from google.cloud.kms_v1 import DecryptRequest, EncryptRequest, KeyManagementServiceClient
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport

from sandbox import kms

KEY = "projects/p/locations/l/keyRings/r/cryptoKeys/k"


@pytest.fixture
def cloud() -> Iterator[kms.Kms]:
    with kms.running(KEY) as served:
        yield served


@pytest.fixture
def client(cloud: kms.Kms) -> Iterator[KeyManagementServiceClient]:
    with grpc.insecure_channel(cloud.host) as channel:
        yield KeyManagementServiceClient(transport=KeyManagementServiceGrpcTransport(channel=channel))


def encrypted(client: KeyManagementServiceClient, text: bytes = b"text", aad: bytes = b"aad") -> bytes:
    request = EncryptRequest(name=KEY, plaintext=text, additional_authenticated_data=aad)
    return bytes(client.encrypt(request=request).ciphertext)


def test_each_version_opens_what_it_sealed(cloud: kms.Kms, client: KeyManagementServiceClient) -> None:
    first = encrypted(client)
    assert cloud.state.add_version(KEY) == 2
    assert client.get_crypto_key(name=KEY).primary.name == f"{KEY}/cryptoKeyVersions/2"
    second = encrypted(client)
    for sealed, primary in ((first, False), (second, True)):
        request = DecryptRequest(name=KEY, ciphertext=sealed, additional_authenticated_data=b"aad")
        answer = client.decrypt(request=request)
        assert (answer.plaintext, answer.used_primary) == (b"text", primary)
        assert answer.plaintext_crc32c == google_crc32c.value(b"text")
    cloud.state.keys[KEY].disabled.add(1)
    with pytest.raises(google.FailedPrecondition, match="DISABLED"):
        client.decrypt(
            request=DecryptRequest(name=KEY, ciphertext=first, additional_authenticated_data=b"aad")
        )


def test_checksums_are_verified_and_answered(client: KeyManagementServiceClient) -> None:
    request = EncryptRequest(name=KEY, plaintext=b"text", plaintext_crc32c=google_crc32c.value(b"text"))
    answer = client.encrypt(request=request)
    assert answer.ciphertext_crc32c == google_crc32c.value(answer.ciphertext)
    assert answer.name == f"{KEY}/cryptoKeyVersions/1"
    # Only what was sent is confirmed.
    assert answer.verified_plaintext_crc32c
    assert not answer.verified_additional_authenticated_data_crc32c
    with pytest.raises(google.InvalidArgument, match="plaintext_crc32c did not match"):
        client.encrypt(request=EncryptRequest(name=KEY, plaintext=b"text", plaintext_crc32c=1))
    with pytest.raises(google.InvalidArgument, match="ciphertext_crc32c did not match"):
        client.decrypt(request=DecryptRequest(name=KEY, ciphertext=answer.ciphertext, ciphertext_crc32c=1))


@pytest.mark.parametrize("place", [0, 5, -1])
def test_what_was_altered_stays_closed(client: KeyManagementServiceClient, place: int) -> None:
    altered = bytearray(encrypted(client))
    altered[place] ^= 1
    for sealed in (bytes(altered), b"", b"abc"):
        request = DecryptRequest(name=KEY, ciphertext=sealed, additional_authenticated_data=b"aad")
        with pytest.raises(google.InvalidArgument, match="ciphertext is invalid"):
            client.decrypt(request=request)


def test_other_keys_and_other_data_stay_closed(cloud: kms.Kms, client: KeyManagementServiceClient) -> None:
    sealed, other = encrypted(client), f"{KEY}2"
    with pytest.raises(google.NotFound):
        client.decrypt(request=DecryptRequest(name=other, ciphertext=sealed))
    cloud.state.add_key(other)
    for name, aad in ((other, b"aad"), (KEY, b"else"), (KEY, b"")):
        request = DecryptRequest(name=name, ciphertext=sealed, additional_authenticated_data=aad)
        with pytest.raises(google.InvalidArgument):
            client.decrypt(request=request)


def test_faults_hit_as_many_calls_as_they_are_told(
    cloud: kms.Kms, client: KeyManagementServiceClient
) -> None:
    cloud.state.put("permission_denied", count=2)
    for _ in range(2):
        with pytest.raises(google.PermissionDenied, match="useToEncrypt"):
            encrypted(client)
    encrypted(client)
    with pytest.raises(google.InvalidArgument, match="larger"):
        encrypted(client, b"x" * (64 * 1024 + 1))
    with pytest.raises(ValueError, match="unknown fault"):
        cloud.state.put("nonsense")

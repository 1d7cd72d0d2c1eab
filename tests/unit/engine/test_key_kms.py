"""The master key in Cloud KMS, through the official client: damage, refusals, outages, versions, moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.cloud.kms_v1 import KeyManagementServiceClient

from engine.clients import connect_kms
from engine.errors import ConfigurationError, TransientError, UsageError
from engine.key_kms import KmsKeyWrapper
from engine.settings import Settings
from engine.vault import Sealed, Vault, open_vault
from sandbox import kms

SECRET = "sk-ant-admin01-the-secret"
OWNER = {"org": "acme", "provider": "anthropic", "credential_id": "c1"}
KEY, OTHER_KEY = (f"projects/p/locations/l/keyRings/r/cryptoKeys/{name}" for name in ("k", "other"))


@pytest.fixture(scope="module")
def _served() -> Iterator[tuple[kms.Kms, KeyManagementServiceClient]]:
    with kms.running() as served:
        client = connect_kms(host=served.host, credentials="anonymous", transport="plaintext")
        yield served, client
        client.transport.close()


@pytest.fixture
def cloud(_served: tuple[kms.Kms, KeyManagementServiceClient]) -> kms.State:
    """Two keys of one version each, and no faults."""
    state = _served[0].state
    state.clear()
    state.calls.clear()
    state.keys.clear()
    for key in (KEY, OTHER_KEY):
        state.add_key(key)
    return state


@pytest.fixture
def client(_served: tuple[kms.Kms, KeyManagementServiceClient]) -> KeyManagementServiceClient:
    return _served[1]


@pytest.fixture
def cloud_vault(cloud: kms.State, client: KeyManagementServiceClient) -> Vault:
    return Vault(KmsKeyWrapper(client, KEY, timeout_s=2))


def test_kms_wraps_and_unwraps(cloud_vault: Vault, cloud: kms.State) -> None:
    sealed = cloud_vault.seal(SECRET, **OWNER)
    assert sealed.key_name == f"kms:{KEY}/cryptoKeyVersions/1" == cloud_vault.master_key()
    assert cloud_vault.open(sealed, **OWNER).reveal() == SECRET
    aad = b"acme|anthropic|c1"
    assert [call for call in cloud.calls if call[2] == aad] == [("Encrypt", KEY, aad), ("Decrypt", KEY, aad)]


@pytest.mark.parametrize("field", sorted(OWNER))
def test_with_kms_too_it_stays_closed_for_others(cloud_vault: Vault, field: str) -> None:
    sealed = cloud_vault.seal(SECRET, **OWNER)
    with pytest.raises(ConfigurationError, match="does not decrypt: it was altered or belongs"):
        cloud_vault.open(sealed, **{**OWNER, field: "other"})


@pytest.mark.parametrize("fault", ["unverified", "cut_ciphertext", "wrong_checksum", "wrong_key"])
def test_kms_damage_is_worth_another_try(cloud_vault: Vault, cloud: kms.State, fault: str) -> None:
    sealed = cloud_vault.seal(SECRET, **OWNER)
    cloud.put(fault)
    with pytest.raises(TransientError, match=r"damaged on the way|another key"):
        cloud_vault.seal(SECRET, **OWNER) if fault != "wrong_checksum" else cloud_vault.open(sealed, **OWNER)
    assert cloud_vault.open(sealed, **OWNER).reveal() == SECRET


def test_a_request_damaged_on_the_way_is_refused_by_kms(
    client: KeyManagementServiceClient, cloud: kms.State
) -> None:
    class Damaging:
        """The official client behind a line that flips a bit."""

        def encrypt(self, request: object, **rest: object) -> object:
            request.plaintext = b"X" + request.plaintext[1:]  # type: ignore[attr-defined]
            return client.encrypt(request=request, **rest)

    with pytest.raises(TransientError, match="damaged on the way"):
        Vault(KmsKeyWrapper(Damaging(), KEY)).seal(SECRET, **OWNER)  # type: ignore[arg-type]


def test_an_outage_of_kms_passes(cloud_vault: Vault, cloud: kms.State) -> None:
    sealed = cloud_vault.seal(SECRET, **OWNER)
    cloud.put("unavailable")
    assert cloud_vault.open(sealed, **OWNER).reveal() == SECRET, "one refusal is tried again"


def test_a_long_outage_is_transient_and_bounded(client: KeyManagementServiceClient, cloud: kms.State) -> None:
    vault = Vault(KmsKeyWrapper(client, KEY, timeout_s=0.3))
    sealed = vault.seal(SECRET, **OWNER)
    cloud.put("unavailable", count=None)
    for attempt in (lambda: vault.seal(SECRET, **OWNER), lambda: vault.open(sealed, **OWNER)):
        with pytest.raises(TransientError, match=r"Cloud KMS (en|de)crypt"):
            attempt()


def test_kms_that_refuses_us_is_for_a_person(cloud_vault: Vault, cloud: kms.State) -> None:
    sealed = cloud_vault.seal(SECRET, **OWNER)
    cloud.put("permission_denied", count=2)
    for attempt in (lambda: cloud_vault.seal(SECRET, **OWNER), lambda: cloud_vault.open(sealed, **OWNER)):
        with pytest.raises(ConfigurationError, match="Permission 'cloudkms") as refused:
            attempt()
        assert "cryptoKeyEncrypterDecrypter" in refused.value.fix
        assert type(refused.value) is ConfigurationError
    cloud.keys[KEY].disabled.add(1)
    with pytest.raises(ConfigurationError, match="DISABLED") as refused:
        cloud_vault.open(sealed, **OWNER)
    assert "Enable" in refused.value.fix
    del cloud.keys[KEY]
    with pytest.raises(ConfigurationError, match="not found") as refused:
        cloud_vault.open(sealed, **OWNER)
    # A missing master key is no missing page: the API must not answer 404.
    assert type(refused.value) is ConfigurationError


def test_former_versions_open_and_rewrap_leaves_them(cloud_vault: Vault, cloud: kms.State) -> None:
    sealed = cloud_vault.seal(SECRET, **OWNER)
    assert cloud.add_version(KEY) == 2
    anew = cloud_vault.rewrap(sealed, **OWNER)
    assert (sealed.key_name[-1], anew.key_name[-1]) == ("1", "2")
    assert anew.ciphertext == sealed.ciphertext
    cloud.keys[KEY].disabled.add(1)
    assert cloud_vault.open(anew, **OWNER).reveal() == SECRET
    with pytest.raises(UsageError, match="makes the versions"):
        cloud_vault.renew_master_key()


def test_only_keys_that_the_settings_name_are_asked(
    client: KeyManagementServiceClient, cloud: kms.State
) -> None:
    sealed = Vault(KmsKeyWrapper(client, OTHER_KEY)).seal(SECRET, **OWNER)
    cloud.calls.clear()
    with pytest.raises(ConfigurationError, match="not at hand"):
        Vault(KmsKeyWrapper(client, KEY)).open(sealed, **OWNER)
    assert cloud.calls == []
    both = Vault(KmsKeyWrapper(client, KEY, former=[OTHER_KEY]))
    assert both.open(sealed, **OWNER).reveal() == SECRET
    assert both.rewrap(sealed, **OWNER).key_name.startswith(f"kms:{KEY}/")
    # A row may claim what it likes: the key that wrapped it is another one.
    with pytest.raises(ConfigurationError, match="does not decrypt"):
        both.open(Sealed(sealed.ciphertext, sealed.wrapped_key, f"kms:{KEY}"), **OWNER)


def test_the_key_store_setting_chooses(
    tmp_path: Path, client: KeyManagementServiceClient, cloud: kms.State
) -> None:
    def never() -> KeyManagementServiceClient:
        raise AssertionError("a file needs no KMS")

    local = Settings.load({"MANTA_HOME": str(tmp_path)}, root=tmp_path)
    assert open_vault(local, connect_kms=never).seal(SECRET, **OWNER).key_name.startswith("file:")
    remote = Settings.load({"MANTA_ENV": "prod", "KMS_KEY": KEY}, root=tmp_path)
    assert (
        open_vault(remote, connect_kms=lambda: client)
        .seal(SECRET, **OWNER)
        .key_name.startswith(f"kms:{KEY}/")
    )
    with pytest.raises(ConfigurationError, match="no KMS key"):
        open_vault(Settings.load({"MANTA_ENV": "prod"}, root=tmp_path), connect_kms=never)


def test_a_master_key_moves_between_stores(
    tmp_path: Path, client: KeyManagementServiceClient, cloud: kms.State
) -> None:
    def at(**environ: str) -> Vault:
        settings = Settings.load({"MANTA_HOME": str(tmp_path), **environ}, root=tmp_path)
        return open_vault(settings, connect_kms=lambda: client)

    file, remote = at(), at(KEY_STORE="kms", KMS_KEY=OTHER_KEY)
    in_file, in_kms = file.seal(SECRET, **OWNER), remote.seal(SECRET, **OWNER)
    with_both = at(KEY_STORE="kms", KMS_KEY=KEY, KMS_KEY_PREVIOUS=OTHER_KEY)
    for sealed in (in_file, in_kms):
        assert with_both.open(sealed, **OWNER).reveal() == SECRET
        assert with_both.rewrap(sealed, **OWNER).key_name == with_both.master_key()
    back = at(KEY_STORE="file", KMS_KEY=OTHER_KEY)
    assert back.rewrap(in_kms, **OWNER).key_name == in_file.key_name
    prod = at(MANTA_ENV="prod", KMS_KEY=KEY, KEY_FILE=str(tmp_path / "keys" / "master.key"))
    with pytest.raises(ConfigurationError, match="not at hand"):
        prod.open(in_file, **OWNER)

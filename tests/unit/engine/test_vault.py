"""Secrets stay closed: sealed for one owner, never printed, never pickled, key files checked."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from concurrent import futures
from pathlib import Path

import pytest

from engine.errors import ConfigurationError
from engine.key_file import FileKeyWrapper
from engine.vault import Sealed, Secret, Vault

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
    with pytest.raises(ConfigurationError, match=r"sealed with master key file:\w+, which is not at hand"):
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


def test_a_new_master_key_leaves_the_former_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.key"
    vault = Vault(FileKeyWrapper(path))
    assert vault.master_key() is None
    with pytest.raises(ConfigurationError, match="cannot be read"):
        vault.renew_master_key()
    first = vault.seal(SECRET, **OWNER)
    name = vault.renew_master_key()
    second = vault.seal(SECRET, **OWNER)
    assert name == vault.master_key() == second.key_name != first.key_name
    former = path.with_name(f"master.{first.key_name.removeprefix('file:')}.key")
    assert {found.name: found.stat().st_mode & 0o777 for found in path.parent.iterdir()} == {
        "master.key": 0o600,
        former.name: 0o600,
    }
    for sealed in (first, second):
        assert vault.open(sealed, **OWNER).reveal() == SECRET
    moved = vault.rewrap(first, **OWNER)
    assert (moved.key_name, moved.ciphertext) == (name, first.ciphertext)
    former.unlink()
    assert vault.open(moved, **OWNER).reveal() == SECRET
    with pytest.raises(ConfigurationError, match="not at hand"):
        vault.open(first, **OWNER)


def test_a_former_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    vault = Vault(FileKeyWrapper(tmp_path / "master.key"))
    sealed = vault.seal(SECRET, **OWNER)
    vault.renew_master_key()
    (tmp_path / f"master.{sealed.key_name.removeprefix('file:')}.key").chmod(0o640)
    with pytest.raises(ConfigurationError, match="has mode 0640"):
        vault.open(sealed, **OWNER)


@pytest.mark.parametrize(
    "name", ["file:../../etc/passwd", "file:", "file:0123456789abcdeg", "", "kms:x", "x"]
)
def test_a_row_cannot_name_a_file(tmp_path: Path, name: str) -> None:
    vault = Vault(FileKeyWrapper(tmp_path / "master.key"))
    sealed = vault.seal(SECRET, **OWNER)
    with pytest.raises(ConfigurationError, match="not at hand"):
        vault.open(Sealed(sealed.ciphertext, sealed.wrapped_key, name), **OWNER)


def test_renewals_and_writers_at_the_same_time_lose_no_key(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    Vault(FileKeyWrapper(path)).seal(SECRET, **OWNER)
    start = threading.Barrier(8)

    def work(number: int) -> list[Sealed]:
        mine = Vault(FileKeyWrapper(path))
        start.wait()
        sealed = []
        for _ in range(20):
            if number % 2:
                mine.renew_master_key()
            sealed.append(mine.seal(SECRET, **OWNER))
        return sealed

    with futures.ThreadPoolExecutor(8) as pool:
        sealed = [one for many in pool.map(work, range(8)) for one in many]
    later = Vault(FileKeyWrapper(path))
    assert {later.open(one, **OWNER).reveal() for one in sealed} == {SECRET}
    assert len(list(tmp_path.iterdir())) == 4 * 20 + 1


def test_a_renewal_killed_between_its_steps_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    vault = Vault(FileKeyWrapper(path))
    sealed = vault.seal(SECRET, **OWNER)
    # What a kill leaves: the second name, and no new key yet.
    path.with_name(f"master.{sealed.key_name.removeprefix('file:')}.key").hardlink_to(path)
    assert vault.open(sealed, **OWNER).reveal() == SECRET
    assert vault.renew_master_key() != sealed.key_name
    assert vault.open(sealed, **OWNER).reveal() == SECRET


def test_the_name_belongs_to_the_key_that_wrapped(tmp_path: Path) -> None:
    """A renewal may come at any moment of a wrap; here at the one where the nonce is drawn."""
    path = tmp_path / "master.key"
    keys = FileKeyWrapper(path)
    keys.wrap(b"x", b"")

    def renewing(size: int) -> bytes:
        FileKeyWrapper(path).renew()
        return b"n" * size

    wrapped = FileKeyWrapper(path, random=renewing).wrap(b"data key", b"aad")
    assert keys.unwrap(wrapped, b"aad") == b"data key"

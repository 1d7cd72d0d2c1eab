"""What properties do not say: how often the vault is asked, what its failures become, how root is hashed."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from engine.api_keys import KeyName, read_key_text
from engine.authentication import Authenticator, Caller, hash_root_key, require
from engine.errors import (
    AuthenticationError,
    ConfigurationError,
    ForbiddenError,
    InternalError,
    TransientError,
)
from engine.vault import FileKeyWrapper, Vault
from tests.unit.engine.key_records import NOW, directory_of, make_key

ROOT = "0123456789abcdef" * 2


class CountingWrapper(FileKeyWrapper):
    """Counts unwraps, and fails them on demand."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.calls = Counter[str]()
        self.error: Exception | None = None

    def unwrap(self, data: bytes, aad: bytes) -> bytes:
        self.calls["unwrap"] += 1
        if self.error:
            raise self.error
        return super().unwrap(data, aad)


@pytest.fixture
def wrapper(tmp_path: Path) -> CountingWrapper:
    return CountingWrapper(tmp_path / "master.key")


@pytest.fixture
def vault(wrapper: CountingWrapper) -> Vault:
    return Vault(wrapper)


def test_the_vault_is_asked_once_for_a_key(vault: Vault, wrapper: CountingWrapper) -> None:
    key, text = make_key(vault, "acme")
    authenticator = Authenticator(vault, (), now=lambda: NOW)
    for _ in range(3):
        assert authenticator.org(text, directory_of(key)).actor == f"key:{key.key_id}"
    forged = f"acme_api_{key.key_id}{'x' * 43}"
    with pytest.raises(AuthenticationError):
        authenticator.org(forged, directory_of(key))
    assert wrapper.calls["unwrap"] == 1
    # Revoked: what is in memory helps nobody, and the vault is left alone (its data key may be destroyed).
    with pytest.raises(AuthenticationError):
        authenticator.org(text, directory_of(replace(key, is_active=False)))
    # Another hash under the same id is another key.
    with pytest.raises(AuthenticationError):
        authenticator.org(text, directory_of(replace(key, mac="0" * 64)))
    assert wrapper.calls["unwrap"] == 2


def test_unknown_keys_do_not_reach_the_vault(vault: Vault, wrapper: CountingWrapper) -> None:
    _, text = make_key(vault, "acme")
    known, _ = make_key(vault, "acme")
    authenticator = Authenticator(vault, ())
    for sent in ("", "acme", text, text.upper(), f"globex_api_{known.key_id}{'x' * 43}"):
        assert not authenticator.knows(sent, directory_of(known))
        with pytest.raises(AuthenticationError):
            authenticator.org(sent, directory_of(known))
    assert authenticator.knows(f"acme_api_{known.key_id}{'x' * 43}", directory_of(known))
    assert wrapper.calls["unwrap"] == 0


def test_memory_is_bounded_and_keeps_what_is_used(vault: Vault, wrapper: CountingWrapper) -> None:
    made = [make_key(vault, "acme") for _ in range(3)]
    directory = directory_of(*(key for key, _ in made))
    authenticator = Authenticator(vault, (), now=lambda: NOW, max_hash_keys=2)
    first, second, third = (text for _, text in made)
    for text in (first, second, first, third, first):
        authenticator.org(text, directory)
    assert wrapper.calls["unwrap"] == 3
    authenticator.org(second, directory)
    assert wrapper.calls["unwrap"] == 4


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (TransientError("Cloud KMS is away."), TransientError),
        (ConfigurationError("The master key /secret/place cannot be read."), InternalError),
    ],
)
def test_a_vault_that_fails_is_no_wrong_key(
    vault: Vault, wrapper: CountingWrapper, failure: Exception, raised: type[Exception]
) -> None:
    key, text = make_key(vault, "acme")
    authenticator = Authenticator(vault, (), now=lambda: NOW)
    wrapper.error = failure
    with pytest.raises(raised) as seen:
        authenticator.org(text, directory_of(key))
    assert "/secret/place" not in str(seen.value)
    # The failure is not remembered.
    wrapper.error = None
    assert authenticator.org(text, directory_of(key)).org == "acme"


def test_refusals_do_not_tell_which_part_was_wrong(vault: Vault) -> None:
    key, text = make_key(vault, "acme")
    other, _ = make_key(vault, "acme")
    authenticator = Authenticator(vault, (), now=lambda: NOW)
    said = set()
    for sent, held in (
        ("nonsense", key),
        (text, other),
        (text, replace(key, is_active=False)),
        (f"acme_api_{key.key_id}{'x' * 43}", key),
    ):
        with pytest.raises(AuthenticationError) as refused:
            authenticator.org(sent, directory_of(held))
        said.add(str(refused.value))
    assert len(said) == 1
    assert text not in said.pop()


def test_neither_slug_nor_secret_can_shift_the_parts() -> None:
    inner = "_api_ba9876543210"
    for slug in ("acme", f"acme{inner}"):
        for secret in ("x" * 43, inner + "x" * 26, inner + inner + "x" * 9):
            assert read_key_text(f"{slug}_api_0123456789ab{secret}") == KeyName(slug, "0123456789ab")
    for secret in ("x" * 42, "x" * 44, "x" * 42 + "\n", "x" * 42 + "é"):
        assert read_key_text(f"acme_api_0123456789ab{secret}") is None


def test_root_hashes_are_salted_and_checked() -> None:
    assert hash_root_key(ROOT) != hash_root_key(ROOT)
    salt = bytes(16)
    assert hash_root_key(ROOT, salt=salt) == hash_root_key(ROOT, salt=salt)
    assert hash_root_key(ROOT, salt=salt).startswith(f"sha256${'0' * 32}$")
    assert ROOT not in hash_root_key(ROOT)


@pytest.mark.parametrize("broken", [ROOT, "sha256$$", "md5$00$11", ""])
def test_what_is_no_root_hash_is_refused_at_the_start(vault: Vault, broken: str) -> None:
    with pytest.raises(ConfigurationError, match="hash is malformed"):
        Authenticator(vault, [broken])


def test_without_root_keys_nobody_is_root(vault: Vault) -> None:
    with pytest.raises(AuthenticationError):
        Authenticator(vault, ()).root("")


def test_a_key_of_an_organisation_that_is_not_on_record_passes_nowhere(vault: Vault) -> None:
    directory = directory_of()
    with pytest.raises(ForbiddenError):
        require(Caller("org", "acme", "k", frozenset({"admin"})), "acme", "read", directory)


@pytest.mark.parametrize(
    ("status", "scope", "said"),
    [("SUSPENDED", "run", "is suspended"), ("REMOVED", "read", "removed"), ("REMOVED", "admin", "removed")],
)
def test_why_an_organisation_is_refused(status: str, scope: str, said: str) -> None:
    caller = Caller("org", "acme", "k", frozenset({"admin"}))
    with pytest.raises(ForbiddenError, match=said):
        require(caller, "acme", scope, directory_of(acme=status))


def test_a_directory_travels_and_is_known_by_its_content(vault: Vault) -> None:
    expires = NOW + timedelta(days=1)
    one, text = make_key(vault, "acme", scopes=["run", "read", "admin"], expires_at=expires)
    two, _ = make_key(vault, "globex")
    directory = directory_of(one, two)
    travelled = pickle.loads(pickle.dumps(directory))
    assert travelled == directory
    assert Authenticator(vault, (), now=lambda: NOW).org(text, travelled).org == "acme"
    assert text[-43:].encode() not in pickle.dumps(directory)
    # Neither the order of reading nor of scopes counts; everything else does.
    assert directory_of(two, replace(one, scopes=frozenset(["admin", "read", "run"]))).version == (
        directory.version
    )
    changes: list[Callable[[], str]] = [
        lambda: directory_of(one).version,
        lambda: directory_of(one, two, acme="SUSPENDED").version,
        lambda: directory_of(replace(one, is_active=False), two).version,
        lambda: directory_of(replace(one, expires_at=None), two).version,
        lambda: directory_of(replace(one, scopes=frozenset(["run"])), two).version,
        lambda: directory_of(replace(one, sealed=two.sealed), two).version,
    ]
    assert len({directory.version, *(change() for change in changes)}) == len(changes) + 1

"""Keys open one door only: whatever is changed in a key or moved in the records, nobody else comes in."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.api_keys import SCOPES, read_key_text
from engine.authentication import Authenticator, Caller, hash_root_key, require
from engine.directory import Directory
from engine.errors import AuthenticationError, ForbiddenError, InternalError
from engine.vault import FileKeyWrapper, Vault
from tests.unit.engine.key_records import NOW, directory_of, make_key

# Slugs that hold what separates the parts of a key, too.
SLUGS = st.one_of(
    st.from_regex(re.compile(r"[a-z][a-z0-9_]{2,20}", re.ASCII), fullmatch=True),
    st.sampled_from(["acme", "acme_api", "acme_api_0123456789ab", "acme_api_0123456789ab_api_x"]),
)
TIMES = st.timedeltas(timedelta(days=-9000), timedelta(days=9000)).map(lambda away: NOW + away)
SCOPE_SETS = st.sets(st.sampled_from(SCOPES), min_size=1)


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    return Vault(FileKeyWrapper(tmp_path_factory.mktemp("keys") / "master.key"))


def asked(vault: Vault, text: str, directory: Directory, *, at: datetime = NOW) -> Caller:
    return Authenticator(vault, (), now=lambda: at).org(text, directory)


@given(mine=SLUGS, other=SLUGS, scopes=SCOPE_SETS)
def test_a_key_is_its_organisations_and_nobody_elses(
    vault: Vault, mine: str, other: str, scopes: set[str]
) -> None:
    assume(mine != other)
    (key, text), (others, _) = make_key(vault, mine, scopes=scopes), make_key(vault, other)
    directory = directory_of(key, others)
    caller = asked(vault, text, directory)
    assert (caller.org, caller.key_id, caller.scopes) == (mine, key.key_id, scopes)
    for scope in SCOPES:
        with pytest.raises(ForbiddenError, match="not one of"):
            require(caller, other, scope, directory)
    tail = text.removeprefix(mine)
    with pytest.raises(AuthenticationError):
        asked(vault, other + tail, directory)


@given(slug=SLUGS, place=st.integers(0), char=st.characters(), how=st.sampled_from(["put", "insert", "cut"]))
def test_one_changed_character_is_refused(vault: Vault, slug: str, place: int, char: str, how: str) -> None:
    key, text = make_key(vault, slug)
    at = place % len(text)
    rest = {"put": text[at + 1 :], "insert": text[at:], "cut": text[at + 1 :]}[how]
    changed = text[:at] + ("" if how == "cut" else char) + rest
    assume(changed != text)
    with pytest.raises(AuthenticationError, match="is not valid"):
        asked(vault, changed, directory_of(key))


@given(text=st.text())
def test_no_other_text_is_a_key_or_breaks_anything(vault: Vault, text: str) -> None:
    authenticator = Authenticator(vault, [hash_root_key("r" * 32)], now=lambda: NOW)
    with pytest.raises(AuthenticationError):
        authenticator.org(text, directory_of())
    assert not authenticator.knows(text, directory_of())
    with pytest.raises(AuthenticationError):
        authenticator.root(text)


@given(slug=SLUGS)
def test_a_keys_text_names_its_parts(vault: Vault, slug: str) -> None:
    key, text = make_key(vault, slug)
    named = read_key_text(text)
    assert named is not None
    assert (named.org, named.key_id) == (slug, key.key_id)


@given(at=TIMES, expires_at=st.none() | TIMES)
def test_a_revoked_key_is_refused_at_any_time(
    vault: Vault, at: datetime, expires_at: datetime | None
) -> None:
    key, text = make_key(vault, "acme")
    key = replace(key, is_active=False, expires_at=expires_at)
    with pytest.raises(AuthenticationError, match="is not valid"):
        asked(vault, text, directory_of(key), at=at)


@given(at=TIMES, lasts=st.timedeltas(timedelta(microseconds=1), timedelta(days=4000)))
def test_a_key_is_good_until_it_expires_and_never_again(vault: Vault, at: datetime, lasts: timedelta) -> None:
    key, text = make_key(vault, "acme", expires_at=NOW + lasts)
    directory = directory_of(key)
    if at < NOW + lasts:
        assert asked(vault, text, directory, at=at).key_id == key.key_id
    else:
        with pytest.raises(AuthenticationError, match="expired"):
            asked(vault, text, directory, at=at)
    # Only who has the key learns that it has expired.
    forged = text[:-1] + ("A" if text[-1] != "A" else "B")
    with pytest.raises(AuthenticationError, match="is not valid"):
        asked(vault, forged, directory, at=at)


@given(scopes=SCOPE_SETS, asked_for=st.sampled_from(SCOPES), status=st.text(max_size=10) | st.just("ACTIVE"))
def test_scopes_and_status(vault: Vault, scopes: set[str], asked_for: str, status: str) -> None:
    key, text = make_key(vault, "acme", scopes=scopes)
    directory = directory_of(key, acme=status)
    caller = asked(vault, text, directory)
    granted = asked_for in scopes or "admin" in scopes
    running = status == "ACTIVE" or (status == "SUSPENDED" and asked_for != "run")
    if granted and running:
        require(caller, "acme", asked_for, directory)
    else:
        with pytest.raises(ForbiddenError):
            require(caller, "acme", asked_for, directory)


@given(mine=SLUGS, other=SLUGS)
def test_records_moved_in_the_warehouse_open_nothing(vault: Vault, mine: str, other: str) -> None:
    assume(mine != other)
    (key, text), (target, others_text) = make_key(vault, mine), make_key(vault, other)
    tail = text.removeprefix(mine)
    moves = {
        # The whole row under another organisation, with the key's text rewritten to fit.
        other + tail: directory_of(replace(key, org=other)),
        # Hash and ciphertext under the other organisation's key id.
        f"{other}_api_{target.key_id}{text[-43:]}": directory_of(
            replace(target, mac=key.mac, sealed=key.sealed)
        ),
        # Only the ciphertext, so that one's own secret would be hashed with a known key.
        others_text: directory_of(replace(target, sealed=key.sealed)),
        # Under another key id of the same organisation.
        f"{mine}_api_{target.key_id}{text[-43:]}": directory_of(replace(key, key_id=target.key_id)),
    }
    for wanted, directory in moves.items():
        with pytest.raises((AuthenticationError, InternalError)):
            asked(vault, wanted, directory)


@given(keys=st.lists(st.text(min_size=1), min_size=2, max_size=2, unique=True), wanted=st.text())
def test_either_of_two_root_keys_and_no_other(vault: Vault, keys: list[str], wanted: str) -> None:
    authenticator = Authenticator(vault, [hash_root_key(key) for key in keys], now=lambda: NOW)
    for key in keys:
        caller = authenticator.root(key)
        assert caller.actor == "root"
        for scope in SCOPES:
            require(caller, "anyone", scope, directory_of(anyone="REMOVED"))
    assume(wanted not in keys)
    with pytest.raises(AuthenticationError):
        authenticator.root(wanted)

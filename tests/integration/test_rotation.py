"""Rotation on the embedded BigQuery: everything in use moves, opens, and survives a kill in the middle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.audit import Audit
from engine.clients import Clients
from engine.key_file import FileKeyWrapper
from engine.master_keys import KeyWrapper, Wrapped
from engine.rotation import API_KEYS, CREDENTIALS, survey
from engine.vault import Vault
from tests.integration.bigquery_server import BigQueryServer
from tests.integration.stored import Place, a_place


@pytest.fixture
def place(clients: Clients, bigquery_server: BigQueryServer, tmp_path: Path) -> Place:
    return a_place(clients, bigquery_server, tmp_path)


@pytest.fixture
def key_file(place: Place) -> Path:
    return place.settings.key_file


class Meddling:
    """A key file, and somebody who does something else when the `at`th data key is being wrapped."""

    def __init__(self, inner: KeyWrapper, meddle: Callable[[], object], *, at: int = 1) -> None:
        self._inner, self._meddle, self._left = inner, meddle, at

    def wrap(self, data: bytes, aad: bytes) -> Wrapped:
        self._left -= 1
        if self._left == 0:
            self._meddle()
        return self._inner.wrap(data, aad)

    def current(self) -> str | None:
        return self._inner.current()

    def knows(self, key_name: str) -> bool:
        return self._inner.knows(key_name)

    def unwrap(self, wrapped: Wrapped, aad: bytes) -> bytes:
        return self._inner.unwrap(wrapped, aad)

    def renew(self) -> str:
        return self._inner.renew()


class Killed(BaseException):
    """What a kill is to the code that it hits."""


def kill() -> None:
    raise Killed


def test_a_new_master_key_takes_everything_in_use(place: Place, key_file: Path) -> None:
    place.store("acme", credentials=2)
    place.store("globex", keys=2)
    off = place.tenants.add_credential("acme", "openai", "sk-admin-off")
    place.tenants.deactivate("acme", off)
    former = place.vault.master_key()
    assert former is not None

    done = place.rotate(
        new_master=True, audit_of=lambda *about: Audit(about[0], "credential.rotate", "me", *about[1:])
    )

    assert done.master_key == place.vault.master_key() != former
    assert (done.sealed, done.refused, done.left) == ({CREDENTIALS.table: 3, API_KEYS.table: 3}, (), 0)
    place.check()
    (now,) = survey(place.central, place.vault)
    assert (now.key_name, now.current, now.rows) == (done.master_key, True, done.sealed)
    changed = [row for row in place.rows("acme") if row["version"] == 2 and row["is_active"]]
    assert len(changed) == 2
    for row in changed:
        assert json.loads(str(row["audit"])) == {
            "org": "acme",
            "action": "credential.rotate",
            "actor": "me",
            "resource_type": "credential",
            "resource_id": row["credential_id"],
            "status": "OK",
        }
    assert [
        (c.credential_id, c.is_active, c.version) for c in place.tenants.credentials("acme", "openai")
    ] == [(off, False, 2)]
    # Nothing in use needs the former key any more.
    key_file.with_name(f"master.{former.removeprefix('file:')}.key").unlink()
    place.check()
    assert place.rotate().sealed == {}


@pytest.mark.slow
def test_new_data_keys(place: Place) -> None:
    place.store("acme")
    (before,) = place.rows("acme")
    done = place.rotate("data")
    (same, after) = place.rows("acme")
    assert same == before
    assert done.sealed == {CREDENTIALS.table: 1, API_KEYS.table: 1}
    assert after["encrypted_credential"] != before["encrypted_credential"]
    assert after["wrapped_key"] != before["wrapped_key"]
    assert (after["version"], after["key_name"], after["created_at"]) == (
        2,
        before["key_name"],
        before["created_at"],
    )
    place.check()


def test_a_dry_run_writes_nothing(place: Place, key_file: Path) -> None:
    place.store("acme")
    before = key_file.read_bytes(), place.rows("acme")
    for what, more in (("data", {}), ("master", {"new_master": True})):
        assert place.rotate(what, dry_run=True, **more).sealed == {CREDENTIALS.table: 1, API_KEYS.table: 1}
    assert place.rotate(dry_run=True).sealed == {}
    assert (key_file.read_bytes(), place.rows("acme")) == before
    assert len(list(key_file.parent.iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "at", "kept"),
    [
        pytest.param("master", 2, 0, marks=pytest.mark.slow),
        ("master", 4, 2),
        pytest.param("master", 6, 5, marks=pytest.mark.slow),
        pytest.param("data", 4, 0, marks=pytest.mark.slow),
    ],
)
def test_killed_anywhere_it_is_run_again(place: Place, key_file: Path, what: str, at: int, kept: int) -> None:
    place.store("acme", credentials=5, keys=2)
    place.vault.renew_master_key()

    with pytest.raises(Killed):
        place.rotate(what, Vault(Meddling(FileKeyWrapper(key_file), kill, at=at)), batch=2)
    place.check()
    done = place.rotate(what, batch=2)

    # Whole batches lie behind it: under a new master key they are not done again, new data keys are.
    assert done.sealed == {name: n for name, n in ((CREDENTIALS.table, 5 - kept), (API_KEYS.table, 2)) if n}
    assert [(one.key_name, one.rows) for one in survey(place.central, place.vault)] == [
        (place.vault.master_key(), {CREDENTIALS.table: 5, API_KEYS.table: 2})
    ]
    place.check()


def test_what_is_taken_out_of_use_meanwhile_stays_out(place: Place, key_file: Path) -> None:
    place.store("acme", credentials=2, keys=0)
    place.vault.renew_master_key()
    gone, kept = (credential.credential_id for credential in place.tenants.credentials("acme"))
    meddling = Meddling(FileKeyWrapper(key_file), lambda: place.tenants.deactivate("acme", gone))

    done = place.rotate(vault=Vault(meddling))

    assert (done.sealed, done.left) == ({CREDENTIALS.table: 1}, 1)
    assert {c.credential_id: (c.is_active, c.version) for c in place.tenants.credentials("acme")} == {
        gone: (False, 2),
        kept: (True, 2),
    }


@pytest.mark.slow
def test_a_deactivation_at_the_same_version_wins(place: Place) -> None:
    place.store("acme", keys=0)
    (row,) = place.rows("acme")
    place.rotate("data")
    # It had read the row before the rotation appended its own.
    place.central.append(
        CREDENTIALS.table, [{**row, "version": 2, "is_active": False, "written_at": place.now()}]
    )
    assert place.tenants.active_credentials("acme", "anthropic") == ()
    assert place.rotate("data").sealed == {}
    assert [c.is_active for c in place.tenants.credentials("acme")] == [False]


@pytest.mark.slow
@pytest.mark.slow
def test_of_two_rotations_at_once_the_former_key_counts(place: Place, key_file: Path) -> None:
    place.store("acme", keys=0)
    (row,) = place.rows("acme")
    place.rotate(new_master=True)
    # The other one had read the row before, and wrapped it under the key that was current then.
    place.central.append(CREDENTIALS.table, [{**row, "version": 2, "written_at": place.now()}])
    assert [(one.current, one.rows) for one in survey(place.central, place.vault)] == [
        (True, {}),
        (False, {CREDENTIALS.table: 1}),
    ]
    assert place.rotate().sealed == {CREDENTIALS.table: 1}
    key_file.with_name(f"master.{row['key_name'].removeprefix('file:')}.key").unlink()
    assert [row["version"] for row in place.rows("acme")] == [1, 2, 2, 3]
    place.check()


@pytest.mark.slow
@pytest.mark.slow
def test_a_removed_organisation_is_left_alone(place: Place, key_file: Path) -> None:
    for org in ("acme", "globex", "initech"):
        place.store(org, keys=0)
    place.vault.renew_master_key()

    def status(org: str, status: str) -> None:
        sql = "SELECT * FROM org_profiles WHERE org_slug = @org_slug ORDER BY version DESC"
        row = place.central.query(sql, org=org, purpose="test").to_pylist()[0]
        changed = {"version": row["version"] + 1, "status": status, "written_at": place.now()}
        place.central.append("org_profiles", [{**row, **changed}])

    status("acme", "REMOVED")
    status("initech", "SUSPENDED")
    meddling = Meddling(FileKeyWrapper(key_file), lambda: status("globex", "REMOVED"))
    done = place.rotate(vault=Vault(meddling))
    assert [len(place.rows(org)) for org in ("acme", "globex", "initech")] == [1, 1, 2]
    assert [one.rows for one in survey(place.central, place.vault)] == [{CREDENTIALS.table: 1}]
    assert (done.sealed, done.left) == ({CREDENTIALS.table: 1}, 1)


@pytest.mark.slow
def test_what_does_not_open_is_named_and_the_rest_goes_on(place: Place) -> None:
    place.store("acme")
    place.tenants.add("globex", name="globex")
    (stolen,) = place.rows("acme")
    place.central.append(CREDENTIALS.table, [{**stolen, "org_slug": "globex", "version": 7}])
    done = place.rotate(new_master=True)
    (refused,) = done.refused
    assert (refused.org, refused.table, refused.id) == ("globex", CREDENTIALS.table, stolen["credential_id"])
    assert "does not decrypt" in refused.reason
    assert done.sealed == {CREDENTIALS.table: 1, API_KEYS.table: 1}
    place.check()


@pytest.mark.slow
def test_only_the_organisations_that_are_given(place: Place) -> None:
    place.store("acme", keys=0)
    place.store("globex", keys=0)
    place.rotate(orgs=["globex"], new_master=True)
    assert [len(place.rows(org)) for org in ("acme", "globex")] == [1, 2]
    assert [one.current for one in survey(place.central, place.vault)] == [True, False]
    place.check()

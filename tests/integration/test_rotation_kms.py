"""Rotation with Cloud KMS, and the commands `manta vault`, on the embedded BigQuery and the sandbox's KMS."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from engine.api_keys import ApiKeys
from engine.clients import Clients, connect_kms
from engine.errors import ConfigurationError, TransientError
from engine.key_kms import KmsKeyWrapper
from engine.rotation import API_KEYS, CREDENTIALS, survey
from engine.settings import Settings
from engine.vault import Vault
from engine.workplace import open_workplace
from sandbox import kms
from serve.cli.desk import Desk
from serve.cli.main import run
from tests.integration.bigquery_server import BigQueryServer
from tests.integration.stored import CHECKOUT, SECRET, Place, a_place

KMS_KEY = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
NEW_KMS_KEY = "projects/p/locations/l/keyRings/r2/cryptoKeys/k2"


@pytest.fixture
def place(clients: Clients, bigquery_server: BigQueryServer, tmp_path: Path) -> Place:
    return a_place(clients, bigquery_server, tmp_path)


@pytest.fixture
def key_file(place: Place) -> Path:
    return place.settings.key_file


@pytest.fixture(scope="module")
def cloud() -> Iterator[kms.Kms]:
    with kms.running() as served:
        yield served


def in_the_cloud(cloud: kms.Kms, key: str, *former: str) -> Vault:
    client = connect_kms(host=cloud.host, credentials="anonymous", transport="plaintext")
    return Vault(KmsKeyWrapper(client, key, former=former, timeout_s=0.5))


def test_a_new_version_in_kms(place: Place, cloud: kms.Kms) -> None:
    cloud.state.add_key(KMS_KEY)
    vault = in_the_cloud(cloud, KMS_KEY)
    place.tenants, place.keys = place.with_vault(vault), ApiKeys(place.central, vault, now=place.now)
    place.store("acme", credentials=2)
    assert place.rotate(vault=vault).sealed == {}
    cloud.state.add_version(KMS_KEY)
    assert [one.rows for one in survey(place.central, vault)] == [
        {},
        {CREDENTIALS.table: 2, API_KEYS.table: 1},
    ]

    cloud.state.put("unavailable", count=None)
    with pytest.raises(TransientError):
        place.rotate(vault=vault)
    cloud.state.clear()
    done = place.rotate(vault=vault)

    assert done.master_key == f"kms:{KMS_KEY}/cryptoKeyVersions/2"
    assert done.sealed == {CREDENTIALS.table: 2, API_KEYS.table: 1}
    cloud.state.keys[KMS_KEY].disabled.add(1)
    place.check(vault)


@pytest.mark.slow
@pytest.mark.slow
def test_another_kms_key(place: Place, cloud: kms.Kms) -> None:
    for key in (KMS_KEY, NEW_KMS_KEY):
        cloud.state.add_key(key)
    before = in_the_cloud(cloud, KMS_KEY)
    place.tenants, place.keys = place.with_vault(before), ApiKeys(place.central, before, now=place.now)
    place.store("acme")
    alone = in_the_cloud(cloud, NEW_KMS_KEY)
    assert len(place.rotate(vault=alone).refused) == 2, "KMS_KEY_PREVIOUS does not name the former key"
    assert [one.at_hand for one in survey(place.central, alone)] == [True, False]
    both = in_the_cloud(cloud, NEW_KMS_KEY, KMS_KEY)
    assert place.rotate(vault=both).sealed == {CREDENTIALS.table: 1, API_KEYS.table: 1}
    del cloud.state.keys[KMS_KEY]
    place.check(alone)


@pytest.mark.slow
@pytest.mark.slow
def test_from_the_key_file_into_kms(place: Place, cloud: kms.Kms) -> None:
    cloud.state.add_key(KMS_KEY)
    place.store("acme")
    desk, out, _ = a_desk(place, KEY_STORE="kms", KMS_KEY=KMS_KEY, KMS_EMULATOR_HOST=cloud.host)
    assert run(["vault", "status"], desk) == 0
    assert "kms:projects" in out.getvalue()
    assert "manta vault rotate" in out.getvalue()
    assert run(["vault", "rotate"], desk) == 0
    assert "1 credentials and 1 API keys sealed anew." in out.getvalue()
    with pytest.raises(ConfigurationError, match="not at hand"):
        place.check(place.vault)
    place.check(in_the_cloud(cloud, KMS_KEY))


def a_desk(place: Place, **environ: str) -> tuple[Desk, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    settings = Settings.load({**given(place.settings), **environ}, root=CHECKOUT)
    desk = Desk(
        environ={"USER": "tess"},
        stdin=io.StringIO(),
        out=Console(file=out, width=200, highlight=False),
        err=Console(file=err, width=200, highlight=False),
        now=place.now,
        load=lambda environ: settings,
        open=open_workplace,
    )
    return desk, out, err


def given(settings: Settings) -> Mapping[str, str]:
    names: Sequence[str] = (
        "dataset_suffix",
        "meta_dataset",
        "bigquery_emulator_host",
        "bigquery_storage_emulator_host",
    )
    return {
        "MANTA_HOME": str(settings.home),
        **{name.upper(): str(getattr(settings, name)) for name in names},
    }


@pytest.mark.slow
@pytest.mark.slow
def test_the_commands(place: Place, key_file: Path) -> None:
    desk, out, err = a_desk(place)
    assert run(["vault", "status"], desk) == 0
    assert "no master key yet" in out.getvalue()
    place.store("acme")
    former = place.vault.master_key()
    assert former is not None

    assert run(["vault", "rotate", "--new-master", "--dry-run"], desk) == 0
    assert "1 credentials and 1 API keys would be sealed anew." in out.getvalue()
    assert place.vault.master_key() == former
    assert run(["vault", "rotate", "--new-master"], desk) == 0
    assert "back it up" in out.getvalue()
    assert run(["vault", "rotate"], desk) == 0
    assert "Nothing to do" in out.getvalue()
    assert run(["vault", "rotate", "--data-keys"], desk) == 0
    place.check()
    audits = [json.loads(str(row["audit"])) for row in place.rows("acme") if row["version"] == 3]
    assert [(audit["actor"], audit["action"]) for audit in audits] == [("cli:tess", "credential.rotate")]

    out.truncate(0)
    out.seek(0)
    assert run(["vault", "status", "--json"], desk) == 0
    (facts,) = map(json.loads, out.getvalue().splitlines())
    assert facts == {
        "key_name": place.vault.master_key(),
        "rows": {CREDENTIALS.table: 1, API_KEYS.table: 1},
        "current": True,
        "at_hand": True,
    }

    # A lost master key: red, and the rows stay as they are.
    place.vault.renew_master_key()
    lost = str(facts["key_name"])
    key_file.with_name(f"master.{lost.removeprefix('file:')}.key").unlink()
    assert run(["vault", "status"], desk) == 1
    assert run(["vault", "rotate"], desk) == 1
    assert err.getvalue().count("stays as it is") == 2
    assert SECRET not in out.getvalue() + err.getvalue()


def test_a_new_master_key_is_not_ours_to_make_in_kms(place: Place) -> None:
    desk, _, err = a_desk(place, KEY_STORE="kms", KMS_KEY=KMS_KEY)
    assert run(["vault", "rotate", "--new-master"], desk) == 2
    assert "gcloud kms keys versions create" in err.getvalue()

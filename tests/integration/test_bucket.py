"""Artifacts in Cloud Storage, through the official client and a real socket."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from engine.artifacts import Artifacts, parquet
from engine.bucket import MAX_ROUNDS
from engine.clients import connect_storage
from engine.errors import ConfigurationError, InternalError, MantaError, NotFoundError, TransientError
from engine.foreign import Patience
from engine.settings import Settings
from engine.workplace import Workplace
from tests.integration.storage_server import Fault, StorageServer

TABLE = pa.table({"day": [date(2025, 12, 1)] * 3, "cost": [1, 2, None]})
DATA = parquet(TABLE)
#: Above 8 MiB the official client uploads in a resumable session.
LARGE = pa.table({"noise": [Random(seed).randbytes(1 << 20) for seed in range(9)]})
NAME = "parts/acme_prod/openai_cost_daily/2025-12-01/v1-abc.parquet"
KEY = ("manta-artifacts", NAME)
URI = f"gs://{KEY[0]}/{NAME}"


@pytest.fixture
def server() -> Iterator[StorageServer]:
    server = StorageServer("manta-artifacts")
    yield server
    server.stop()


def opened(server: StorageServer, root: str = "gs://manta-artifacts/parts/", **patience: Any) -> Artifacts:
    return Artifacts(
        root,
        connect=lambda: connect_storage(
            project="p", host=server.url, credentials="anonymous", transport="plaintext"
        ),
        patience=Patience(**{"rand": lambda: 0.0, **patience}),
    )


@pytest.fixture
def artifacts(server: StorageServer) -> Artifacts:
    return opened(server)


def test_what_is_stored_is_read_back(server: StorageServer, artifacts: Artifacts) -> None:
    uri = artifacts.uri("acme_prod", "openai_cost_daily", date(2025, 12, 1), "v1:abc")

    artifacts.store(uri, DATA)

    assert uri == URI
    assert server.objects[KEY].data == DATA
    assert server.asked[0].query["ifGenerationMatch"] == "0"
    assert artifacts.read(uri).equals(TABLE)
    assert server.kinds() == ["multipart", "read"]


def test_a_large_one_goes_up_in_a_session(server: StorageServer, artifacts: Artifacts) -> None:
    data = parquet(LARGE)
    assert len(data) > 8 * 2**20

    artifacts.store(URI, data)
    artifacts.store(URI, data)

    assert artifacts.read(URI).equals(LARGE)
    assert server.kinds() == ["start", "finish", "start", "look", "read"]
    assert server.asked[0].query["ifGenerationMatch"] == "0"


def test_what_is_there_is_kept(server: StorageServer, artifacts: Artifacts) -> None:
    first = server.put(KEY, DATA)

    artifacts.store(URI, DATA)

    assert server.objects[KEY] == first
    assert server.kinds() == ["multipart", "look"]


@pytest.mark.parametrize("other", [DATA[:-1], DATA[:-1] + b"?", b""], ids=["shorter", "same size", "empty"])
def test_anything_else_is_replaced_where_it_was_seen(
    server: StorageServer, artifacts: Artifacts, other: bytes
) -> None:
    first = server.put(KEY, other)

    artifacts.store(URI, DATA)

    assert server.objects[KEY].data == DATA
    assert server.asked[-1].query["ifGenerationMatch"] == str(first.generation)


@pytest.mark.parametrize("fault", [408, 429, 500, 502, 503, 504, "lost"])
@pytest.mark.parametrize(("table", "what"), [(TABLE, "multipart"), (LARGE, "start"), (LARGE, "finish")])
def test_an_upload_outlives_what_passes(
    server: StorageServer, artifacts: Artifacts, table: pa.Table, what: str, fault: Fault
) -> None:
    server.faults[what] = [fault]
    data = parquet(table)

    artifacts.store(URI, data)

    assert server.objects[KEY].data == data
    assert server.objects[KEY].generation == 1001  # written once
    assert server.faults[what] == []


@pytest.mark.parametrize("fault", [503, "lost", "cut", "corrupt"])
def test_a_download_outlives_what_passes(server: StorageServer, artifacts: Artifacts, fault: Fault) -> None:
    server.put(KEY, DATA)
    server.faults["read"] = [fault]

    assert artifacts.read(URI).equals(TABLE)
    assert server.kinds() == ["read", "read"]


def test_a_checksum_that_stays_wrong_is_said(server: StorageServer) -> None:
    server.put(KEY, DATA)
    server.faults["read"] = ["corrupt"] * 2

    with pytest.raises(TransientError, match=f"Reading {URI}: Checksum mismatch"):
        opened(server, away_s=0.0).read(URI)


def test_cloud_storage_that_stays_away_is_transient(server: StorageServer) -> None:
    server.faults["multipart"] = [503]
    with pytest.raises(TransientError, match=f"Storing {URI}"):
        opened(server, away_s=0.0).store(URI, DATA)
    server.stop()
    with pytest.raises(TransientError, match=f"Reading {URI}"):
        opened(server, away_s=0.0).read(URI)


def test_an_object_that_is_gone(artifacts: Artifacts) -> None:
    with pytest.raises(NotFoundError, match=rf"Artifact {URI} is gone"):
        artifacts.read(URI)


@pytest.mark.parametrize(
    ("uri", "faults", "kind", "says"),
    [
        (URI.replace("manta-", "other-"), [], NotFoundError, "bucket does not exist"),
        (URI, [403], ConfigurationError, "as told"),
        (URI, [401], ConfigurationError, "credentials cannot be refreshed"),
    ],
)
def test_what_cannot_pass_is_asked_once(
    server: StorageServer,
    artifacts: Artifacts,
    uri: str,
    faults: list[Fault],
    kind: type[MantaError],
    says: str,
) -> None:
    server.faults["multipart"] = faults

    with pytest.raises(kind, match=says) as caught:
        artifacts.store(uri, DATA)

    assert caught.value.fix
    assert server.kinds() == ["multipart"]


def test_the_id_of_an_upload_is_not_said(server: StorageServer, artifacts: Artifacts) -> None:
    server.faults["finish"] = [403]

    with pytest.raises(ConfigurationError, match=r"upload_id=\.\.\.") as caught:
        artifacts.store(URI, parquet(LARGE))
    assert "session-0" not in str(caught.value)


def test_an_object_that_goes_while_it_is_looked_at(server: StorageServer, artifacts: Artifacts) -> None:
    server.put(KEY, b"old")
    server.faults["look"] = [lambda: server.objects.clear()]

    artifacts.store(URI, DATA)

    assert server.objects[KEY].data == DATA
    assert server.kinds() == ["multipart", "look", "multipart"]


def test_rivals_without_end_are_given_up(server: StorageServer, artifacts: Artifacts) -> None:
    server.faults["multipart"] = [lambda: void(server.put(KEY, b"theirs"))] * MAX_ROUNDS

    with pytest.raises(TransientError, match=f"written by others {MAX_ROUNDS} times"):
        artifacts.store(URI, DATA)
    assert server.objects[KEY].data == b"theirs"


def void(_: object) -> None:
    """Nothing: what a fault answers."""


def test_many_at_once_write_once(server: StorageServer) -> None:
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: opened(server).store(URI, DATA), range(12)))

    assert server.objects[KEY].data == DATA
    assert server.objects[KEY].generation == 1001


def test_an_artifact_is_read_where_it_lies(server: StorageServer, tmp_path: Path) -> None:
    local = Artifacts(str(tmp_path))
    kept = local.uri("d", "t", date(2025, 12, 1), "v1:0")
    local.store(kept, DATA)
    server.put(KEY, DATA)

    assert opened(server).read(kept).equals(TABLE)
    assert opened(server, root=str(tmp_path)).read(URI).equals(TABLE)


@pytest.mark.parametrize("root", ["gs://", "gs:///folder", "gs://Capitals/x", "s3://bucket/x"])
def test_a_root_without_a_bucket_is_refused(root: str) -> None:
    with pytest.raises(ConfigurationError, match=root):
        Artifacts(root)


def settings(home: Path, **given: Any) -> Settings:
    return Settings(root=home, home=home, artifact_root="gs://manta-artifacts/parts", **given)


def test_settings_lead_there(server: StorageServer, tmp_path: Path) -> None:
    kept = Workplace(settings(tmp_path, storage_emulator_host=server.url)).artifacts

    assert server.asked == []
    kept.store(URI, DATA)
    assert kept.read(URI).equals(TABLE)


def test_nobody_is_anonymous_at_google(tmp_path: Path) -> None:
    kept = Workplace(settings(tmp_path)).artifacts  # no client yet, so no refusal

    with pytest.raises(ConfigurationError, match=r"STORAGE_EMULATOR_HOST: .* to googleapis\.com"):
        kept.store(URI, DATA)


@pytest.mark.parametrize(
    "given",
    [
        {"host": "http://10.0.0.8:4443", "credentials": "anonymous"},
        {"host": "https://10.0.0.8:4443", "transport": "plaintext", "credentials": "file"},
        {"host": "http://10.0.0.8:4443", "credentials": "file"},
        {"host": "http://127.0.0.1.example.com", "credentials": "adc"},
    ],
)
def test_open_wires_stay_at_home(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="STORAGE_EMULATOR_HOST") as caught:
        connect_storage(project="p", **given)
    assert caught.value.field == "storage_emulator_host"


def test_the_environment_does_not_redirect_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "client_email": "manta@p.example",
        "private_key": key.decode(),
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    file = tmp_path / "key.json"
    file.write_text(json.dumps(account))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://198.51.100.7")

    client = connect_storage(project="p", credentials="file", credentials_file=file)

    assert client.api_endpoint == "https://storage.googleapis.com"


WITHOUT = """
import sys
sys.modules["google.cloud.storage"] = None  # as Python finds a package that is not installed
from engine.artifacts import Artifacts
from engine.clients import connect_storage
from engine.errors import ConfigurationError
kept = Artifacts("gs://bucket/x", connect=lambda: connect_storage(
    project="p", host="http://127.0.0.1:9", credentials="anonymous", transport="plaintext"))
try:
    kept.store("gs://bucket/x/y", b"")
except ConfigurationError as error:
    print(error)
"""


def test_without_the_extra_it_says_how_to_install_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)

    assert "google-cloud-storage, which is not installed. Fix:" in done.stdout
    assert "pip install 'manta[gcs]'" in done.stdout


def test_a_datasets_artifacts_are_removed_and_no_other(server: StorageServer, artifacts: Artifacts) -> None:
    days = [date(2025, 12, day) for day in (1, 2, 3)]
    for day in days:
        artifacts.store(artifacts.uri("acme_prod", "openai_cost_daily", day, "v1:abc"), DATA)
    kept = artifacts.uri("acme_prod_2", "openai_cost_daily", days[0], "v1:abc")
    artifacts.store(kept, DATA)
    server.faults["delete"] = [503, "lost"]

    artifacts.remove("acme_prod")
    artifacts.remove("acme_prod")

    assert list(server.objects) == [("manta-artifacts", kept.removeprefix("gs://manta-artifacts/"))]


@pytest.mark.parametrize("dataset", ["", "acme/prod"])
def test_only_a_dataset_is_removed(artifacts: Artifacts, dataset: str) -> None:
    with pytest.raises(InternalError):
        artifacts.remove(dataset)


def test_a_datasets_folder_is_removed_and_no_other(tmp_path: Path) -> None:
    artifacts = Artifacts(str(tmp_path))
    for dataset in ("acme_prod", "acme_prod_2"):
        artifacts.store(artifacts.uri(dataset, "openai_cost_daily", date(2025, 12, 1), "v1:abc"), DATA)
    artifacts.remove("acme_prod")
    artifacts.remove("acme_prod")
    assert [path.name for path in tmp_path.iterdir()] == ["acme_prod_2"]

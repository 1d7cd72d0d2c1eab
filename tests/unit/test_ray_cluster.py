"""ray-cluster.yaml is one that Ray's launcher takes, closed to the outside, no unit on the head. Offline."""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path
from string import Template
from typing import Any

import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster import ray_node

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "ray-cluster.yaml").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
BODY = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#"))
PLACES = set(re.findall(r"\$\{(\w+)\}", BODY))
VALUES = {
    "MANTA_GCP_PROJECT": "my-project",
    "MANTA_GCP_REGION": "europe-west4",
    "MANTA_GCP_ZONE": "europe-west4-a",
    "MANTA_SUBNET": "manta",
    "MANTA_MACHINE_IMAGE": "projects/p/global/images/family/f",
    "MANTA_IMAGE": "europe-west4-docker.pkg.dev/my-project/manta/manta:0.1.0",
    "MANTA_HEAD_ACCOUNT": "manta-head@my-project.iam.gserviceaccount.com",
    "MANTA_WORKER_ACCOUNT": "manta-worker@my-project.iam.gserviceaccount.com",
    "MANTA_TOKEN_FOLDER": "/home/me/.manta/cluster",
    "MANTA_ENVIRONMENT": "stage",
}
#: Of the local node's environment: what binds to loopback, free ports, our paths, and what one node needs.
LOCAL_ONLY = {
    *ray_node.LOOPBACK_ONLY,
    "PATH",
    "DASHBOARD_METRIC_PORT",
    "AUTOSCALER_METRIC_PORT",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S",
}


@pytest.fixture
def config() -> dict[str, Any]:
    return dict(yaml.safe_load(Template(TEXT).safe_substitute(VALUES)))


def environment(config: dict[str, Any]) -> dict[str, str]:
    options = [option for option in config["docker"]["run_options"] if option.startswith("-e ")]
    return dict(option.removeprefix("-e ").split("=", 1) for option in options)


def test_ray_takes_it(config: dict[str, Any]) -> None:
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    assert prepared["available_node_types"]["worker"]["max_workers"] == config["max_workers"]
    # What a list of ours leaves out, Ray's defaults would bring back.
    assert prepared["head_setup_commands"] == prepared["worker_setup_commands"] == []


def test_rays_schema_would_notice(config: dict[str, Any]) -> None:
    broken = prepare_config(copy.deepcopy(config)) | {"max_worker": 3}
    with pytest.raises(Exception, match="max_worker"):
        validate_config(broken)


def test_every_value_to_fill_in_is_explained_and_no_other() -> None:
    assert set(VALUES) == PLACES
    assert set(re.findall(r"^#   \$\{(\w+)\} ", TEXT, re.MULTILINE)) == PLACES
    assert set(re.findall(r"\b(MANTA_[A-Z_]+)=", GUIDE)) == PLACES


def test_provider_keys_are_known_and_filled(config: dict[str, Any]) -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    provider = config["provider"]
    assert set(provider) <= set(schema["properties"]["provider"]["properties"])
    assert provider["type"] == "gcp"
    assert provider["project_id"] == VALUES["MANTA_GCP_PROJECT"]
    assert provider["availability_zone"].startswith(provider["region"])


def test_nothing_has_an_outside_address(config: dict[str, Any]) -> None:
    assert config["provider"]["use_internal_ips"] is True
    for name, kind in config["available_node_types"].items():
        # Where one type has none, Ray adds an interface with an external address to it.
        interfaces = kind["node_config"]["networkInterfaces"]
        assert len(interfaces) == 1, name
        assert set(interfaces[0]) == {"subnetwork"}, name
    start = " ".join(config["head_start_ray_commands"] + config["worker_start_ray_commands"])
    assert "0.0.0.0" not in start
    assert "--dashboard-host=127.0.0.1" in start


def test_the_head_runs_no_units_and_workers_come_and_go(config: dict[str, Any]) -> None:
    head, worker = (config["available_node_types"][name] for name in ("head", "worker"))
    assert config["head_node_type"] == "head"
    assert head["resources"]["CPU"] == 0
    assert "--num-cpus=0" in " ".join(config["head_start_ray_commands"])
    assert head["max_workers"] == 0
    assert "scheduling" not in head["node_config"]
    assert worker["min_workers"] < worker["max_workers"]
    assert worker["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    # machineType e2-standard-N has N CPUs.
    assert worker["node_config"]["machineType"].endswith(f"-{worker['resources']['CPU']}")


def test_every_node_has_an_account_of_its_own(config: dict[str, Any]) -> None:
    accounts = {
        name: kind["node_config"]["serviceAccounts"][0]["email"]
        for name, kind in config["available_node_types"].items()
    }
    assert accounts == {"head": VALUES["MANTA_HEAD_ACCOUNT"], "worker": VALUES["MANTA_WORKER_ACCOUNT"]}


def test_the_switches_are_those_of_the_local_node(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Importing ray, and tests before this one, leave some in our own environment, which the node inherits.
    for name in [name for name in os.environ if name.startswith(("RAY_", "POLARS_"))]:
        monkeypatch.delenv(name)
    node = ray_node._environment(tmp_path / "token", num_cpus=4, dashboard_metrics=1, autoscaler_metrics=2)
    ours = {name for name in node if name.startswith(("RAY_", "POLARS_")) or name.endswith("METRIC_PORT")}
    given = environment(config)
    assert set(given) - {"MANTA_ENV"} == ours - LOCAL_ONLY
    same = set(given) - {"MANTA_ENV", "RAY_AUTH_TOKEN_PATH", "POLARS_MAX_THREADS"}
    assert {name: given[name] for name in same} == {name: node[name] for name in same}
    assert given["MANTA_ENV"] in ("stage", "prod")


def test_the_token_is_mounted_where_it_is_looked_for(config: dict[str, Any]) -> None:
    path = Path(environment(config)["RAY_AUTH_TOKEN_PATH"])
    assert config["file_mounts"] == {str(path.parent): VALUES["MANTA_TOKEN_FOLDER"]}
    assert f"/{path.name}" in GUIDE


def test_no_secret_stands_in_the_file(config: dict[str, Any]) -> None:
    assert not re.search(r"RAY_AUTH_TOKEN=|gcp_credentials|[0-9a-fA-F]{32}", BODY)


def test_it_is_for_the_ray_that_is_locked() -> None:
    assert f"Ray {ray.__version__}" in TEXT
    assert f"ray[default,serve]=={ray.__version__}" in GUIDE

"""The Ray head node of one home: its command, its environment, its private folder.

Several homes may have a node on one machine at once: every port is a free one, the folder carries the
home's hash, and `ray stop`, which ends every cluster there is, is never used.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster import processes
from cluster.processes import LOOPBACK

STARTED = "Ray runtime started."

#: Without it Ray takes the machine's outward address, whatever --node-ip-address says, and its control
#: store, raylet and metrics listen on every interface. It has to be set in clients too, before they import
#: ray: they would otherwise turn 127.0.0.1 into the outward address, where nobody listens.
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True, slots=True)
class Node:
    """How to start a node and where it will be."""

    command: list[str]
    env: Mapping[str, str]
    address: str
    dashboard: str


def plan(home: Path, *, num_cpus: int, object_store_bytes: int, dashboard_port: int) -> Node:
    """Choose the ports and write down the command; makes the home's token and clears the node's folder."""
    gcs, dashboard, agent, agent_grpc, client, metrics, runtime_env, *others = processes.free_ports(11)
    objects, nodes, dashboard_metrics, autoscaler_metrics = others
    dashboard = dashboard_port or dashboard
    options = {
        "port": gcs,
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": agent,
        "dashboard-agent-grpc-port": agent_grpc,
        "ray-client-server-port": client,
        "metrics-export-port": metrics,
        "runtime-env-agent-port": runtime_env,
        "object-manager-port": objects,
        "node-manager-port": nodes,
        "dashboard-host": LOOPBACK,
        "node-ip-address": LOOPBACK,
        "num-cpus": num_cpus,
        "object-store-memory": object_store_bytes,
        "temp-dir": _fresh_folder(home),
        "log-color": "false",
    }
    ray = str(Path(sys.executable).with_name("ray"))
    flags = [f"--{name}={value}" for name, value in options.items()]
    return Node(
        command=[ray, "start", "--head", "--block", "--disable-usage-stats", *flags],
        env=_environment(token_path(home), num_cpus, dashboard_metrics, autoscaler_metrics),
        address=f"{LOOPBACK}:{gcs}",
        dashboard=f"http://{LOOPBACK}:{dashboard}",
    )


def prepare_client(home: Path) -> None:
    """Let this process join the home's node: to be called before `ray.init`, and never for a remote cluster.

    Ray reads these variables when it is imported. Where that has happened already, it is made to read again.
    """
    os.environ.update(LOOPBACK_ONLY)
    os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_path(home))})
    os.environ.pop("RAY_AUTH_TOKEN", None)
    constants, core = (sys.modules.get(f"ray.{name}") for name in ("_private.ray_constants", "_raylet"))
    if constants is not None and core is not None:
        vars(constants)["ENABLE_RAY_CLUSTER"] = False
        vars(core)["Config"].initialize("")
        vars(core)["AuthenticationTokenLoader"].instance().reset_cache()


def folder(home: Path) -> Path:
    """The node's folder: short, because the paths of Ray's unix sockets under it end at 107 bytes."""
    digest = hashlib.sha256(str(home.absolute()).encode()).hexdigest()
    # The same for every session of a user, so not $TMPDIR: tests and terminals set that as they like.
    return Path("/tmp") / f"manta-ray-{digest[:8]}"  # noqa: S108


def token_path(home: Path) -> Path:
    """The file with the cluster's token, made when missing; only its owner reads it."""
    path = home / "keys" / "ray_token"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=".ray_token.")
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        Path(part).replace(path)
    return path


def _fresh_folder(home: Path) -> Path:
    """Remove what earlier sessions left (Ray never does) and make the folder anew, for its owner only."""
    outer = folder(home)
    if outer.is_symlink() or (outer.exists() and outer.stat().st_uid != os.getuid()):
        raise PermissionError(f"{outer} belongs to somebody else")
    shutil.rmtree(outer, ignore_errors=True)
    outer.mkdir(mode=0o700)
    # Ray opens its own folder to everyone (0777); one deeper, that opens nothing.
    return outer / "r"


def _environment(
    token: Path, num_cpus: int, dashboard_metrics: int, autoscaler_metrics: int
) -> dict[str, str]:
    env = processes.environment()
    # An address in the environment is another cluster's.
    env.pop("RAY_ADDRESS", None)
    # Entrypoints of submitted jobs say `python` and `manta` and mean ours.
    path = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    threads = max(1, (os.cpu_count() or 1) // max(1, num_cpus))
    return env | {
        **LOOPBACK_ONLY,
        "PATH": path,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        # Fixed ports by default (44227, 44217), which the second cluster of a machine cannot have.
        "DASHBOARD_METRIC_PORT": str(dashboard_metrics),
        "AUTOSCALER_METRIC_PORT": str(autoscaler_metrics),
        # Read by Polars once per process, and workers are used again: it can only be set for all.
        "POLARS_MAX_THREADS": env.get("POLARS_MAX_THREADS", str(threads)),
        # A task killed for memory is otherwise started again for ever, outside its max_retries.
        "RAY_task_oom_retries": "1",
        # There is no second node to drain to; a detached actor would hold the stop for 30 s.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # 512 MB a file and 5 of each otherwise.
        "RAY_ROTATION_MAX_BYTES": str(16 * 2**20),
        "RAY_ROTATION_BACKUP_COUNT": "2",
    }

"""The local stack: started once, found again, stopped whole, and nothing else on the machine touched."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import processes, ray_node, services
from cluster.services import Service, ServiceError
from tests.acceptance.listeners import listening_elsewhere


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    services.stop(tmp_path / "home")


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody else's, which has to live through everything."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        yield process
        assert process.poll() is None
        process.kill()


def _get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("pid", [0, 1, os.getpid(), os.getppid()], ids=["none", "init", "self", "parent"])
def test_the_family_of_the_whole_machine_is_nobodys(pid: int) -> None:
    """No signal is sent here: a family that were not empty would be this machine."""
    leader = processes.Process(pid, parent=0, session=0, started_ticks=0)
    assert processes.belonging(leader, "no-such-mark") == []
    assert processes.belonging(None, "no-such-mark") == []


def test_a_family_is_leader_descendants_session_and_mark(
    tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    script = "setsid sleep 500 & (sleep 500 &) ; sleep 500"
    log = tmp_path / "log"
    pid = processes.spawn(
        ["sh", "-c", script], home=tmp_path, mark="family", output=log, log=log, env=os.environ
    )
    leader = processes.look(pid)
    assert leader is not None
    until = time.monotonic() + 10
    while len(members := processes.belonging(leader, "family")) < 4 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(members) == 4
    assert bystander.pid not in {one.pid for one in members}
    assert processes.end(leader, "family", patience_s=1) == []
    assert not any(processes.alive(one.pid, one.started_ticks) for one in members)


def test_warehouse_is_started_once_and_found_again(home: Path, bystander: subprocess.Popen[bytes]) -> None:
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(services.start_warehouse, home, project="local") for _ in range(3)]
        first, *others = [one.result() for one in asked]
    assert others == [first, first]
    assert services.running(home) == {"warehouse": first}
    assert os.getsid(first.pid) == first.pid
    assert _get(f"{first.endpoints['rest']}/bigquery/v2/projects/local/datasets") == 200

    assert services.stop(home) == [first]
    assert services.running(home) == {}
    assert services.stop(home) == []
    assert not processes.alive(first.pid, first.started_ticks)


def test_newest_is_stopped_first_and_only_what_is_named(home: Path) -> None:
    warehouse = services.start_warehouse(home, project="local")
    sandbox = services.start_sandbox(home)
    assert list(services.running(home)) == ["warehouse", "sandbox"]
    assert {"openai", "anthropic"} <= set(sandbox.endpoints)
    assert services.stop(home, ["sandbox"]) == [sandbox]
    assert services.running(home) == {"warehouse": warehouse}
    sandbox = services.start_sandbox(home)
    assert services.stop(home) == [sandbox, warehouse]


def test_a_pid_that_was_given_out_again_is_left_alone(home: Path, bystander: subprocess.Popen[bytes]) -> None:
    (home / "run").mkdir(parents=True)
    log = str(home / "logs" / "sandbox.log")
    stale = {
        "name": "sandbox",
        "pid": bystander.pid,
        "started_ticks": 1,
        "endpoints": {"openai": "x"},
        "log": log,
    }
    (home / "run" / "services.json").write_text(json.dumps({"sandbox": stale}))
    assert services.running(home) == {}
    assert services.stop(home) == []


def test_a_killed_service_is_started_anew(home: Path) -> None:
    first = services.start_sandbox(home)
    os.kill(first.pid, 9)
    while processes.alive(first.pid, first.started_ticks):
        time.sleep(0.02)
    assert services.running(home) == {}
    assert services.start_sandbox(home).pid != first.pid


def test_a_start_that_fails_says_why(home: Path) -> None:
    home.mkdir()
    (home / "warehouse").write_text("a file where a folder should be")
    with pytest.raises(ServiceError, match="warehouse ended while it started") as told:
        services.start_warehouse(home, project="local")
    assert "File exists" in told.value.message
    assert str(home / "logs" / "warehouse.log") in told.value.fix
    assert services.running(home) == {}


def test_a_busy_port_is_named(home: Path, tmp_path: Path) -> None:
    sandbox = services.start_sandbox(home)
    port = int(sandbox.endpoints["anthropic"].rpartition(":")[2])
    with pytest.raises(ServiceError, match=f"port {port} is in use"):
        services.start_warehouse(home, project="local", port=port)


def test_services_outlive_the_command_that_started_them(home: Path) -> None:
    code = (
        f"from cluster import services; from pathlib import Path; services.start_sandbox(Path({str(home)!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    sandbox = services.running(home)["sandbox"]
    assert _get(sandbox.endpoints["openai"]) in {401, 404}
    assert services.stop(home) == [sandbox]


def test_environment_is_one_line_a_value(home: Path) -> None:
    path = services.write_environment(
        home, {"RAY_ADDRESS": "127.0.0.1:1", "BIGQUERY_EMULATOR_HOST": "http://x"}
    )
    assert path == home / "stack.env"
    assert path.read_text() == "RAY_ADDRESS=127.0.0.1:1\nBIGQUERY_EMULATOR_HOST=http://x\n"
    with pytest.raises(ValueError, match="NAME=value"):
        services.write_environment(home, {"A": "b\nC=d"})


WORK = """
import sys
from pathlib import Path
import ray
from cluster import ray_node
ray_node.prepare_client(Path(sys.argv[1]))
ray.init(address=sys.argv[2], namespace="test", log_to_driver=False, configure_logging=False)

@ray.remote(num_cpus=0, name="kept", lifetime="detached")
class Kept:
    def start(self):
        import engine, os, subprocess
        child = subprocess.Popen(["setsid", "sleep", "900"])
        return os.getpid(), child.pid

print(*ray.get(ray.get_actor("kept").start.remote() if "again" in sys.argv else Kept.remote().start.remote()))
"""


def _work(home: Path, node: Service, *more: str) -> list[int]:
    """Use the cluster from a process of its own; the pids of an actor and of a child it has started."""
    command = [sys.executable, "-c", WORK, str(home), node.endpoints["address"], *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.splitlines()[-1].split()]


def _family(home: Path, node: Service) -> list[processes.Process]:
    return processes.belonging(processes.look(node.pid), services._mark(home, "ray"))


@pytest.mark.slow
def test_two_clusters_one_is_stopped_whole_and_the_other_lives(
    tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    homes = [tmp_path / "one", tmp_path / "two"]
    try:
        with ThreadPoolExecutor(2) as pool:
            start = lambda h: services.start_ray(h, num_cpus=1, object_store_bytes=100_000_000)  # noqa: E731
            first, second = pool.map(start, homes)
        family = {p.pid for p in _family(homes[0], first)}
        used = _work(homes[0], first)
        _work(homes[1], second)
        everyone = _family(homes[0], first)
        assert set(used) <= {p.pid for p in everyone}
        assert len(family) > 5
        assert listening_elsewhere({p.pid for p in everyone}) == set()
        # The dashboard's API asks for the token; the token and the folder are their owner's alone.
        assert _get(f"{first.endpoints['dashboard']}/api/version") == 401
        assert stat.S_IMODE(ray_node.token_path(homes[0]).stat().st_mode) == 0o600
        assert stat.S_IMODE(ray_node.folder(homes[0]).stat().st_mode) == 0o700

        began = time.monotonic()
        assert services.stop(homes[0]) == [first]
        assert time.monotonic() - began < 20
        assert [p for p in everyone if processes.alive(p.pid, p.started_ticks)] == []
        assert _family(homes[0], first) == []

        assert services.running(homes[1]) == {"ray": second}
        _work(homes[1], second, "again")
    finally:
        for home in homes:
            services.stop(home)
            shutil.rmtree(ray_node.folder(home), ignore_errors=True)


@pytest.mark.slow
def test_a_node_whose_head_was_killed_leaves_nothing_for_the_next(home: Path) -> None:
    start = {"num_cpus": 1, "object_store_bytes": 100_000_000}
    try:
        first = services.start_ray(home, **start)
        used = _work(home, first)
        (ray_node.folder(home) / "r" / "session_old").mkdir()
        os.kill(first.pid, 9)
        second = services.start_ray(home, **start)
        assert second.pid != first.pid
        assert [pid for pid in used if processes.look(pid) is not None] == []
        assert not (ray_node.folder(home) / "r" / "session_old").exists()
    finally:
        services.stop(home)
        shutil.rmtree(ray_node.folder(home), ignore_errors=True)

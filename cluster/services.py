"""The local stack: the processes one home has started, found again by later commands and stopped by them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cluster import processes, ray_node
from engine.errors import ConfigurationError

START_WITHIN_S = {"warehouse": 60.0, "sandbox": 60.0, "ray": 90.0}
#: From asking a service to end to killing it.
PATIENCE_S = {"warehouse": 8.0, "sandbox": 5.0, "ray": 15.0}
LOG_LINES = 15

#: Asks a started service where it listens; None: not yet.
Ready = Callable[[], Mapping[str, str] | None]


class ServiceError(ConfigurationError):
    """A service that cannot be started or stopped."""


@dataclass(frozen=True, slots=True)
class Service:
    """One running process of the stack."""

    name: str
    pid: int
    started_ticks: int
    endpoints: Mapping[str, str]
    log: Path


def start_warehouse(home: Path, *, project: str, port: int = 0, grpc_port: int = 0) -> Service:
    """Start the embedded BigQuery, or join the one that serves this home. Endpoints: rest, grpc."""
    home = home.expanduser().absolute()
    data_dir = home / "warehouse"

    def ready() -> Mapping[str, str] | None:
        address = _json(data_dir / "address.json")
        return {"rest": address["rest"], "grpc": address["grpc"]} if address else None

    with _locked(home):
        if (service := running(home).get("warehouse")) is not None:
            return service
        if (service := _started_by_hand(data_dir, _log(home, "warehouse"))) is not None:
            return service
        refuse_busy("embedded BigQuery's REST", port)
        refuse_busy("embedded BigQuery's gRPC", grpc_port)
        # A killed server's address must not be taken for the new one's.
        with contextlib.suppress(OSError):
            (data_dir / "address.json").unlink()
        options = {"data-dir": data_dir, "port": port, "grpc-port": grpc_port, "project": project}
        command = processes.module(
            "cluster.embedded", *(f"--{key}={value}" for key, value in options.items())
        )
        return _start(home, "warehouse", command, processes.environment(), ready)


def start_sandbox(home: Path, *, seed: int = 1) -> Service:
    """Start the sandbox, or join this home's. Endpoints: openai, anthropic, and what else it names."""
    home = home.expanduser().absolute()

    def ready() -> Mapping[str, str] | None:
        lines = _output(home, "sandbox").read_text().splitlines()
        return next((_text(json.loads(line)) for line in lines if line.startswith("{")), None)

    with _locked(home):
        if (service := running(home).get("sandbox")) is not None:
            return service
        _output(home, "sandbox").unlink(missing_ok=True)
        command = processes.module("sandbox", "--seed", str(seed))
        return _start(home, "sandbox", command, processes.environment(), ready)


def start_ray(home: Path, *, num_cpus: int, object_store_bytes: int, dashboard_port: int = 0) -> Service:
    """Start a Ray head node, or join this home's. Endpoints: address, dashboard."""
    home = home.expanduser().absolute()
    with _locked(home):
        if (service := running(home).get("ray")) is not None:
            return service
        refuse_busy("Ray dashboard's", dashboard_port)
        # A node whose head was killed may have left workers; they would write into the folder we clear.
        processes.end(None, _mark(home, "ray"), patience_s=0)
        try:
            node = ray_node.plan(
                home, num_cpus=num_cpus, object_store_bytes=object_store_bytes, dashboard_port=dashboard_port
            )
        except PermissionError as error:
            raise ServiceError(
                f"Ray's folder cannot be used: {error}.", fix="Remove it and start again."
            ) from error

        def ready() -> Mapping[str, str] | None:
            if ray_node.STARTED not in _output(home, "ray").read_text() or not _answers(node.dashboard):
                return None
            return {"address": node.address, "dashboard": node.dashboard}

        _output(home, "ray").unlink(missing_ok=True)
        return _start(home, "ray", node.command, node.env, ready)


def running(home: Path) -> dict[str, Service]:
    """What this home has started and what still runs, oldest first."""
    found = {name: s for name, s in _recorded(home).items() if processes.alive(s.pid, s.started_ticks)}
    # Without endpoints it is on its way up, or its starter died half-way.
    return {name: service for name, service in found.items() if service.endpoints}


def stop(home: Path, names: Collection[str] | None = None) -> list[Service]:
    """Stop what this home has started (only the named, if given), newest first; say what was running."""
    home = home.expanduser().absolute()
    if not _state(home).exists():
        return []
    with _locked(home):
        stopped = []
        for service in reversed(_recorded(home).values()):
            if names is not None and service.name not in names:
                continue
            if processes.alive(service.pid, service.started_ticks):
                stopped.append(service)
            _end(home, service)
            _record(home, {k: s for k, s in _recorded(home).items() if k != service.name})
        return stopped


def write_environment(home: Path, values: Mapping[str, str]) -> Path:
    """Write home/stack.env, whole or not at all: the settings that later commands find this stack by."""
    for name, value in values.items():
        if not name.isidentifier() or "\n" in value:
            raise ValueError(f"{name} cannot be written as one NAME=value line")
    path = home.expanduser().absolute() / "stack.env"
    _write(path, "".join(f"{name}={value}\n" for name, value in values.items()))
    return path


def _start(home: Path, name: str, command: list[str], env: Mapping[str, str], ready: Ready) -> Service:
    """Start a process, record it at once, and wait until it says where it listens."""
    if (stale := _recorded(home).get(name)) is not None:
        _end(home, stale)
    log = _log(home, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    output = _output(home, name)
    pid = processes.spawn(command, home=home, mark=_mark(home, name), output=output, log=log, env=env)
    found = processes.look(pid)
    service = Service(name, pid, found.started_ticks if found else 0, {}, log)
    others = {key: s for key, s in _recorded(home).items() if key != name}
    # Before it is ready: if we are killed now, the next command still knows whom to stop.
    _record(home, {**others, name: service})
    try:
        service = replace(service, endpoints=_await(service, output, ready))
    except BaseException:
        _end(home, service)
        _record(home, others)
        raise
    _record(home, {**others, name: service})
    return service


def _await(service: Service, output: Path, ready: Ready) -> Mapping[str, str]:
    until = time.monotonic() + START_WITHIN_S[service.name]
    while time.monotonic() < until:
        # Asked first: whether it lives, and only then whether it is ready, or a death is seen as a wait.
        lives = processes.alive(service.pid, service.started_ticks)
        if lives and (endpoints := ready()) is not None:
            return endpoints
        if not lives:
            raise ServiceError(
                f"The service {service.name} ended while it started.\n{_tail(output, service.log)}",
                fix=f"Mend what its log says ({service.log}) and start again.",
            )
        time.sleep(processes.POLL_S)
    raise ServiceError(
        f"The service {service.name} did not answer within {START_WITHIN_S[service.name]:.0f} s.\n"
        f"{_tail(output, service.log)}",
        fix=f"Read {service.log}; on a busy machine, start again.",
    )


def _end(home: Path, service: Service) -> None:
    # The recorded pid may be somebody else's by now: then only the mark tells who is ours.
    found = processes.look(service.pid)
    leader = found if found is not None and found.started_ticks == service.started_ticks else None
    if left := processes.end(leader, _mark(home, service.name), patience_s=PATIENCE_S[service.name]):
        pids = ", ".join(str(one.pid) for one in left)
        raise ServiceError(
            f"The service {service.name} cannot be stopped: {pids} will not end.", fix="Kill them."
        )


def _started_by_hand(data_dir: Path, log: Path) -> Service | None:
    """A server of this data dir that somebody started without us: used, but neither recorded nor stopped."""
    address = _json(data_dir / "address.json")
    if not address or (found := processes.look(int(address["pid"]))) is None:
        return None
    try:
        with urllib.request.urlopen(address["rest"] + "/$discovery/rest", timeout=5):  # noqa: S310
            endpoints = {"rest": address["rest"], "grpc": address["grpc"]}
            return Service("warehouse", found.pid, found.started_ticks, endpoints, log)
    except OSError:
        return None


def refuse_busy(what: str, port: int) -> None:
    """Raise ServiceError when somebody listens on this port of loopback; 0 is never busy."""
    if port and not processes.port_is_free(port):
        raise ServiceError(
            f"The {what} port {port} is in use.", fix="Free it, or choose another (0 takes any free port)."
        )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return True  # refused for want of a token: it is there
    except OSError:
        return False


def _mark(home: Path, name: str) -> str:
    return f"{name}-{hashlib.sha256(str(home.expanduser().absolute()).encode()).hexdigest()[:16]}"


def _log(home: Path, name: str) -> Path:
    return home / "logs" / f"{name}.log"


def _output(home: Path, name: str) -> Path:
    # What a service says of itself when it listens, apart from its log: the log is kept, this is read.
    return home / "run" / f"{name}.out"


def _state(home: Path) -> Path:
    return home.expanduser().absolute() / "run" / "services.json"


def _recorded(home: Path) -> dict[str, Service]:
    state = _json(_state(home)) or {}
    return {name: Service(**(entry | {"log": Path(entry["log"])})) for name, entry in state.items()}


def _record(home: Path, services: Mapping[str, Service]) -> None:
    state = {name: asdict(service) | {"log": str(service.log)} for name, service in services.items()}
    _write(_state(home), json.dumps(state, indent=1) + "\n")


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One command at a time starts or stops this home's services; the others wait and then join."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (home / "run").mkdir(exist_ok=True)
    with (home / "run" / "services.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _text(values: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}


def _tail(*paths: Path) -> str:
    lines = [
        line for path in paths if path.exists() for line in path.read_text(errors="replace").splitlines()
    ]
    return "\n".join(lines[-LOG_LINES:])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(part).replace(path)

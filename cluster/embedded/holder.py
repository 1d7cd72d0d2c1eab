"""One server for one data dir: the lock file, and the address that is published when the server answers."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

LOCK = "server.lock"
ADDRESS = "address.json"


class StartError(Exception):
    """Why the server cannot start, in one line that says what to do."""


def hold(data_dir: Path) -> int:
    """Take the data dir for this process until it ends; the lock's file descriptor is the hold.

    The kernel lets a flock go when its holder dies, however it dies, so a stale file never blocks a start.
    """
    descriptor = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(descriptor, 32).decode().strip() or "unknown"
        os.close(descriptor)
        raise StartError(
            f"{data_dir} is already served by process {pid}; use it, stop it, or give another --data-dir"
        ) from None
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def publish(data_dir: Path, rest_port: int, grpc_port: int) -> None:
    """Write where the server listens, whole or not at all."""
    address = {"pid": os.getpid(), "rest": f"http://127.0.0.1:{rest_port}", "grpc": f"127.0.0.1:{grpc_port}"}
    part = data_dir / f".{ADDRESS}.{os.getpid()}"
    part.write_text(json.dumps(address) + "\n")
    part.replace(data_dir / ADDRESS)


def withdraw(data_dir: Path) -> None:
    """Take the address back."""
    (data_dir / ADDRESS).unlink(missing_ok=True)

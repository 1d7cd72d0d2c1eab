"""The embedded BigQuery as a child process that tests may kill and start again on the same ports."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_WITHIN_S = 60.0
REPOSITORY = Path(__file__).resolve().parents[2]


class BigQueryServer:
    """`python -m cluster.embedded` over one data dir."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self._log = folder / "server.log"
        self._ports = ("0", "0")
        self.rest = self.grpc = ""
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start it, on the ports of the start before if there was one, and wait until it answers."""
        address = self.data_dir / "address.json"
        address.unlink(missing_ok=True)
        port, grpc_port = self._ports
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "cluster.embedded", "--project", "local"),
                    *("--data-dir", str(self.data_dir), "--port", port, "--grpc-port", grpc_port),
                ],
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + START_WITHIN_S
        while not address.exists():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the embedded BigQuery did not start:\n{self._log.read_text()}")
            time.sleep(0.02)
        said = json.loads(address.read_text())
        self.rest, self.grpc = said["rest"], said["grpc"]
        self._ports = (self.rest.rpartition(":")[2], self.grpc.rpartition(":")[2])

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)

    @contextmanager
    def kept_up(self) -> Iterator[None]:
        """Start it again whenever it dies: under many writers DuckLake has been seen to crash (SIGSEGV)."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.1):
                if self.process.poll() is not None:
                    self.start()

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that takes too long."""
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()

"""A local stack for one benchmark, with a home of its own that goes with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import processes, services

ROOT = Path(__file__).resolve().parents[1]
MANTA = str(Path(sys.executable).with_name("manta"))


def up() -> None:
    """Start what is not running in the home that the environment names."""
    subprocess.run([MANTA, "up", "--ports", "free", "--cpus", "2"], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def stack(**environ: str) -> Iterator[Path]:
    """Embedded BigQuery, Ray (2 CPUs) and the API until the block ends; the environment names its home."""
    home = Path(tempfile.mkdtemp(prefix="manta-bench-"))
    os.environ.update({"MANTA_ENV": "local", "MANTA_ROOT": str(ROOT), "MANTA_HOME": str(home), **environ})
    try:
        up()
        yield home
    finally:
        subprocess.run([MANTA, "down"], check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(home, ignore_errors=True)


def supervisor_pid(home: Path) -> int:
    """The supervisor's process."""
    for process in processes.belonging(processes.look(services.running(home)["ray"].pid), ""):
        title = (processes.PROC / str(process.pid) / "cmdline").read_bytes()
        if title.startswith(b"ray::Supervisor"):
            return process.pid
    raise SystemExit("there is no supervisor")

"""What the operating system knows of our child processes: who lives, who belongs to whom, how to end them.

Read from /proc, because a pid alone says nothing: it is given out again. A process is its pid and the tick
at which it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
LOOPBACK = "127.0.0.1"
POLL_S = 0.05
#: How long a leader's family may outlive it before it is killed.
ORPHANS_END_WITHIN_S = 2.0
#: A killed process is gone at once, unless the kernel holds it; then waiting longer does not help.
KILL_WITHIN_S = 5.0
#: In the environment of every process a home starts, and by inheritance of whatever those start.
MARK = "MANTA_STACK"

_spawned: set[int] = set()


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the machine."""

    pid: int
    parent: int
    session: int
    started_ticks: int


def look(pid: int) -> Process | None:
    """The process with this pid, or None when there is none or only its zombie is left."""
    if pid in _spawned:
        # A child that has ended stays a zombie until its exit code is asked for. Only of those from spawn():
        # asking for another's would take it away from the code that waits for it.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name in parentheses may itself hold spaces and parentheses; after the last one, fields are plain.
    fields = text.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return Process(pid, parent=int(fields[1]), session=int(fields[3]), started_ticks=int(fields[19]))


def alive(pid: int, started_ticks: int) -> bool:
    """Whether the process that was started at that tick still runs under this pid."""
    found = look(pid)
    return found is not None and found.started_ticks == started_ticks


def every() -> list[Process]:
    """All processes there are now."""
    return [found for pid in _pids() if (found := look(pid)) is not None]


def belonging(leader: Process | None, mark: str) -> list[Process]:
    """The leader, its descendants, its session, and whoever carries the mark in the environment.

    All four, since each misses some: a worker that made a session of its own, a grandchild whose parent
    died, a process that rewrote its title (and with it the environment that /proc shows). Without a leader
    only the mark counts. This process and its ancestors are never among them, whatever else is said.
    """
    now = every()
    ours = _ancestors(now) | {0, 1}
    inside: set[int] = set()
    session = -1
    # A leader that is one of our ancestors, or none of ours at all, has a family that is the whole machine.
    if leader is not None and leader.pid not in ours:
        session = leader.pid
        inside = {leader.pid}
        # Parents are not always listed before their children: repeat until nobody new is found.
        while found := {p.pid for p in now if p.parent in inside and p.pid not in inside}:
            inside |= found
    return [
        p
        for p in now
        if p.pid not in ours and (p.pid in inside or p.session == session or marked(p.pid, mark))
    ]


def marked(pid: int, mark: str) -> bool:
    """Whether the process was started with this mark."""
    try:
        environment = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    return f"{MARK}={mark}".encode() in environment.split(b"\0")


def spawn(
    command: list[str], *, home: Path, mark: str, output: Path, log: Path, env: Mapping[str, str]
) -> int:
    """Start a process in a session of its own, so that neither Ctrl-C nor a closed terminal reaches it."""
    with output.open("ab") as out, log.open("ab") as err:
        child = subprocess.Popen(
            command,
            cwd=home,
            env={**env, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    # It outlives this object on purpose; the object's only other use is a warning that it does.
    child.returncode = 0
    _spawned.add(child.pid)
    return child.pid


def end(leader: Process | None, mark: str, *, patience_s: float) -> list[Process]:
    """Ask the leader to end, wait for all that belongs to it, kill what is left; say who would not die."""
    members = belonging(leader, mark)
    _send([p for p in members if p == leader], signal.SIGTERM)
    until = time.monotonic() + patience_s
    while (living := _living(members)) and time.monotonic() < until:
        if leader not in living:
            # It was the one that had been asked; nobody tells the others any more.
            until = min(until, time.monotonic() + ORPHANS_END_WITHIN_S)
            leader = None
        time.sleep(POLL_S)
    until = time.monotonic() + KILL_WITHIN_S
    while time.monotonic() < until:
        # Looked for anew: what was started after the first look belongs to it as well. The leader's family
        # counts only while the leader lives, since its pid may be given out again.
        there = leader if leader is not None and alive(leader.pid, leader.started_ticks) else None
        members = _living({*members, *belonging(there, mark)})
        if not members:
            break
        _send(members, signal.SIGKILL)
        time.sleep(POLL_S)
    return _living(members)


def free_ports(count: int) -> list[int]:
    """As many different free ports of loopback; all held until the last is known."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of loopback now."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def environment() -> dict[str, str]:
    """This process's environment, with the checkout (if this is one) where a child finds our packages."""
    root = Path(__file__).resolve().parents[1]
    env = dict(os.environ)
    if (root / "pyproject.toml").is_file():
        paths = [str(root), *filter(None, [env.get("PYTHONPATH")])]
        env["PYTHONPATH"] = os.pathsep.join(paths)
    return env


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules; -P, so that nothing in the working directory shadows it."""
    return [sys.executable, "-P", "-m", name, *arguments]


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal()]


def _ancestors(now: Iterable[Process]) -> set[int]:
    """This process, its parent, and so on up."""
    parents = {p.pid: p.parent for p in now}
    line, pid = set(), os.getpid()
    while pid and pid not in line:
        line.add(pid)
        pid = parents.get(pid, 0)
    return line


def _living(members: Iterable[Process]) -> list[Process]:
    return [p for p in members if alive(p.pid, p.started_ticks)]


def _send(members: Iterable[Process], number: signal.Signals) -> None:
    for one in _living(members):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, number)

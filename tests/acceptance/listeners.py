"""Where processes listen, as the kernel says."""

from __future__ import annotations

from pathlib import Path


def listening_elsewhere(pids: set[int]) -> set[str]:
    """The addresses, loopback apart, on which these processes listen."""
    inodes = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(str(entry.readlink()))
            except OSError:
                continue
    lines = [
        line.split() for t in ("tcp", "tcp6") for line in Path(f"/proc/net/{t}").read_text().splitlines()[1:]
    ]
    loopback = ("0100007F:", "0000000000000000FFFF00000100007F:")
    ours = {f[1] for f in lines if f[3] == "0A" and f"socket:[{f[9]}]" in inodes}
    assert ours
    return {address for address in ours if not address.startswith(loopback)}

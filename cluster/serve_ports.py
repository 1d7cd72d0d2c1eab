"""Where Ray Serve's replicas listen for one another.

Serve binds that port to every interface and unpickles whatever arrives there, so on a machine that is its
own cluster it would let anyone on the network run code (ray 2.60, serve/_private/replica.py). A node on
loopback has nobody else to talk to; elsewhere Ray's own TLS (RAY_USE_TLS) guards it, see docs/local-stack.md.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.serve._private import replica

from engine.settings import is_loopback

EVERYWHERE = "[::]:"
BIND = "add_port_to_grpc_server"


def keep_on_loopback() -> None:
    """To be called in a replica before it serves: on a loopback node its port listens on loopback only."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    if not is_loopback(address):
        return
    module = vars(replica)
    bind = module[BIND]

    def bind_here(server: Any, where: str) -> Any:
        return bind(server, where.replace(EVERYWHERE, f"{address}:"))

    module[BIND] = bind_here

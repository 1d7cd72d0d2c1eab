"""Starting the sandbox: real sockets on loopback, in this process, behind one shared state."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from threading import Thread

import uvicorn
from starlette.applications import Starlette

from sandbox import anthropic, control, gcp, openai, rest
from sandbox.state import State

START_S = 10.0
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox: URLs as the official SDKs want them, and its live state."""

    openai_url: str
    anthropic_url: str
    control_url: str
    gcp_url: str
    rest_url: str
    state: State = field(repr=False)


def _listen(host: str, port: int) -> socket.socket:
    if not host.startswith("127.") and host != "localhost":
        # The control has no key: whoever reaches the port commands the sandbox.
        raise ValueError(f"the sandbox listens on loopback only, not on {host}")
    # asyncio turns Nagle's algorithm off only for sockets that name their protocol; with it every answer
    # waits 40 ms for the client's delayed ACK.
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((host, port))
    return held


def _server(app: Starlette) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        log_level="critical",
        access_log=False,
        lifespan="off",
        loop="asyncio",
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


@contextmanager
def running(
    *,
    seed: int = 1,
    scale: float = 1.0,
    style: str = "full",
    now: datetime | None = None,
    host: str = LOOPBACK,
    openai_port: int = 0,
    anthropic_port: int = 0,
    gcp_port: int = 0,
    rest_port: int = 0,
) -> Iterator[Sandbox]:
    """Run every provider in a thread until the block ends; port 0 takes a free one."""
    state = State(seed=seed, scale=scale, style=style)
    state.set_clock(now)
    routes = control.routes(state)
    sockets = [_listen(host, port) for port in (openai_port, anthropic_port, gcp_port, rest_port)]
    servers = [_server(vendor.app(state, routes)) for vendor in (openai, anthropic, gcp, rest)]

    async def serve() -> None:
        await asyncio.gather(*(server.serve([held]) for server, held in zip(servers, sockets, strict=True)))

    # Outside the main thread uvicorn leaves the signals alone.
    thread = Thread(target=lambda: asyncio.run(serve()), name="sandbox", daemon=True)
    thread.start()
    try:
        _await_started(servers, thread)
        first, second, third, fourth = (f"http://{host}:{held.getsockname()[1]}" for held in sockets)
        yield Sandbox(f"{first}/v1", second, f"{first}/_sandbox", third, fourth, state)
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(timeout=START_S)
        for held in sockets:
            held.close()


def _await_started(servers: list[uvicorn.Server], thread: Thread) -> None:
    deadline_s = time.monotonic() + START_S
    while not all(server.started for server in servers):
        if not thread.is_alive() or time.monotonic() > deadline_s:
            raise RuntimeError("the sandbox did not start listening")
        time.sleep(0.01)

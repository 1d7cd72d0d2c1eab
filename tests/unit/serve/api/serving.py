"""The API under uvicorn, on a free port of this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from serve.api import create_app
from serve.deps import Doors

WITHIN_S = 20.0


@contextmanager
def served(doors: Doors) -> Iterator[int]:
    """Run the API in a thread; gives its port."""
    config = uvicorn.Config(create_app(doors), host="127.0.0.1", port=0, log_level="warning", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + WITHIN_S
    while not server.started:
        assert time.monotonic() < until, "the API did not start"
        assert thread.is_alive(), "the API ended while it started"
        time.sleep(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(WITHIN_S)

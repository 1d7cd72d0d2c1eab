"""An asyncio server in a thread of its own, for as long as a block runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

START_S = 10.0

#: Starts a server, calls the first argument with what callers need of it, ends when the event is set.
type Main[T] = Callable[[Callable[[T], None], asyncio.Event], Coroutine[Any, Any, None]]


@contextmanager
def serving[T](main: Main[T], *, name: str) -> Iterator[T]:
    """Run `main` until the block ends; gives what `main` said when it was ready."""
    found: list[T] = []
    ready, loop, stop = Event(), asyncio.new_event_loop(), asyncio.Event()

    def said(value: T) -> None:
        found.append(value)
        ready.set()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main(said, stop))

    thread = Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        if not ready.wait(START_S):
            raise RuntimeError(f"{name} did not start listening")
        yield found[0]
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
            thread.join(START_S)

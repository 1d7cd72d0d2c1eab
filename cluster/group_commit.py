"""Appends of many callers in one request: under load the record costs each of them a share of one append."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: Rows of one request; far below the 10 MB that an append takes.
MOST = 500


class GroupCommit[T]:
    """While one append is under way, what comes in meanwhile waits and goes together in the next.

    `append` blocks and puts all items on record or none.
    """

    def __init__(self, append: Callable[[list[T]], None]) -> None:
        self._append = append
        self._waiting: list[tuple[T, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def put(self, item: T) -> None:
        """Return when the item is on record. Raises what `append` raises."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await done

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            try:
                await asyncio.to_thread(self._append, [item for item, _ in batch])
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the callers' answer
                for _, done in batch:
                    if not done.cancelled():
                        done.set_exception(error)
            else:
                for _, done in batch:
                    if not done.cancelled():
                        done.set_result(None)

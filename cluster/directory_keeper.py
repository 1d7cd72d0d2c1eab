"""One current copy of the directory for the whole cluster, read again while somebody needs it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from engine.directory import Directory, OrgEntry
from engine.errors import NotFoundError

#: Two misses within this many seconds cost one reading: somebody is guessing, or just added an organisation.
AT_MOST_EVERY_S = 1.0
#: A reading takes about as long.
READING_S = 1.0
#: So much older than it should be, and a copy is waited for.
OLD_S = 60.0


class DirectoryKeeper:
    """`read` blocks and answers with the directory as the warehouse has it now.

    Read again when a copy is older than `refresh_s` and somebody asks: nobody asking costs nothing.
    """

    def __init__(
        self,
        read: Callable[[], Directory],
        *,
        refresh_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._clock = clock
        self._refresh_s = refresh_s
        self._current: Directory | None = None
        self._read_at = -float("inf")
        self._reading: asyncio.Task[Directory] | None = None
        self._changed = asyncio.Event()

    async def get(self) -> Directory:
        """The copy at hand; when a new one is due that is read meanwhile, and nobody waits for it.

        Only for one that is far too old. Raises TransientError when the warehouse has been away for that
        long: whoever keeps a copy must not take the silence for a confirmation.
        """
        if self._current is None:
            return await self.refresh()
        age_s = self._clock() - self._read_at
        if age_s > self._refresh_s + OLD_S:
            return await self.refresh()
        if age_s > self._refresh_s and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read_once())
            # Asked for by nobody in particular: its failure shows in the copy's age.
            self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._current

    async def org(self, slug: str) -> OrgEntry:
        """An organisation; one that was added a moment ago is found. Raises NotFoundError."""
        directory = await self.get()
        if slug not in directory.orgs and self._clock() - self._read_at > AT_MOST_EVERY_S:
            directory = await self.refresh()
        if slug not in directory.orgs:
            raise NotFoundError(
                f"There is no organisation {slug!r}.", fix=f"Add it: manta org add {slug}", field="org_slug"
            )
        return directory.orgs[slug]

    async def refresh(self) -> Directory:
        """Read it anew. A reading that began before the call does not count: it may lack the change."""
        if self._reading is not None:
            await asyncio.wait({self._reading})
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_once())
        return await asyncio.shield(self._reading)

    async def changed(self, known: str | None, *, wait_s: float) -> Directory | None:
        """The directory when its version is not `known`; waits for a change."""
        directory = await self.get()
        if directory.version != known:
            return directory
        # The next reading is due at the latest then, and is begun by whoever asks.
        due_s = self._refresh_s - (self._clock() - self._read_at)
        try:
            async with asyncio.timeout(min(wait_s, due_s if due_s > 0 else READING_S)):
                await self._changed.wait()
        except TimeoutError:
            return None
        return self._current

    async def _read_once(self) -> Directory:
        began = self._clock()
        directory = await asyncio.to_thread(self._read)
        before, self._current, self._read_at = self._current, directory, began
        if before is None or before.version != directory.version:
            self._changed.set()
            self._changed = asyncio.Event()
        return directory

"""What handlers are given: the doors of this replica, and the directory that it keeps at hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from time import monotonic
from typing import Annotated, Any, Protocol, cast

from fastapi import Depends, Request

from engine.audit import Audit
from engine.audit_log import AuditLog
from engine.authentication import Authenticator
from engine.directory import Directory
from engine.errors import MantaError, NotFoundError, TransientError
from engine.log import Log
from engine.quota import Usage
from engine.request_limits import Admission
from engine.runs import Origin, Progress, Run
from engine.settings import Settings
from engine.types import Discovery, RunRequest
from engine.workplace import Workplace

#: A directory that nobody confirmed for this long is believed no more: a key may have been revoked.
OLDEST_S = 600.0
LOOK_AGAIN_S = 1.0
PAUSE_S = 1.0
FIRST_S = 10.0


class Cluster(Protocol):
    """The actors that decide once for all replicas; every method raises MantaError as it was raised there."""

    async def accept(self, request: RunRequest, origin: Origin) -> tuple[Run, bool]: ...
    async def discover(self, request: RunRequest) -> Discovery | None: ...
    async def progress(self, run_ids: Sequence[str]) -> list[Progress]: ...
    async def cancel(self, org: str, run_id: str, *, audit: Audit) -> Run: ...
    async def take(self, policy: str, key: str) -> Admission: ...
    async def directory(self, known: str | None) -> Directory | None: ...
    async def refresh_directory(self) -> str: ...
    async def usage(self, org: str) -> Usage: ...
    async def health(self) -> dict[str, int]: ...


class DirectoryHolder:
    """The last good copy of the directory, kept current by asking the cluster for a newer one all along."""

    def __init__(self, cluster: Cluster, *, log: Log, clock: Callable[[], float] = monotonic) -> None:
        self._cluster = cluster
        self._log = log
        self._clock = clock
        self._copy: Directory | None = None
        self._confirmed = -OLDEST_S
        self._looked = -LOOK_AGAIN_S
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._first = asyncio.Event()

    @property
    def age_s(self) -> float:
        """Seconds since the copy was confirmed."""
        return self._clock() - self._confirmed

    def current(self) -> Directory:
        """The copy. Raises TransientError when there is none, or none that is young enough."""
        if self._copy is None or self.age_s > OLDEST_S:
            raise TransientError(
                "Keys and organisations cannot be looked up at the moment.",
                fix="Try again; /health/ready says what is wrong.",
            )
        return self._copy

    async def start(self) -> None:
        """Begin to follow the cluster's copy; returns with the first one, or without it after FIRST_S."""
        self._task = asyncio.create_task(self._follow())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_S):
                await self._first.wait()

    async def stop(self) -> None:
        """Follow no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def look_again(self) -> Directory:
        """Have it read anew, once a second at most: whoever asks meanwhile waits for the next reading.

        What was added a moment ago is found, and guessing costs nothing. While nothing can be read the copy
        at hand answers.
        """
        asked = self._clock()
        async with self._looking:
            # Whoever waited here has been served, if the one before began its reading after the question.
            if self._looked < asked:
                await asyncio.sleep(max(0.0, LOOK_AGAIN_S - (asked - self._looked)))
                self._looked = self._clock()
                await self.renew()
        return self.current()

    async def renew(self) -> None:
        """Have it read anew now, after a change; a failure leaves that to the next regular look."""
        try:
            version = await self._cluster.refresh_directory()
            if self._copy is None or version != self._copy.version:
                self._take(await self._cluster.directory(self._copy.version if self._copy else None))
        except MantaError as error:
            self._log.warning("directory.renew", error=error)

    async def _follow(self) -> None:
        while True:
            try:
                self._take(await self._cluster.directory(self._copy.version if self._copy else None))
            except Exception as error:  # noqa: BLE001  (should this loop end, keys would grow old unseen)
                self._log.warning("directory.follow", error=error)
                await asyncio.sleep(PAUSE_S)

    def _take(self, found: Directory | None) -> None:
        self._confirmed = self._clock()
        self._copy = found or self._copy
        self._first.set()


@dataclass
class Doors:
    """Everything a replica reaches the world through. `now` is aware UTC, `clock` monotonic seconds."""

    settings: Settings
    cluster: Cluster
    work: Workplace
    authenticator: Authenticator
    audit: AuditLog
    log: Log
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    clock: Callable[[], float] = monotonic
    version: str = ""
    #: A proxy in front answers with the request's id by itself.
    proxied: bool = False
    #: (organisation, key id, mac) of keys whose hash key is at hand: checking them again takes no thread.
    warm_keys: set[tuple[str, str, str]] = field(default_factory=set)
    #: Addresses that failed too often, and until when (monotonic seconds).
    blocked: dict[str, float] = field(default_factory=dict)

    @cached_property
    def directory(self) -> DirectoryHolder:
        """Organisations, keys and limits."""
        return DirectoryHolder(self.cluster, log=self.log, clock=self.clock)

    async def known_org(self, org: str) -> None:
        """Raise NotFoundError for an organisation that is not there."""
        if org in self.directory.current().orgs or org in (await self.directory.look_again()).orgs:
            return
        raise NotFoundError(
            f"There is no organisation {org!r}.",
            fix=f"Add it with POST /api/v1/organizations, or: manta org add {org}",
        )


def doors_of(request: Request) -> Doors:
    """The doors of the running app."""
    return cast("Doors", request.app.state.doors)


async def _doors(request: Request) -> Any:
    return doors_of(request)


DoorsDep = Annotated[Doors, Depends(_doors)]

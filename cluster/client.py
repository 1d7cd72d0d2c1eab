"""The actors as other processes of the cluster reach them, errors as they were raised."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from ray import exceptions as ray_errors

from cluster.coordinator import coordinator
from cluster.supervisor import supervisor
from engine.audit import Audit
from engine.directory import Directory
from engine.errors import MantaError, TransientError
from engine.quota import Usage
from engine.request_limits import Admission
from engine.runs import Origin, Progress, Run
from engine.settings import Settings
from engine.types import Discovery, RunRequest

#: A web request waits no longer than this for an actor; its caller may ask again.
WITHIN_S = 25.0
QUICK_S = 5.0
#: Asking a source goes to another service.
DISCOVER_S = 120.0


class Cluster:
    """Coordinator and supervisor, started when there are none; this process has joined their cluster."""

    def __init__(self, settings: Settings) -> None:
        self._supervisor: Any = supervisor(settings)
        self._coordinator: Any = coordinator(settings)

    async def accept(self, request: RunRequest, origin: Origin) -> tuple[Run, bool]:
        """Put a run on record; see `Coordinator.accept`."""
        answer: tuple[Run, bool] = await _answer(self._coordinator.accept.remote(request, origin))
        return answer

    async def progress(self, run_ids: Sequence[str]) -> list[Progress]:
        """How runs stand; see `Supervisor.progress`."""
        answer: list[Progress] = await _answer(self._supervisor.progress.remote(list(run_ids)))
        return answer

    async def discover(self, request: RunRequest) -> Discovery | None:
        """What changed at a pipeline's source; see `Supervisor.discover`."""
        answer: Discovery | None = await _answer(
            self._supervisor.discover.remote(request), within_s=DISCOVER_S
        )
        return answer

    async def cancel(self, org: str, run_id: str, *, audit: Audit) -> Run:
        """Stop a run; see `Supervisor.cancel`."""
        answer: Run = await _answer(self._supervisor.cancel.remote(org, run_id, audit=audit))
        return answer

    async def take(self, policy: str, key: str) -> Admission:
        """Count one request; see `Coordinator.take`."""
        answer: Admission = await _answer(self._coordinator.take.remote(policy, key), within_s=QUICK_S)
        return answer

    async def directory(self, known: str | None) -> Directory | None:
        """The directory when it has changed; see `Coordinator.directory`."""
        answer: Directory | None = await _answer(self._coordinator.directory.remote(known))
        return answer

    async def refresh_directory(self) -> str:
        """Read the directory anew; see `Coordinator.refresh_directory`."""
        return str(await _answer(self._coordinator.refresh_directory.remote()))

    async def usage(self, org: str) -> Usage:
        """What an organisation has used; see `Coordinator.usage`."""
        answer: Usage = await _answer(self._coordinator.usage.remote(org))
        return answer

    async def health(self, *, within_s: float = QUICK_S) -> dict[str, int]:
        """The coordinator's numbers, once the supervisor has answered as well."""
        await _answer(self._supervisor.progress.remote([]), within_s=within_s)
        return dict(await _answer(self._coordinator.health.remote(), within_s=within_s))


async def _answer(ref: Any, *, within_s: float = WITHIN_S) -> Any:
    try:
        async with asyncio.timeout(within_s):
            # Shielded: a request that is given up must not take back what it has asked for.
            return await asyncio.shield(_awaited(ref))
    except (ray_errors.RayError, TimeoutError) as error:
        raise _mapped(error) from None


async def _awaited(ref: Any) -> Any:
    return await ref


def _mapped(error: Exception) -> Exception:
    if isinstance(error, ray_errors.RayTaskError):
        return error.cause if isinstance(error.cause, MantaError) else error
    return TransientError(
        f"The coordinator or the supervisor does not answer ({type(error).__name__}).",
        fix="See `manta status` and the Ray dashboard; runs go on from the warehouse.",
        retry_after=timedelta(seconds=5),
    )

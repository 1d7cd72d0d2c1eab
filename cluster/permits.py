"""Rate permits that hold across the cluster: the coordinator's buckets behind the processors' `Permits`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from engine.limits import reading


class ClusterPermits:
    """Permits of one (provider, credential), shared by every task of the cluster."""

    def __init__(self, coordinator: Any, provider: str, credential: str) -> None:
        self._coordinator = coordinator
        self._provider = provider
        self._credential = credential

    async def take(self) -> None:
        """Wait until one more call may start."""
        # Asked again after each sleep: another task may have been refused meanwhile.
        while (wait_s := await self._coordinator.rate_wait.remote(self._provider, self._credential)) > 0:  # noqa: ASYNC110
            await asyncio.sleep(wait_s)

    def learn(self, status: int, headers: Mapping[str, str]) -> None:
        """Pass on what an answer says, when it says something."""
        said = reading(status, headers, now=datetime.now(UTC))
        if not said.silent:
            self._coordinator.rate_learn.remote(self._provider, self._credential, said)

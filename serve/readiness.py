"""Whether this replica can do its work: what is checked, what is wrong, what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from engine.errors import MantaError
from engine.foreign import mapped
from engine.warehouse import NO_RETRY
from serve.deps import OLDEST_S, Doors

KEPT_S = 5.0
#: Opening the vault may be a paid call to Cloud KMS.
VAULT_KEPT_S = 60.0
WITHIN_S = 8.0
STALE_S = 60.0


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `problem` and `fix` are empty when it is well."""

    name: str
    status: str
    problem: str = ""
    fix: str = ""


@dataclass
class Readiness:
    """Looks at everything at most every KEPT_S seconds, once for all who ask meanwhile."""

    doors: Doors
    #: The cluster's, as of the last look; empty while it does not answer.
    numbers: dict[str, int] = field(default_factory=dict)
    _found: tuple[Check, ...] = ()
    _looked: float = float("-inf")
    _vault: Check | None = None
    _vault_looked: float = float("-inf")
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def checks(self) -> tuple[Check, ...]:
        """What was found, at most KEPT_S old."""
        async with self._looking:
            if self.doors.clock() - self._looked > KEPT_S:
                self._found = tuple(
                    await asyncio.gather(
                        self._look("warehouse", lambda: asyncio.to_thread(_warehouse, self.doors)),
                        self._look("cluster", self._cluster),
                        self._key_store(),
                        self._look("directory", lambda: _directory(self.doors)),
                    )
                )
                self._looked = self.doors.clock()
            return self._found

    async def _cluster(self) -> None:
        self.numbers = {}
        self.numbers = await self.doors.cluster.health()

    async def _key_store(self) -> Check:
        if self._vault is None or self.doors.clock() - self._vault_looked > VAULT_KEPT_S:
            found = await self._look("key_store", lambda: asyncio.to_thread(_vault, self.doors))
            if found.status != "ok":
                return found
            self._vault, self._vault_looked = found, self.doors.clock()
        return self._vault

    async def _look(self, name: str, look: Callable[[], Awaitable[object]]) -> Check:
        try:
            async with asyncio.timeout(WITHIN_S):
                await look()
        except MantaError as error:
            self.doors.log.warning("health.red", check=name, error=error)
            return Check(name, "failed", error.message, error.fix)
        except TimeoutError:
            return Check(name, "failed", f"No answer within {WITHIN_S:.0f} s.", "See whether it is up.")
        return Check(name, "ok")


def _warehouse(doors: Doors) -> None:
    settings = doors.settings
    with mapped("Asking the warehouse"):
        # Costs nothing, unlike any statement.
        doors.work.clients.bigquery.get_dataset(
            f"{settings.bigquery_project}.{settings.meta_dataset}", retry=NO_RETRY, timeout=WITHIN_S
        )


async def _directory(doors: Doors) -> None:
    doors.directory.current()
    if doors.directory.age_s > STALE_S:
        raise MantaError(
            f"Keys and organisations were last confirmed {doors.directory.age_s:.0f} s ago; at "
            f"{OLDEST_S:.0f} s requests are refused.",
            fix="See whether the coordinator and the warehouse are up.",
        )


def _vault(doors: Doors) -> None:
    vault = doors.work.vault
    sealed = vault.seal("ready", org="-", provider="health", credential_id="ready")
    vault.open(sealed, org="-", provider="health", credential_id="ready")

"""What a command is given: environment, streams, clock, and doors that open when they are first used."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TextIO, cast
from urllib.parse import urlsplit

from rich.console import Console

if TYPE_CHECKING:
    import typer

    from engine.audit import Audit
    from engine.runs import Progress, Run
    from engine.settings import Settings
    from engine.types import Discovery, RunRequest
    from engine.workplace import Workplace

WIDE = 400
CONNECT_S = 2.0
#: On top of DIRECTORY_REFRESH_SECONDS, for the way from the coordinator to the replicas.
REFRESH_SLACK_S = 5


class RunDoor(Protocol):
    """Runs, as a terminal sees them."""

    def submit(
        self, request: RunRequest, *, trigger_by: str, idempotency_key: str | None = None
    ) -> tuple[Run, bool]: ...
    def discover(self, request: RunRequest) -> Discovery: ...
    def progress(self, run_ids: Sequence[str]) -> list[Progress]: ...
    def cancel(self, org: str, run_id: str) -> Run: ...
    def health(self) -> Mapping[str, int]: ...


# The doors below import inside functions: `manta --help` must not wait for Ray, Polars and Google's clients.
def _load(environ: Mapping[str, str]) -> Settings:
    from engine.settings import Settings

    return Settings.load(environ)


def _workplace(settings: Settings) -> Workplace:
    from engine.settings import check_start
    from engine.workplace import open_workplace

    check_start(settings)
    _refuse_dead("The embedded BigQuery", settings.bigquery_emulator_host)
    return open_workplace(settings)


def _refuse_dead(what: str, address: str | None) -> None:
    """A local service that is not there is said at once; clients would wait for it for minutes.

    Raises TransientError.
    """
    from engine.errors import TransientError
    from engine.settings import is_loopback

    if address is None or not is_loopback(address):
        return
    parts = urlsplit(address if "//" in address else f"//{address}")
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=CONNECT_S).close()
    except OSError as error:
        raise TransientError(
            f"{what} at {address} does not answer ({error.strerror or type(error).__name__}).",
            fix="See `manta status`; `manta up` (or `manta demo`) starts it again.",
        ) from error


def _api(settings: Settings, environ: Mapping[str, str]) -> RunDoor:
    from engine.errors import TransientError
    from serve.cli.http_runs import HttpRuns, headers_of

    if settings.manta_api_url is None:
        raise TransientError(
            "No API of this installation is known.", fix="Run `manta up`, or set MANTA_API_URL."
        )
    # The API's own errors say less, and later, when what it stands on is gone.
    _refuse_dead("The Ray cluster", settings.ray_address)
    _refuse_dead("The API", settings.manta_api_url)
    headers = headers_of(settings, org_key=environ.get("ORG_API_KEY"))
    # Addresses given with this call are for its runs; an organisation's key may not choose any.
    given = {name: url for name, url in environ.items() if name.endswith("_BASE_URL") and url}
    known = {name for name in given if name.lower() in type(settings).model_fields}
    endpoints = {} if "X-API-Key" in headers else {name: given[name] for name in sorted(known)}
    return HttpRuns(settings.manta_api_url, headers=headers, endpoints=endpoints)


@dataclass
class Desk:
    """One call of `manta`. Tests hand in their own streams, clock and doors."""

    environ: Mapping[str, str]
    stdin: TextIO
    out: Console
    err: Console
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep
    load: Callable[[Mapping[str, str]], Settings] = _load
    open: Callable[[Settings], Workplace] = _workplace
    join: Callable[[Settings, Mapping[str, str]], RunDoor] = _api
    warned: set[str] = field(default_factory=set)

    @cached_property
    def settings(self) -> Settings:
        """The settings of this call; what they leave aside is said once."""
        settings = self.load(self.environ)
        for warning in settings.warnings:
            if warning not in self.warned:
                self.err.print(f"manta: {warning}", markup=False, highlight=False)
                self.warned.add(warning)
        return settings

    @cached_property
    def work(self) -> Workplace:
        """Catalog, warehouse, tenants and history."""
        return self.open(self.settings)

    @cached_property
    def runs(self) -> RunDoor:
        """Where runs are submitted and followed."""
        return self.join(self.settings, self.environ)

    def at(self, environ: Mapping[str, str]) -> Desk:
        """The same desk with another environment: the demo's own, or one that has just been started."""
        return Desk(
            environ,
            self.stdin,
            self.out,
            self.err,
            self.now,
            self.sleep,
            self.load,
            self.open,
            self.join,
            self.warned,
        )

    @property
    def who(self) -> str:
        """Who runs this, for the run's record."""
        return self.environ.get("USER") or self.environ.get("LOGNAME") or "command line"

    def audit(
        self,
        org: str,
        action: str,
        resource_type: str,
        resource_id: str | None = None,
        *,
        detail: str | None = None,
    ) -> Audit:
        """What goes on record about a change that this call makes."""
        from engine.audit import Audit

        return Audit(org, action, f"cli:{self.who}", resource_type, resource_id, detail=detail)

    @property
    def in_force(self) -> str:
        """By when the API knows of a change of keys, limits and organisations made here."""
        return f"within {self.settings.directory_refresh_seconds + REFRESH_SLACK_S} seconds"


def terminal_desk() -> Desk:
    """The desk of a real call."""
    return Desk(environ=dict(os.environ), stdin=sys.stdin, out=console(sys.stdout), err=console(sys.stderr))


class Terminal(Console):
    """A console that leaves a closed pipe to `main.run`: Rich's own would end the process with code 1."""

    def on_broken_pipe(self) -> None:
        """Raise again what Rich is handling."""
        raise BrokenPipeError


def console(stream: TextIO) -> Console:
    """A console that fits the terminal; into a file or pipe nothing is cut or wrapped."""
    return Terminal(
        file=stream, width=None if stream.isatty() else WIDE, highlight=False, soft_wrap=not stream.isatty()
    )


def desk_of(context: typer.Context) -> Desk:
    """The desk of the running command."""
    return cast("Desk", context.obj)

"""The run API under Ray Serve: replicas that keep nothing, in front of actors that outlive them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from ray import serve as ray_serve

from cluster.client import Cluster
from cluster.serve_ports import keep_on_loopback
from engine.audit_log import REQUESTS, AuditLog
from engine.authentication import Authenticator
from engine.log import JsonLog
from engine.settings import Settings
from engine.workplace import open_workplace
from serve.api import create_app
from serve.deps import Doors

NAME = "manta"
#: Requests in one replica at once; more wait in the proxy, and beyond that are refused.
ONGOING = 200
QUEUED = 1000
#: A client that sends its body slower than this is let go; no handler of ours takes as long.
REQUEST_TIMEOUT_S = 60.0
KEEP_ALIVE_S = 65


@ray_serve.deployment
@ray_serve.ingress()
class RunApi:
    """One replica. It holds no secret but what the vault opens, and nothing that dies with it."""

    def __init__(self, settings: Settings, root_hashes: Sequence[str]) -> None:
        keep_on_loopback()
        work = open_workplace(settings)
        # Read now: a replica whose configs are wrong must not come up.
        _ = work.catalog
        self._doors = Doors(
            settings=settings,
            cluster=Cluster(settings),
            work=work,
            authenticator=Authenticator(work.vault, root_hashes),
            audit=AuditLog(lambda rows: work.central.append(REQUESTS, rows)),
            log=JsonLog(sys.stdout.write, now=lambda: datetime.now(UTC)),
            version=_version(),
            proxied=True,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._doors)


def build(settings: Settings, root_hashes: Sequence[str]) -> ray_serve.Application:
    """The application to deploy; `root_hashes` come from `engine.authentication.hash_root_key`."""
    made: ray_serve.Application = RunApi.options(  # type: ignore[attr-defined]
        num_replicas=settings.api_replicas,
        max_ongoing_requests=ONGOING,
        max_queued_requests=QUEUED,
        # A replica waits for others nearly all the time: it must not take a slot from the units.
        ray_actor_options={"num_cpus": 0},
        health_check_period_s=5,
        graceful_shutdown_timeout_s=10,
        # Our own line says more.
        logging_config={"enable_access_log": False},
    ).bind(settings.without_secrets(), tuple(root_hashes))
    return made


def deploy(settings: Settings, root_hashes: Sequence[str]) -> None:
    """Start the API, or replace the one that runs; returns when it answers.

    The caller has joined the cluster. Address and port are those of the first start.
    """
    # Whoever calls says in its own words what is up.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    ray_serve.start(
        http_options={
            "host": settings.api_host,
            "port": settings.api_port,
            "request_timeout_s": REQUEST_TIMEOUT_S,
            "keep_alive_timeout_s": KEEP_ALIVE_S,
        }
    )
    ray_serve.run(build(settings, root_hashes), name=NAME, route_prefix="/")


def stop() -> None:
    """Take the API down; runs go on."""
    ray_serve.shutdown()  # type: ignore[no-untyped-call]


def _version() -> str:
    try:
        return version("manta")
    except PackageNotFoundError:
        return "0"

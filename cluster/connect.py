"""Joining the Ray cluster that the settings name."""

from __future__ import annotations

import logging
import os
from typing import Any

import ray
from ray.actor import ActorHandle

from cluster.ray_node import prepare_client
from engine.errors import ConfigurationError, TransientError
from engine.settings import Settings, is_loopback

NAMESPACE = "manta"
# Workers may be spot machines; what every run depends on stays where the cluster's own services are.
ON_THE_HEAD = {"node:__internal_head__": 0.001}


def connect(settings: Settings) -> None:
    """Join the cluster; a second call in one process does nothing.

    Raises ConfigurationError when the settings name none, TransientError when it does not answer.
    """
    if ray.is_initialized():
        return
    if not settings.ray_address:
        raise ConfigurationError("No Ray cluster is running.", fix="Run `manta up`.", field="RAY_ADDRESS")
    if is_loopback(settings.ray_address):
        prepare_client(settings.home)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address=settings.ray_address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except (ConnectionError, RuntimeError) as error:
        raise TransientError(
            f"The Ray cluster at {settings.ray_address} does not answer: {error}",
            fix="See `manta status`; `manta up` starts the local one again.",
        ) from error


def cluster_cpus() -> float:
    """CPUs of all nodes that are up."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources.get("CPU", 1.0)


def standing[T](kind: type[T], name: str, *arguments: object, **options: object) -> ActorHandle[T]:
    """The cluster's one actor of that name, started when there is none: detached, on the head, restarted.

    Calls are repeated when it dies, so its methods bear being called twice.
    """
    actor: Any = ray.remote(kind)
    handle: ActorHandle[T] = actor.options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        resources=ON_THE_HEAD,
        max_concurrency=1000,
        max_restarts=-1,
        max_task_retries=-1,
        **options,
    ).remote(*arguments)
    return handle

"""The supervisor as other processes reach it: plain calls, and its errors as they were raised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray import exceptions as ray_errors

from cluster.connect import connect
from cluster.coordinator import coordinator
from cluster.supervisor import Progress, supervisor
from engine.errors import MantaError, TransientError
from engine.runs import Run
from engine.settings import Settings
from engine.types import RunRequest

ANSWER_S = 180.0


class Client:
    """Joins the cluster that the settings name; its actors are started when there are none."""

    def __init__(self, settings: Settings) -> None:
        connect(settings)
        self._settings = settings.without_secrets()
        self._supervisor: Any = supervisor(settings)
        self._coordinator: Any = coordinator(settings)

    def submit(self, request: RunRequest, *, trigger_by: str, trigger_type: str = "cli") -> tuple[Run, bool]:
        """Start a run; returns it and whether it is new. Raises what the supervisor raises."""
        answer: tuple[Run, bool] = self._get(
            self._supervisor.submit.remote(
                request, self._settings, trigger_type=trigger_type, trigger_by=trigger_by
            )
        )
        return answer

    def progress(self, run_ids: Sequence[str]) -> list[Progress]:
        """How runs stand; those that no supervisor knows any more are left out."""
        answer: list[Progress] = self._get(self._supervisor.progress.remote(list(run_ids)))
        return answer

    def cancel(self, org: str, run_id: str) -> Run:
        """Stop a run. Raises NotFoundError, UsageError."""
        answer: Run = self._get(self._supervisor.cancel.remote(org, run_id))
        return answer

    def health(self) -> dict[str, int]:
        """The coordinator's numbers."""
        return dict(self._get(self._coordinator.health.remote()))

    def _get(self, ref: Any) -> Any:
        try:
            return ray.get(ref, timeout=ANSWER_S)
        except ray_errors.RayTaskError as error:
            if isinstance(error.cause, MantaError):
                raise error.cause from None
            raise
        except (ray_errors.RayActorError, ray_errors.GetTimeoutError) as error:
            raise TransientError(
                f"The supervisor does not answer ({type(error).__name__}).",
                fix="See `manta status` and the Ray dashboard; runs go on from the warehouse.",
            ) from error

"""An attempt at a unit as a Ray task, with Ray's own failures turned into outcomes."""

from __future__ import annotations

import ray
from ray import exceptions as ray_errors

from engine.errors import InternalError, MantaError, TransientError
from engine.types import Outcome, Unit


class RayAttempt:
    """Wraps the task's reference; see `cluster.driver.Attempt`."""

    def __init__(self, ref: ray.ObjectRef[Outcome], unit: Unit, attempt: int) -> None:
        self._ref = ref
        self._unit = unit
        self._attempt = attempt

    async def outcome(self) -> Outcome:
        """The task's answer, or what became of it."""
        try:
            answer: Outcome = await self._ref
            return answer
        except ray_errors.TaskCancelledError:
            return Outcome(unit=self._unit, attempt=self._attempt, status="cancelled")
        except ray_errors.RayError as error:
            return Outcome(
                unit=self._unit, attempt=self._attempt, status="failed", error=mapped(error, self._unit)
            )

    def cancel(self, *, force: bool) -> None:
        """Soft: an exception in the task; force: its worker is killed."""
        ray.cancel(self._ref, force=force)


def mapped(error: ray_errors.RayError, unit: Unit) -> MantaError:
    """What a failure of Ray's means for the unit."""
    if isinstance(error, ray_errors.OutOfMemoryError):
        return InternalError(
            f"{unit}: the node ran out of memory and Ray ended the task.",
            fix="Lower max_days_per_unit of the pipeline, or give the nodes more memory.",
        )
    if isinstance(error, (ray_errors.WorkerCrashedError, ray_errors.NodeDiedError)):
        return TransientError(f"{unit}: its worker died ({type(error).__name__}).", fix="It is tried again.")
    first_line = (str(error).strip().splitlines() or [""])[-1]
    return InternalError(
        f"{unit}: {type(error).__name__}: {first_line}", fix="See the task's log in the Ray dashboard."
    )

"""Pipelines as models: what a file under configs/ may say, and in which order its steps run."""

from __future__ import annotations

import difflib
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from engine.checks import Check
from engine.located import wrong
from engine.schedules import Schedule


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Retry(_Model):
    """Attempts within one step; between them a random wait of at most min(max, initial x 2^n) seconds."""

    #: Attempts in all.
    max_attempts: PositiveInt = 3
    #: The wait is random, up to this, doubled with each attempt.
    initial_delay_seconds: PositiveFloat = 1
    #: Longest wait; asked to wait longer, the step gives its slot back.
    max_delay_seconds: PositiveFloat = 60

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_delay_seconds < self.initial_delay_seconds:
            raise wrong(("max_delay_seconds",), "is below initial_delay_seconds", "make it at least as long")
        return self


class Step(_Model):
    """One call of a processor; `config` is rendered before it is handed over.

    Scope `partition` is once per unit, `run` once per run when all of its units are published.
    """

    #: Unique within the pipeline.
    step_id: str
    #: `openai.usage` is the module `processors/openai/usage.py`.
    ps_type: str
    #: What the processor is given, rendered; its keys are the processor's own (docs/processors.md).
    config: dict[str, Any] = Field(default_factory=dict)
    #: List of step ids that run before. Otherwise steps run in the file's order.
    depends_on: tuple[str, ...] = ()
    #: `partition` is once per unit; `run` is once per run and organisation, when all units are published.
    scope: Literal["partition", "run"] = "partition"
    #: For each attempt.
    timeout_seconds: PositiveFloat = 300
    #: For failures that may pass: timeouts, rate limits, server errors.
    retry: Retry = Retry()
    #: `stop` fails the unit once attempts are used up; `continue` goes on without the step's tables.
    on_failure: Literal["stop", "continue"] = "stop"


class PartitionRule(_Model):
    """How a range is cut into units, and how long a closed day is read again."""

    #: The only one.
    grain: Literal["day"] = "day"
    #: Days one unit covers at most: what one API call carries, and what one failure may cost.
    max_days_per_unit: PositiveInt = 1
    #: The fewest API calls that a unit takes for each `days_per_call` days, where it is not the provider's
    #: number; the plan counts calls with it.
    calls_per_window: PositiveInt | None = None
    #: Closed days that are read again because the provider still corrects them.
    restatement_days: NonNegativeInt = 0


class Output(_Model):
    """A table the pipeline publishes; without `schema` the schema has the table's name."""

    #: Table that a step returns under this name. One table is written by one pipeline only.
    table: str
    #: File under `configs/system/schemas/`, without `.yml`.
    schema_: str = Field(alias="schema")
    #: Must hold before anything is published.
    checks: tuple[Check, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _schema_is_the_table(cls, value: Any) -> Any:
        return {"schema": value["table"], **value} if isinstance(value, dict) and "table" in value else value


class Resources(_Model):
    """What one unit asks of the cluster; extraction waits for the network, hence a fraction of a CPU."""

    #: CPUs of one unit; extraction waits for the network, so a fraction.
    num_cpus: PositiveFloat = 0.25


class Pipeline(_Model):
    """One file under configs/. `path` comes from the file's place: "openai/cost/usage_cost"."""

    path: str
    #: Shown to people.
    name: str
    #: One sentence.
    description: str
    #: Key of `configs/system/providers.yml`: whose API is asked, with which credentials.
    provider: str
    #: How a range becomes units.
    partition: PartitionRule = PartitionRule()
    #: What a unit asks of the cluster.
    resources: Resources = Resources()
    #: Values for templates, `{{ variables.x }}`; a run may override them.
    variables: dict[str, str | bool | int | float | None] = Field(default_factory=dict)
    #: When runs of it are due; `manta schedule due` acts on it.
    schedule: Schedule | None = None
    #: A step that runs before planning and says which days changed at the source; with policy `missing` these
    #: are read again.
    discover: Step | None = None
    #: At least one.
    steps: tuple[Step, ...]
    #: Tables it publishes; only a pipeline whose steps all have scope `run` has none.
    outputs: tuple[Output, ...] = ()

    # Not by min_length: pydantic would add it to the problems of a list whose only entry is wrong.
    @field_validator("steps")
    @classmethod
    def _not_empty[T](cls, entries: tuple[T, ...]) -> tuple[T, ...]:
        if not entries:
            raise wrong((), "is empty", "list at least one")
        return entries

    @field_validator("steps")
    @classmethod
    def _steps_form_a_graph(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        ids = [step.step_id for step in steps]
        for n, step in enumerate(steps):
            if step.step_id in ids[:n]:
                raise wrong((n, "step_id"), f"{step.step_id!r} is used twice", "give each step its own id")
            for m, other in enumerate(step.depends_on):
                if other not in ids:
                    near = difflib.get_close_matches(other, ids, n=1) or ids
                    fix = f"name a step of this pipeline, such as {near[0]}"
                    raise wrong((n, "depends_on", m), f"there is no step {other!r}", fix)
        try:
            _sorter(steps).prepare()
        except CycleError as error:
            circle = list(reversed(error.args[1]))
            n = ids.index(circle[0])
            said = f"the steps wait for each other: {' -> '.join(circle)}"
            raise wrong((n, "depends_on"), said, "take one of these edges out") from error
        return steps

    @model_validator(mode="after")
    def _scopes_fit(self) -> Self:
        scopes = {step.step_id: step.scope for step in self.steps}
        for n, step in enumerate(self.steps):
            for m, other in enumerate(step.depends_on):
                if step.scope == "partition" and scopes[other] == "run":
                    said = f"{other} runs after all units, and {step.step_id} within each"
                    raise wrong(("steps", n, "depends_on", m), said, "give both the same scope")
        if not self.outputs and "partition" in scopes.values():
            raise wrong(("outputs",), "is empty", "list at least one, or give every step scope: run")
        if self.outputs and "partition" not in scopes.values():
            raise wrong(("outputs",), "has no step of scope partition to fill it", "add one")
        return self

    def id_for(self, org: str) -> str:
        """The kebab-case id of this pipeline for an organisation: "acme-corp-openai-cost-usage-cost"."""
        return "-".join((org, *self.path.split("/"))).replace("_", "-")

    def ordered_steps(self, scope: Literal["partition", "run"] = "partition") -> tuple[Step, ...]:
        """The steps of a scope so that each follows what it depends on; otherwise in the file's order."""
        by_id = {step.step_id: step for step in self.steps}
        place = {step.step_id: n for n, step in enumerate(self.steps)}
        sorter = _sorter(self.steps)
        sorter.prepare()
        done: list[Step] = []
        ready = list(sorter.get_ready())
        while ready:
            ready.sort(key=place.__getitem__)
            step_id = ready.pop(0)
            done.append(by_id[step_id])
            sorter.done(step_id)
            ready.extend(sorter.get_ready())
        return tuple(step for step in done if step.scope == scope)


def _sorter(steps: tuple[Step, ...]) -> TopologicalSorter[str]:
    return TopologicalSorter({step.step_id: step.depends_on for step in steps})

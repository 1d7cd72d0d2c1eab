"""`generic.procedure_executor`: calls a stored procedure for a tenant and returns the rows it makes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from engine.errors import ConfigurationError, MantaError, NotFoundError
from engine.jobs import JobExists, JobState, Typed
from engine.procedures.calls import ChildJob, bound, children, explained, metrics, statement
from engine.procedures.files import BOUND, read_procedures
from engine.procedures.states import Stored
from engine.procedures.sync import Procedures
from engine.schemas import Schema
from engine.warehouse import Warehouse

PS_TYPE = "generic.procedure_executor"
#: A staging table outlives its call only when its worker was killed.
STAGING_LIVES = timedelta(days=1)
FIRST_POLL_S, LAST_POLL_S = 0.05, 2.0
#: A cancel is a request: it is made again, and after a while the job is left to itself. Its rows go nowhere.
CANCEL_AGAIN_S, END_WITHIN_S = 0.5, 60.0
NO_CREDENTIAL = "none"


class Returns(BaseModel):
    """The table that the procedure fills; without `schema` the schema has the table's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Name under which the pipeline publishes what the procedure filled.
    table: str
    #: File under `configs/system/schemas/`; without it the table's name.
    schema_: str | None = Field(default=None, alias="schema")


class ExecutorConfig(BaseModel):
    """Keys of the step's config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: The procedure's bare name, as its file has it.
    procedure: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    #: Values by parameter, or {type, value}.
    parameters: dict[str, Any] = Field(default_factory=dict)
    #: The table that the call fills, to be published; without it the call is all.
    returns: Returns | None = None

    @field_validator("parameters")
    @classmethod
    def _not_bound(cls, given: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(set(given) & set(BOUND)):
            raise ValueError(f"{taken[0]} is bound by Manta and cannot be set")
        return given

    @classmethod
    def read(cls, step_config: Mapping[str, Any]) -> ExecutorConfig:
        """Check a step's rendered config; raises ConfigurationError naming the key."""
        try:
            return cls.model_validate(dict(step_config))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "config"
            raise ConfigurationError(
                f"{PS_TYPE}: config.{where}: {first['msg']}.",
                fix="Known keys are procedure, parameters, returns.",
                field=f"config.{where}",
            ) from None


class ProcedureExecutor:
    """Calls the procedure with the tenant's dataset bound; a job id and a staging table for each attempt."""

    #: `manta validate` checks a step's config against it.
    config_model = ExecutorConfig

    async def execute(self, step_config: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the table of `returns`, or none; metrics have rows affected and the child jobs.

        Raises NotFoundError for a procedure that was never synced, UsageError for parameters that do not
        fit, and the BigQuery job's error with the procedure's file and line. When the step's timeout is up
        the job is cancelled and seen to its end first.
        """
        config = ExecutorConfig.read(step_config)
        procedures: Procedures = context["procedures"]
        warehouse: Warehouse = context["warehouse"]
        stored = await asyncio.to_thread(procedures.stored, config.procedure)
        attempt = uuid.uuid4().hex
        target = _Target(config.returns, context, attempt) if config.returns else None
        values = bound(
            stored.definition.arguments,
            _given(config, stored, warehouse, target),
            procedure=config.procedure,
        )
        labels = {"manta-run": str(context["run_id"]), "manta-procedure": config.procedure[:63]}
        job_id = f"manta-call-{attempt}"
        sql, sent = statement(procedures.reference(config.procedure), values)
        tables: dict[str, pa.Table] = {}
        try:
            if target:
                await asyncio.to_thread(target.create, warehouse)
            ran = await _call(warehouse, stored, sql, sent, job_id=job_id, labels=labels)
            if target:
                tables[target.name] = await asyncio.to_thread(target.read, warehouse)
        finally:
            if target:
                await asyncio.to_thread(_drop, warehouse, target.staging)
        found = {"procedure": config.procedure, "job_id": job_id, **metrics(ran)}
        found["rows_returned"] = sum(table.num_rows for table in tables.values())
        shown = {name: found[name] for name in ("procedure", "job_id", "rows_affected", "rows_returned")}
        context["log"].info("procedure.called", **shown)
        return {"status": "SUCCESS", "tables": tables, "metrics": found}

    def config_problems(
        self, step_config: dict[str, Any], root: Path
    ) -> Iterator[tuple[tuple[str, ...], str, str]]:
        """What `manta validate` finds beyond the model: the procedure's file and its parameters."""
        config = ExecutorConfig.read(step_config)
        file = read_procedures(root).procedures.get(config.procedure)
        if file is None:
            fix = (
                f"add procedures/{{domain}}/{{name}}.sql with CREATE OR REPLACE PROCEDURE {config.procedure}"
            )
            yield ("procedure",), f"no file under procedures/ holds {config.procedure}", fix
            return
        arguments = file.definition.arguments
        if ("staging" in [one.name for one in arguments]) != (config.returns is not None):
            said = "returns and the parameter staging go together: one is there and the other is not"
            yield ("returns",), said, f"see {file.file}"
        free = [one for one in arguments if one.name not in BOUND]
        try:
            bound(free, config.parameters, procedure=config.procedure)
        except ConfigurationError as error:
            place = (error.field or "").removeprefix("config.").split(".")
            yield tuple(place), error.message.rstrip("."), error.fix.rstrip(".")


def get_engine() -> ProcedureExecutor:
    """Return the processor."""
    return ProcedureExecutor()


class _Target:
    """The staging table of one attempt and what becomes of its rows."""

    def __init__(self, returns: Returns, context: Mapping[str, Any], attempt: str) -> None:
        name = returns.schema_ or returns.table
        schemas: Mapping[str, Schema] = context["schemas"]
        if name not in schemas:
            raise ConfigurationError(
                f"There is no schema {name!r}.",
                fix=f"Add configs/system/schemas/{name}.yml.",
                field="config.returns.schema",
            )
        self._schema = schemas[name]
        self.name = returns.table
        self.staging = f"_staging_{returns.table}_{attempt[:12]}"
        self._expires = context["clock"]() + STAGING_LIVES

    @property
    def _columns(self) -> tuple[Any, ...]:
        # Lineage says who loaded a row: the procedure does not know, and the engine does.
        return tuple(column for column in self._schema.columns if not column.name.startswith("x_"))

    def create(self, warehouse: Warehouse) -> None:
        """Make the table, empty."""
        like = Schema(
            table=self.staging,
            scope="tenant",
            description="Rows of one procedure call.",
            columns=self._columns,
            key=(self._columns[0].name,),
        )
        warehouse.create_temporary(self.staging, like=like, expires=self._expires)

    def read(self, warehouse: Warehouse) -> pa.Table:
        """Its rows in the published table's types, and the credential that they were made without."""

        def once() -> pa.Table:
            schema, batches = warehouse.stream(self.staging)
            return pa.Table.from_batches(batches, schema=schema)

        rows = warehouse.insist(f"Reading {self.staging}", once)
        fields = [column.arrow for column in self._columns]
        table = pa.table(
            [rows[field.name].cast(field.type) for field in fields],
            schema=pa.schema([field.with_nullable(True) for field in fields]),
        )
        if any(column.name == "x_credential_id" for column in self._schema.columns):
            filled = pa.repeat(pa.scalar(NO_CREDENTIAL, pa.string()), table.num_rows)
            table = table.append_column("x_credential_id", filled)
        return table


def _given(
    config: ExecutorConfig, stored: Stored, warehouse: Warehouse, target: _Target | None
) -> dict[str, Any]:
    """The config's parameters and those that are bound here."""
    declared = {argument.name for argument in stored.definition.arguments}
    if ("staging" in declared) != (target is not None):
        said = "takes a staging table" if target is None else "takes no staging table"
        raise ConfigurationError(
            f"Procedure {config.procedure} {said}.",
            fix="Say returns: {table: ...} in the step." if target is None else "Leave returns out.",
            field="config.returns",
        )
    ours = {"dataset": Typed("STRING", warehouse.dataset)}
    if target:
        ours["staging"] = Typed("STRING", target.staging)
    return {**config.parameters, **{name: value for name, value in ours.items() if name in declared}}


async def _call(
    warehouse: Warehouse,
    stored: Stored,
    sql: str,
    values: Mapping[str, Typed],
    *,
    job_id: str,
    labels: Mapping[str, str],
) -> tuple[ChildJob, ...]:
    """Run the job to its end; when this is cancelled, cancel the job and wait for its end as well."""
    submitting = asyncio.ensure_future(
        asyncio.to_thread(_submit, warehouse, sql, values, job_id=job_id, labels=labels)
    )
    try:
        state = await asyncio.shield(submitting)
        pause = FIRST_POLL_S
        while not state.done:
            await asyncio.sleep(pause)
            pause = min(LAST_POLL_S, pause * 1.5)
            state = await asyncio.to_thread(_state, warehouse, job_id)
    except asyncio.CancelledError:
        with suppress(MantaError):
            await submitting
        # One that BigQuery does not know was never started.
        with suppress(NotFoundError, TimeoutError):
            await _end(warehouse, job_id)
        raise
    ran = await asyncio.to_thread(children, warehouse, job_id)
    if state.error is not None:
        raise explained(state.error, stored, ran)
    return ran


async def _end(warehouse: Warehouse, job_id: str) -> None:
    """Cancel a job until it is done: one request may come between two statements and be lost."""
    async with asyncio.timeout(END_WITHIN_S):
        while not (await asyncio.to_thread(_state, warehouse, job_id)).done:
            await asyncio.to_thread(warehouse.cancel, job_id)
            await asyncio.sleep(CANCEL_AGAIN_S)


def _submit(
    warehouse: Warehouse, sql: str, values: Mapping[str, Typed], *, job_id: str, labels: Mapping[str, str]
) -> JobState:
    try:
        return warehouse.submit(sql, values, job_id=job_id, labels=labels)
    except JobExists:
        # The id is this attempt's alone: it was our own request, whose answer was lost.
        return JobState(job_id, done=False)


def _state(warehouse: Warehouse, job_id: str) -> JobState:
    state = warehouse.job(job_id)
    if state is None:
        raise NotFoundError(f"BigQuery knows no job {job_id}.", fix="Run it again.")
    return state


def _drop(warehouse: Warehouse, staging: str) -> None:
    """Drop the staging table; one that cannot be dropped expires, and the call is what counts."""
    with suppress(MantaError):
        warehouse.drop(staging)

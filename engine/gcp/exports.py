"""A tenant's billing exports: where the step's config, the run or the credential says they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from engine.errors import ConfigurationError, CredentialError
from engine.gcp.source import BigQuerySource
from engine.gcp.tables import Choice, ExportTable, choose, described, nothing_there
from engine.pages.asking import on_behalf_of

DATASET = re.compile(r"[a-z0-9][a-z0-9.:-]*\.\w+", re.IGNORECASE)


class ExportConfig(BaseModel):
    """Keys of the steps `gcp.bq_etl` and `gcp.bq_discover`; both need the same."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: project.dataset of the export; without it the credential says (`manta` in its JSON).
    billing_dataset: str | None = None
    #: Billing accounts to read, by comma; without any all whose export is in the dataset.
    billing_accounts: str | None = None
    #: Which export to read where an account has both: `auto` takes the detailed one.
    export: Choice = "auto"

    @field_validator("billing_dataset")
    @classmethod
    def _whole(cls, name: str | None) -> str | None:
        if name and not DATASET.fullmatch(name):
            raise ValueError(f"{name!r} is not project.dataset")
        return name or None

    @classmethod
    def read(cls, step_config: Mapping[str, Any], *, ps_type: str) -> Self:
        """Check a step's rendered config; raises ConfigurationError naming the key."""
        try:
            return cls.model_validate(dict(step_config))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "config"
            said = first["msg"].removeprefix("Value error, ")
            raise ConfigurationError(
                f"{ps_type}: config.{where}: {said}.",
                fix=f"Known keys are {', '.join(cls.model_fields)}.",
                field=f"config.{where}",
            ) from None

    @property
    def accounts(self) -> tuple[str, ...]:
        """The billing accounts asked for."""
        return tuple(part.strip() for part in (self.billing_accounts or "").split(",") if part.strip())


@dataclass(frozen=True, slots=True)
class Export:
    """One export table and the credential that opens it; `also` are others that open the same one."""

    credential_id: str
    source: BigQuerySource
    table: ExportTable
    beside: str | None = None
    also: list[str] = field(default_factory=list)


def exports(
    config: ExportConfig, *, org: str, credentials: Sequence[str], connect: Callable[[str], BigQuerySource]
) -> list[Export]:
    """Every export that the tenant's credentials open, each once.

    Two keys of one customer see the same tables: reading both would double what is spent. Raises
    CredentialError without a credential, NotFoundError where a credential leads to no export.
    """
    if not credentials:
        raise CredentialError(
            f"{org} has no active gcp credential.", fix=f"Run `manta credential add {org} gcp`."
        )
    found: dict[str, Export] = {}
    for credential_id in sorted(credentials):
        with on_behalf_of(credential_id):
            for export in _of_one(config, credential_id, connect(credential_id)):
                if (there := found.get(export.table.address)) is not None:
                    there.also.append(credential_id)
                else:
                    found[export.table.address] = export
    return list(found.values())


def _of_one(config: ExportConfig, credential_id: str, source: BigQuerySource) -> Iterator[Export]:
    notes = source.clients.notes
    dataset = config.billing_dataset or str(notes.get("billing_dataset") or "")
    if not DATASET.fullmatch(dataset):
        raise ConfigurationError(
            f"Nobody says where the billing export of {source.clients.email} is"
            + (f": {dataset!r} is not project.dataset." if dataset else "."),
            fix='Add "manta": {"billing_dataset": "project.dataset"} to the key\'s JSON and store it again, '
            "or run with --var billing_dataset=project.dataset.",
            field="billing_dataset",
        )
    accounts = config.accounts or tuple(filter(None, str(notes.get("billing_accounts") or "").split(",")))
    names = source.tables(dataset)
    chosen = choose(names, accounts=accounts, export=config.export)
    if not chosen:
        raise nothing_there(dataset, accounts=accounts, export=config.export, names=names)
    location = source.location(dataset)
    for named in chosen:
        address = f"{dataset}.{named.name}"
        table = described(address, named.detail, table=source.table(address), location=location)
        other = choose(names, accounts=[named.account], export="standard")
        beside = f"{dataset}.{other[0].name}" if named.detail == "detailed" and other else None
        yield Export(credential_id, source, table, beside)

"""Which tables of a dataset are the billing export, what columns they have and what they are cut by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.errors import ConfigurationError, NotFoundError
from engine.gcp.columns import ENTRIES, FIELDS, TAKEN, Field

Detail = Literal["detailed", "standard"]
Choice = Literal["auto", "detailed", "standard"]

#: The longer one first: it is no prefix of the other, but a reader should not have to look.
PREFIXES: Mapping[Detail, str] = {
    "detailed": "gcp_billing_export_resource_v1_",
    "standard": "gcp_billing_export_v1_",
}
#: BigQuery's name for the load day of a table that is cut by it.
LOAD_TIME = "_PARTITIONTIME"


@dataclass(frozen=True, slots=True)
class Named:
    """An export table by its name; the account is written as in the name, with underscores."""

    name: str
    detail: Detail
    account: str


@dataclass(frozen=True, slots=True)
class PartitionColumn:
    """What cuts a table into load partitions, and its type: TIMESTAMP, DATE or DATETIME."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class ExportTable:
    """An export as it was found: `address` is project.dataset.table, `fields` are those it has.

    `misfits` names columns that have another type than Google's, `unknown` those that Manta does not take,
    `expires_days` how long load partitions are kept, where they are not kept for good.
    """

    address: str
    location: str
    detail: Detail
    partition: PartitionColumn
    fields: tuple[Field, ...]
    misfits: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    expires_days: int | None = None


def choose(names: Iterable[str], *, accounts: Sequence[str] = (), export: Choice = "auto") -> list[Named]:
    """The export tables among a dataset's tables, one for each billing account.

    An account's detailed export wins over its standard one, which holds the same costs, unless `export` says
    which to take. `accounts` narrows to billing accounts, as Google writes them (0124FF-8C7296-9F0D41).
    """
    wanted = {account.replace("-", "_").upper() for account in accounts}
    found: dict[str, dict[Detail, Named]] = {}
    for name in sorted(names):
        for detail, prefix in PREFIXES.items():
            if name.startswith(prefix):
                account = name.removeprefix(prefix).replace("-", "_")
                found.setdefault(account.upper(), {})[detail] = Named(name, detail, account)
    order: tuple[Detail, ...] = ("detailed", "standard") if export == "auto" else (export,)
    return [
        next(there[detail] for detail in order if detail in there)
        for account, there in sorted(found.items())
        if (not wanted or account in wanted) and any(detail in there for detail in order)
    ]


def nothing_there(
    dataset: str, *, accounts: Sequence[str], export: Choice, names: Sequence[str]
) -> NotFoundError:
    """The error for a dataset without an export."""
    of = f" of billing account {', '.join(accounts)}" if accounts else ""
    kinds = " or ".join(f"{p}*" for d, p in PREFIXES.items() if export in ("auto", d))
    has = f"it has {', '.join(sorted(names)[:5])}" if names else "it has no tables"
    return NotFoundError(
        f"Dataset {dataset} holds no billing export{of} ({kinds}); {has}.",
        fix="Name the dataset that the Cloud Billing export writes to (Billing > Billing export); a new "
        "export's table comes with its first data.",
        field="billing_dataset",
    )


def described(address: str, detail: Detail, *, table: Any, location: str) -> ExportTable:
    """Read a table's metadata (google.cloud.bigquery.Table).

    Raises ConfigurationError when it lacks what makes it a billing export.
    """
    leaves = dict(_leaves(table.schema))
    fields, misfits, taken = [], [], set()
    for field in FIELDS:
        there = leaves.get(field.path)
        if there is None:
            fits = False
        else:
            fits = there.field_type in TAKEN[field.kind] and (there.mode == "REPEATED") == field.repeated
            taken |= {field.path, *(f"{field.path}.{entry}" for entry in ENTRIES.get(field.kind, ()))}
        if fits:
            fields.append(field)
        elif field.required:
            has = f"as {there.field_type} {there.mode}" if there is not None else "nowhere"
            raise ConfigurationError(
                f"{address} has column {field.path} {has}: it is no billing export of Google's form.",
                fix=f"Point billing_dataset at the export itself; {field.path} is one of "
                f"{', '.join(sorted(TAKEN[field.kind]))} there.",
                field=field.path,
            )
        elif there is not None:
            misfits.append(f"{field.path} ({there.field_type} {there.mode})")
    records = {path.rsplit(".", depth)[0] for path in taken for depth in range(1, path.count(".") + 1)}
    return ExportTable(
        address=address,
        location=location,
        detail=detail,
        partition=_partition(table, leaves),
        fields=tuple(fields),
        misfits=tuple(misfits),
        unknown=tuple(sorted(set(leaves) - taken - records)),
        expires_days=_expires(table),
    )


def _leaves(schema: Iterable[Any], before: str = "") -> Iterable[tuple[str, Any]]:
    """Every column by its path with dots, records included."""
    for field in schema:
        path = f"{before}{field.name}"
        yield path, field
        yield from _leaves(field.fields, f"{path}.")


def _partition(table: Any, leaves: Mapping[str, Any]) -> PartitionColumn:
    cut = table.time_partitioning
    if cut is None:
        # A copy or a view: export_time is when the row came, which is all that a load partition tells.
        return PartitionColumn("export_time", "TIMESTAMP")
    if cut.field is None:
        return PartitionColumn(LOAD_TIME, "TIMESTAMP")
    return PartitionColumn(cut.field, leaves[cut.field].field_type)


def _expires(table: Any) -> int | None:
    cut = table.time_partitioning
    return cut.expiration_ms // 86_400_000 if cut is not None and cut.expiration_ms else None

"""What the usage processors share: step config, day range, whose credential failed, what makes a row one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, Self

import polars as pl
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import ConfigurationError, CredentialError, DataError, MantaError
from engine.http import MAX_CONNECTIONS, Http
from engine.types import Finding


class ReportConfig(BaseModel):
    """Config keys of every step that reads a bucketed report."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Reports read at the same time; above 16 connections httpx gets slower.
    concurrency: int = Field(default=4, ge=1, le=MAX_CONNECTIONS)
    #: Days asked for per page; both vendors allow 31 at most.
    page_days: int = Field(default=31, ge=1, le=31)

    @classmethod
    def read(cls, step_config: Mapping[str, Any], *, ps_type: str) -> Self:
        """Check a step's rendered config; raises ConfigurationError naming the key."""
        try:
            return cls.model_validate(dict(step_config))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "config"
            raise ConfigurationError(
                f"{ps_type}: config.{where}: {first['msg']}.",
                fix=f"Known keys are {', '.join(cls.model_fields)}.",
                field=f"config.{where}",
            ) from None


def clients(context: Mapping[str, Any], *, provider: str) -> Mapping[str, Http]:
    """Return the tenant's HTTP clients by credential id; raises CredentialError when there is none."""
    found: Mapping[str, Http] = context["http"]
    if not found:
        raise CredentialError(
            f"{context['org_slug']} has no active {provider} credential.",
            fix=f"Run `manta credential add {context['org_slug']} {provider}`.",
        )
    return found


@contextmanager
def on_behalf_of(credential_id: str) -> Iterator[None]:
    """Name the credential in every error that comes out of the block."""
    try:
        yield
    except MantaError as error:
        error.message = f"Credential {credential_id}: {error.message}"
        raise


def midnight(day: date) -> datetime:
    """Return 00:00 UTC of `day`."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def span(days: Sequence[date]) -> tuple[datetime, datetime]:
    """Return the first moment of the first day and of the day after the last."""
    return midnight(days[0]), midnight(days[-1]) + timedelta(days=1)


def require_unique(table: pa.Table, key: Sequence[str], *, name: str) -> None:
    """Raise DataError when two rows share their key.

    A grouped report has one row a group, so a second one is a broken answer. Adding them up would hide a row
    that was sent twice, and double what a tenant is told it spent.
    """
    frame = pl.DataFrame(table.select(list(key)))
    twice = frame.filter(frame.is_duplicated())
    if twice.height:
        shown = ", ".join(f"{k}={v}" for k, v in twice.row(0, named=True).items() if v is not None)
        raise DataError(
            f"{name}: {twice.height} rows share their dimensions, the first of them {shown}.",
            fix="Nothing was published; report the repeated group to the provider.",
        )


def same_usage_twice(tables: Mapping[str, pa.Table], *, table: str) -> list[Finding]:
    """Find credentials that report the very same usage: two keys of one account count everything twice."""
    seen: dict[int, list[str]] = {}
    for credential_id, rows in tables.items():
        frame = pl.DataFrame(rows)
        own = frame.select(name for name in frame.columns if not name.startswith("x_"))
        if own.height:
            # A sum of row hashes does not depend on the order of rows or pages.
            seen.setdefault(hash((own.height, own.hash_rows(seed=0).sum())), []).append(credential_id)
    return [
        Finding(
            code="same_usage_twice",
            subject=", ".join(same),
            table=table,
            day=tables[same[0]]["usage_date"][0].as_py(),
            rows=tables[same[0]].num_rows,
            detail="Identical usage; if these credentials belong to one account, remove all but one.",
        )
        for same in seen.values()
        if len(same) > 1
    ]

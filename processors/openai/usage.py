"""`openai.usage`: usage at the finest grain OpenAI groups by, as `openai_usage_daily_raw`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any

import pyarrow as pa
from pydantic import Field, field_validator

from engine.errors import ConfigurationError
from engine.http import Http, RefusedError
from engine.pages.asking import (
    ReportConfig,
    clients,
    on_behalf_of,
    require_unique,
    same_usage_twice,
    span,
)
from engine.pages.openai import ARROW, DOCUMENTED, ENDPOINTS, KEY, Endpoint, page_decoder
from engine.paging import Page, gathered, read_days

PS_TYPE = "openai.usage"
TABLE = "openai_usage_daily_raw"


class UsageConfig(ReportConfig):
    """Keys of the step's config."""

    #: Usage reports to read, all that OpenAI documents by default.
    endpoints: tuple[str, ...] = DOCUMENTED
    #: Read as well, and skipped where the server does not know them (404).
    optional_endpoints: tuple[str, ...] = ()
    #: Also group by api_source, which only newer servers accept.
    group_api_source: bool = Field(default=False)

    @field_validator("endpoints", "optional_endpoints")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in ENDPOINTS]:
            raise ValueError(f"no such endpoint: {', '.join(unknown)}; there are {', '.join(ENDPOINTS)}")
        return names

    @property
    def asked(self) -> tuple[Endpoint, ...]:
        """Every endpoint to read, once."""
        return tuple(ENDPOINTS[name] for name in dict.fromkeys(self.endpoints + self.optional_endpoints))


class Usage:
    """Reads every usage report of every credential for the unit's days."""

    #: `manta validate` checks a step's config against it.
    config_model = UsageConfig

    async def execute(self, step_config: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the table `openai_usage_daily_raw`; raises the engine's errors, naming the credential."""
        config = UsageConfig.read(step_config, ps_type=PS_TYPE)
        days: Sequence[date] = context["dates"]
        https = clients(context, provider="openai")
        jobs = [
            partial(_endpoint, http, endpoint, days, config=config, credential_id=credential_id)
            for credential_id, http in https.items()
            for endpoint in config.asked
        ]
        found = await gathered(jobs, at_once=config.concurrency)
        each = len(config.asked)
        by_credential = {
            credential_id: pa.concat_tables(found[place * each : (place + 1) * each])
            for place, credential_id in enumerate(https)
        }
        table = pa.concat_tables(by_credential.values())
        context["log"].info("openai.usage.read", rows=table.num_rows, credentials=len(https), days=len(days))
        return {
            "status": "SUCCESS",
            "tables": {TABLE: table},
            "metrics": {"rows": table.num_rows, "credentials": len(https)},
            "findings": same_usage_twice(by_credential, table=TABLE),
            "error": None,
        }


async def _endpoint(
    http: Http, endpoint: Endpoint, days: Sequence[date], *, config: UsageConfig, credential_id: str
) -> pa.Table:
    groups = endpoint.groups + (endpoint.newer if config.group_api_source else ())
    decode = page_decoder(endpoint, credential_id=credential_id)

    async def ask(wanted: Sequence[date], cursor: str | None) -> Page[pa.Table]:
        params = _params(wanted, groups, cursor=cursor, page_days=config.page_days)
        return await http.get_json(endpoint.path, params, decode)

    with on_behalf_of(credential_id):
        try:
            found = await read_days(ask, days, name=f"openai {endpoint.path}")
        except RefusedError as refusal:
            if refusal.status != 404:
                raise
            if endpoint.name in config.optional_endpoints:
                return ARROW.empty_table()
            raise ConfigurationError(
                refusal.message,
                fix=f"If the server is older than this endpoint, move {endpoint.name} to optional_endpoints.",
                field="config.endpoints",
            ) from None
        table = pa.concat_tables([ARROW.empty_table(), *found])
        require_unique(table, KEY, name=f"openai {endpoint.path}")
    return table


def _params(
    days: Sequence[date], groups: Sequence[str], *, cursor: str | None, page_days: int
) -> list[tuple[str, str]]:
    start, end = span(days)
    return [
        ("start_time", str(int(start.timestamp()))),
        ("end_time", str(int(end.timestamp()))),
        ("bucket_width", "1d"),
        ("limit", str(min(len(days), page_days))),
        # The bracket form is what OpenAI's own clients send.
        *(("group_by[]", group) for group in groups),
        *([("page", cursor)] if cursor else []),
    ]


def get_engine() -> Usage:
    """Return the processor."""
    return Usage()

"""`anthropic.usage`: message usage that is priceable and attributed, as `anthropic_usage_daily_raw`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pyarrow as pa

from engine.pages.anthropic import ARROW
from engine.pages.asking import ReportConfig, clients, on_behalf_of, same_usage_twice
from engine.pages.attribution import FAST_BETA, Reader
from engine.paging import gathered

PS_TYPE = "anthropic.usage"
TABLE = "anthropic_usage_daily_raw"


class UsageConfig(ReportConfig):
    """Keys of the step's config."""

    #: Tell fast mode from standard speed; needs `speed_beta` at the server.
    group_speed: bool = True
    #: Value of the anthropic-beta header that opens the speed grouping.
    speed_beta: str = FAST_BETA


class Usage:
    """Reads the message usage of every credential for the unit's days."""

    #: `manta validate` checks a step's config against it.
    config_model = UsageConfig

    async def execute(self, step_config: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the table `anthropic_usage_daily_raw`; raises the engine's errors, naming the credential."""
        config = UsageConfig.read(step_config, ps_type=PS_TYPE)
        https = clients(context, provider="anthropic")

        async def read(credential_id: str) -> tuple[pa.Table, int]:
            reader = Reader(
                https[credential_id],
                context["dates"],
                credential_id=credential_id,
                page_days=config.page_days,
                at_once=config.concurrency,
                speed_beta=config.speed_beta if config.group_speed else None,
            )
            with on_behalf_of(credential_id):
                return await reader.read()

        found = await gathered([partial(read, name) for name in https], at_once=config.concurrency)
        tables = {name: table for name, (table, _) in zip(https, found, strict=True)}
        table = pa.concat_tables([ARROW.empty_table(), *tables.values()])
        unattributed = sum(rows for _, rows in found)
        context["log"].info(
            "anthropic.usage.read", rows=table.num_rows, credentials=len(https), unattributed=unattributed
        )
        return {
            "status": "SUCCESS",
            "tables": {TABLE: table},
            "metrics": {
                "rows": table.num_rows,
                "credentials": len(https),
                "rows_unattributed": unattributed,
            },
            "findings": same_usage_twice(tables, table=TABLE),
            "error": None,
        }


def get_engine() -> Usage:
    """Return the processor."""
    return Usage()

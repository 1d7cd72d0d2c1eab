"""`generic.api_extractor`: any REST API, from its description in a step's config alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.api.config import ApiConfig, read_config
from engine.api.extract import Extract, extract
from engine.errors import ConfigurationError
from engine.types import Finding

PS_TYPE = "generic.api_extractor"


class ApiExtractor:
    """Reads the described API with every credential for the unit's days."""

    #: `manta validate` checks a step's config against it.
    config_model = ApiConfig

    async def execute(self, step_config: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config's table; raises the engine's errors, naming the credential."""
        config = read_config(ApiConfig, step_config, ps_type=PS_TYPE)
        https = dict(context["http"])
        if not https:
            raise ConfigurationError(
                f"{PS_TYPE}: the pipeline's provider has no address.",
                fix="Give it base_url or setting in configs/system/providers.yml.",
            )
        read = await extract(config, https, context["dates"], now=context["clock"])
        context["log"].info("api.read", table=config.table, rows=read.table.num_rows, pages=read.pages)
        return answer_of(config, read, context)


def answer_of(config: ApiConfig, read: Extract, context: Mapping[str, Any]) -> dict[str, Any]:
    """What a processor returns for an extract, with a finding for fields that no column reads."""
    findings = []
    if read.unknown and config.response.unknown_fields == "keep_json":
        named = ", ".join(sorted(read.unknown))
        findings.append(
            Finding(
                code="unknown_fields",
                subject=named,
                table=config.table,
                day=context["dates"][-1],
                rows=read.table.num_rows,
                detail="Fields that no column reads are kept as JSON in unknown_fields.",
            )
        )
    metrics = {"rows": read.table.num_rows, "pages": read.pages, "dropped": read.dropped}
    return {
        "status": "SUCCESS",
        "tables": {config.table: read.table},
        "metrics": {**metrics, "unknown_fields": sorted(read.unknown)},
        "findings": findings,
        "error": None,
    }


def get_engine() -> ApiExtractor:
    """Return the processor."""
    return ApiExtractor()

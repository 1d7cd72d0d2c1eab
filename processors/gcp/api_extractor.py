"""`gcp.api_extractor`: billing accounts, list prices of SKUs and Compute Engine instances, as of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pyarrow as pa

from engine.api import google
from engine.api.config import read_config
from engine.api.extract import extract
from engine.api.gcp_resources import TABLES, GcpApiConfig, described, finished
from engine.errors import TransientError
from engine.google_keys import read_key
from engine.http import Again, Answer, Take
from engine.pages.asking import clients
from engine.types import Finding

PS_TYPE = "gcp.api_extractor"


class _Partial(msgspec.Struct):
    unreachables: list[str] = []


_decode_partial = msgspec.json.Decoder(_Partial).decode


class GcpApiExtractor:
    """Reads one resource with every credential."""

    #: `manta validate` checks a step's config against it.
    config_model = GcpApiConfig

    async def execute(self, step_config: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the resource's table; raises the engine's errors, naming the credential."""
        config = read_config(GcpApiConfig, step_config, ps_type=PS_TYPE)
        address = context["addresses"]["compute"] if config.resource == "instances" else ""
        gone: set[str] = set()

        def judge(answer: Answer) -> Again | Take | None:
            if config.resource == "instances" and answer.status == 200:
                gone.update(_unreachable(answer.body))
            return google.judge(answer)

        tables, pages = [], 0
        for credential_id, http in clients(context, provider="gcp").items():
            project = read_key(context["secrets"][credential_id].reveal())["project_id"]
            for api in described(config, project=project):
                read = await extract(
                    api,
                    {credential_id: http},
                    context["dates"],
                    now=context["clock"],
                    judge=judge,
                    address=address,
                )
                tables.append(finished(config.resource, read.table, path=api.request.path))
                pages += read.pages
        if gone and config.unreachable == "fail":
            raise TransientError(
                f"gcp instances: {', '.join(sorted(gone)[:5])} did not answer; nothing was published.",
                fix="Wait: it is tried again. To publish the others, set unreachable: finding.",
            )
        table = pa.concat_tables(tables)
        context["log"].info("gcp.api.read", resource=config.resource, rows=table.num_rows, pages=pages)
        name = TABLES[config.resource]
        findings = [
            Finding(
                code="unreachable",
                subject=place,
                table=name,
                day=context["dates"][-1],
                rows=0,
                detail="This place did not answer, so what is in it is missing.",
            )
            for place in sorted(gone)
        ]
        return {
            "status": "SUCCESS",
            "tables": {name: table},
            "metrics": {"rows": table.num_rows, "pages": pages},
            "findings": findings,
            "error": None,
        }


def _unreachable(body: bytes) -> list[str]:
    try:
        return _decode_partial(body).unreachables
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []


def get_engine() -> GcpApiExtractor:
    """Return the processor."""
    return GcpApiExtractor()

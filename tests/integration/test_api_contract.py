"""The API does what its own OpenAPI document says: Schemathesis makes requests from it, good and hostile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
import schemathesis
from google.cloud.bigquery import Routine
from schemathesis import checks
from schemathesis.engine import Status, StopReason, events, from_schema

from engine.procedures.files import read_procedures
from engine.request_limits import RequestLimits
from engine.types import RunRequest
from tests.integration.conftest import ROOT
from tests.integration.test_api_records import HEADERS, ORGS, PATH, RUNS, Platform, platform
from tests.unit.serve.doubles import a_run

__all__ = ["platform"]

type Names = dict[str, dict[str, Any]]

SEED = 3
#: Requests at random for each operation, beside the enumerated ones.
EXAMPLES = 3
CHECKS = {
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
}
#: What is not checked, and why.
EXCLUDED = {
    "positive_data_acceptance": "a schema cannot say that a plan or provider exists, that days are in order, "
    "that a cursor is of this list, or that 1.0 is no integer here",
    "use_after_free": "nothing is freed: what was deleted is still shown, as revoked, inactive or cancelled",
    "ensure_resource_availability": "only links between operations reach it, and no response declares any",
    "object_level_authorization": "wants two identities in one run; test_access.py has them",
}
#: What answers name is not asked for: the warehouse holds other tests' organisations too.
ALONE = {"responses": False}
THREE = "/api/v1/pipelines/run/{org}/{provider}/{domain}/{pipeline}"
TWO = "/api/v1/pipelines/run/{org}/{provider}/{pipeline}"
ROOT_ONLY = {
    f"GET {ORGS}",
    f"POST {ORGS}",
    f"GET {ORGS}/{{org}}",
    f"DELETE {ORGS}/{{org}}",
    f"POST {ORGS}/{{org}}/suspend",
    f"POST {ORGS}/{{org}}/resume",
    f"PUT {ORGS}/{{org}}/quota",
    f"PUT {ORGS}/{{org}}/plan",
    "GET /api/v1/procedures",
    "GET /api/v1/procedures/{name}",
    "POST /api/v1/procedures/sync",
    "DELETE /api/v1/procedures/{name}",
    "GET /api/v1/migrations",
    "POST /api/v1/migrations/{name}/execute",
}
#: No migration is shipped that it could execute; test_api_procedures.py has one.
UNFILED = {"POST /api/v1/migrations/{name}/execute"}
#: A procedure to be done away with: its file is gone already.
ORPHAN = "contract_orphan"


@dataclass
class Tenant:
    """An organisation in which everything is there that a path may name, and another to be done away with."""

    org: str
    doomed: str
    admin: dict[str, str]
    key_id: str
    credential_id: str
    ended: str
    active: str

    def names(self) -> Names:
        """What a good request may name, for every operation and for each."""
        provider, domain, pipeline = PATH.split("/")
        three = {"provider": provider, "domain": domain, "pipeline": pipeline}
        two = {"provider": "anthropic", "pipeline": "usage_cost"}
        return {
            "*": {
                "org": self.org,
                "run_id": self.ended,
                "key_id": self.key_id,
                "credential_id": self.credential_id,
            },
            **{f"POST {THREE}{end}": three for end in ("", "/plan")},
            **{f"POST {TWO}{end}": two for end in ("", "/plan")},
            "GET /api/v1/pipelines/{provider}/{domain}/{pipeline}": three,
            "GET /api/v1/pipelines/{provider}/{pipeline}": two,
            "GET /api/v1/procedures/{name}": {"name": min(read_procedures(ROOT).procedures)},
            "DELETE /api/v1/procedures/{name}": {"name": ORPHAN},
            f"DELETE {RUNS}/{{run_id}}": {"run_id": self.active},
            f"POST {ORGS}/{{org}}/credentials": {
                "body": {"provider": "openai", "secret": "sk-admin-" + "z" * 40}
            },
        }


@dataclass
class Found:
    """What a run of Schemathesis came to."""

    failures: list[str] = field(default_factory=list)
    answered: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    stopped: StopReason | None = None

    def worked(self) -> set[str]:
        """Operations that did what they are for at least once."""
        return {name for name, codes in self.answered.items() if any(code < 300 for code in codes)}


@pytest.fixture(scope="module")
def tenant(platform: Platform) -> Tenant:
    actors: Any = platform.doors.cluster
    # The limits have tests of their own; here they would only hide what is behind them.
    actors.limits = RequestLimits(dict.fromkeys(actors.rates, 10**9))
    org, client = platform.org(), platform.client
    client.put(f"{ORGS}/{org}/plan", headers=HEADERS, json={"plan": "ENTERPRISE"})
    stored = [
        client.post(f"{ORGS}/{org}/credentials", headers=HEADERS, json={"provider": name, "secret": secret})
        for name, secret in (
            ("openai", "sk-admin-" + "x" * 40),
            ("anthropic", "sk-ant-admin01-" + "x" * 40),
            ("openai", "sk-admin-" + "y" * 40),
        )
    ]
    spare = platform.key(org, "read")["X-API-Key"]
    started = client.post(f"/api/v1/pipelines/run/{org}/{PATH}", headers=HEADERS, json={"policy": "all"})
    assert started.status_code == 202, started.text
    now = datetime.now(UTC)
    day = date(2026, 3, 1)
    run = replace(
        a_run(RunRequest(org, PATH, day, day)), id=f"{org}-1", sequence=99, version=1, start_time=now
    )
    platform.work.history.save(run, now=now)
    platform.work.history.save(replace(run, version=2, status="FAILED", end_time=now), now=now)
    client_of = platform.work.clients.bigquery
    orphan = Routine(
        platform.work.procedures.reference(ORPHAN),
        type_="PROCEDURE",
        language="SQL",
        body="SELECT 1;",
        description=f"Written by Manta from procedures/contract/orphan.sql:1; sha256:{'0' * 64}",
    )
    client_of.create_routine(orphan, exists_ok=True)
    return Tenant(
        org=org,
        doomed=platform.org(),
        admin=platform.key(org, "admin"),
        key_id=spare.rpartition("_api_")[2][:12],
        credential_id=stored[-1].json()["credential_id"],
        ended=run.id,
        active=started.json()["pipeline_logging_id"],
    )


def explore(
    platform: Platform, headers: Mapping[str, str], names: Names, *, less: dict[str, list[str]]
) -> Found:
    """Every operation: the document's examples, each single thing wrong, and some at random.

    Operations that `less` selects get the wrong things alone: they are another caller's.
    """
    config = {
        "seed": SEED,
        "base-url": str(platform.client.base_url),
        "headers": dict(headers),
        "continue-on-failure": True,
        "request-timeout": 60,
        "checks": {"enabled": False, **{name: {"enabled": True} for name in CHECKS}},
        "operations": [{**less, "phases": {name: {"enabled": False} for name in ("examples", "fuzzing")}}],
        "generation": {
            "deterministic": True,
            "max-examples": EXAMPLES,
            "no-shrink": True,
            "database": "none",
            # The keys are given; guessed ones are what `ignored_auth` sends.
            "with-security-parameters": False,
        },
        "phases": {
            # Good requests come from the examples and at random: to enumerate them too takes minutes.
            "coverage": {
                "generation": {"mode": "negative"},
                "generate-duplicate-query-parameters": True,
                "extra-data-sources": ALONE,
            },
            "examples": {"extra-data-sources": ALONE},
            "fuzzing": {"extra-data-sources": ALONE, "error-feedback": {"enabled": False}},
            "stateful": {"enabled": False},
        },
    }
    document = platform.client.get("/openapi.json").json()
    _name(document, names)
    schema = schemathesis.openapi.from_dict(document, config=schemathesis.Config.from_dict(config))
    found = Found()
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            _note(found, event)
        elif isinstance(event, events.NonFatalError | events.FatalError):
            found.failures.append(str(event))
        elif isinstance(event, events.EngineFinished):
            found.stopped = event.stop_reason
    return found


def _name(document: dict[str, Any], names: Names) -> None:
    """Let the document's examples name what is there."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            own = names.get(f"{method.upper()} {path}", {})
            for parameter in operation.get("parameters", []):
                value = own.get(parameter["name"]) or names["*"].get(parameter["name"])
                if value is not None:
                    parameter["schema"].pop("examples", None)
                    parameter["example"] = value
            if "body" in own:
                (content,) = operation["requestBody"]["content"].values()
                content["examples"] = {"own": {"value": own["body"]}}


def _note(found: Found, event: events.ScenarioFinished) -> None:
    recorder = event.recorder
    for one in recorder.interactions.values():
        if one.response is not None:
            found.answered[recorder.label].add(one.response.status_code)
    for case_id, made in recorder.checks.items():
        for check in made:
            if check.status is Status.FAILURE and check.failure_info is not None:
                said = check.failure_info.failure.message
                found.failures.append(
                    f"{check.name}: {said}\n{recorder.cases[case_id].value.as_curl_command()}"
                )


def test_every_check_is_chosen_or_excluded_with_a_reason() -> None:
    checks.load_all_checks()
    assert set(checks.CHECKS.get_all_names()) == CHECKS | set(EXCLUDED)


@pytest.mark.slow
def test_as_root(platform: Platform, tenant: Tenant) -> None:
    doomed = {"org": tenant.doomed}
    own = {
        f"DELETE {ORGS}/{{org}}": doomed,
        f"POST {ORGS}/{{org}}/suspend": doomed,
        f"POST {ORGS}/{{org}}/resume": doomed,
        f"PUT {ORGS}/{{org}}/quota": doomed,
        f"PUT {ORGS}/{{org}}/plan": doomed,
        f"POST {ORGS}": {
            "body": {"org_slug": f"{tenant.org}_2", "name": "Acme", "admin_email": "ann@acme.example"}
        },
    }
    found = explore(platform, HEADERS, tenant.names() | own, less={"exclude-name": sorted(ROOT_ONLY)})
    assert found.failures == []
    assert found.stopped is StopReason.COMPLETED
    # Little was tested of an operation that never did what it is for.
    assert found.worked() >= ROOT_ONLY - UNFILED


def test_as_an_organisation(platform: Platform, tenant: Tenant) -> None:
    found = explore(platform, tenant.admin, tenant.names(), less={"include-name": sorted(ROOT_ONLY)})
    assert found.failures == []
    assert found.stopped is StopReason.COMPLETED
    assert set(found.answered) - found.worked() == ROOT_ONLY
    assert all(found.answered[name] <= {400, 401, 403, 405, 422} for name in ROOT_ONLY)

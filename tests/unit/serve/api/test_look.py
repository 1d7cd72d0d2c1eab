"""Looking at runs, the catalog, health, metrics and the document."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from engine.types import RunRequest
from tests.unit.serve.api.conftest import ROOT_HEADERS, RUN, RUNS, Api, problem
from tests.unit.serve.doubles import a_run

PATH = "openai/cost/usage_cost"
REQUEST = RunRequest("acme_corp", PATH, date(2026, 3, 1), date(2026, 3, 2))
SECRET_LOOKS = re.compile(r"sk-[a-z]|_api_[0-9a-f]{12}[A-Za-z0-9_-]{43}", re.IGNORECASE)


def test_a_run_that_has_ended_comes_from_the_record(api: Api) -> None:
    run = replace(a_run(REQUEST, status="PARTIAL", units_total=2, units_failed=1), error_code=None)
    api.history.runs.append(run)
    unit = f"{PATH} acme_corp 2026-03-01"
    api.history.rows.append(
        {
            "position": 3,
            "entity_name": unit,
            "first_day": date(2026, 3, 1),
            "last_day": date(2026, 3, 1),
            "attempt": 2,
            "from_state": "RUNNING",
            "to_state": "FAILED",
            "error_type": "credential",
            "error_message": "The key is refused. Fix: Store another.",
            "transition_time": run.start_time,
        }
    )
    api.history.timed.append(
        {
            "entity_name": unit,
            "attempt": 2,
            "step_index": 0,
            "step_name": "extract_usage",
            "status": "failed",
            "duration_ms": 1500,
            "rows_processed": 0,
        }
    )
    found = api.client.get(f"{RUNS}/{run.id}", headers=api.key("read")).json()
    assert found["pipeline_logging_id"] == run.id
    assert "run_id" not in found
    assert found["tally"]["units_failed"] == 1
    assert [one["state"] for one in found["days"]] == ["FAILED", "not taken"]
    assert found["units"][0]["error_code"] == "credential"
    assert found["errors"][0]["fix"] == "Store another."
    assert found["timings"][0] == {
        "name": "extract_usage",
        "times": 1,
        "seconds": 1.5,
        "share": 1.0,
        "rows": 0,
    }
    assert found["steps"][0]["duration_ms"] == 1500


def test_an_active_run_alone_takes_nothing_from_the_warehouse(api: Api) -> None:
    run_id = api.client.post(RUN, headers=ROOT_HEADERS).json()["pipeline_logging_id"]
    # History knows no run at all: what follows can only come from the supervisor.
    found = api.client.get(f"{RUNS}/{run_id}?detail=false", headers=api.key("read")).json()
    assert (found["status"], found["units"], found["end_time"]) == ("PENDING", [], None)


def test_anothers_run_is_not_there(api: Api) -> None:
    run_id = api.client.post(RUN, headers=ROOT_HEADERS).json()["pipeline_logging_id"]
    api.history.runs.append(a_run(REQUEST, run_id="old-1", status="SUCCESS"))
    other = api.key("admin", org="globex")
    for wanted in (run_id, "old-1", "none"):
        for path in (f"{RUNS}/{wanted}", f"{RUNS}/{wanted}/events"):
            problem(api.client.get(path, headers=other), 404, "not_found")
        problem(api.client.delete(f"{RUNS}/{wanted}", headers=other), 404, "not_found")
        problem(api.client.post(f"{RUNS}/{wanted}/retry", headers=other), 404, "not_found")
    problem(api.client.get(f"{RUNS}/{run_id}?org=acme_corp", headers=other), 403, "forbidden")
    assert api.client.get(f"{RUNS}/old-1", headers=ROOT_HEADERS).status_code == 200
    problem(api.client.get(f"{RUNS}/old-1?org=globex", headers=ROOT_HEADERS), 404, "not_found")


def test_the_root_key_names_whose_runs_it_lists(api: Api) -> None:
    found = problem(api.client.get(RUNS, headers=ROOT_HEADERS), 422, "usage")
    assert "org" in found["fix"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=x",
        "status=DONE",
        "since=2026-02-30",
        "until=20260101",
        "cursor=!",
        "cursor=WzFd",
    ],
)
def test_wrong_filters_are_refused(api: Api, query: str) -> None:
    found = problem(api.client.get(f"{RUNS}?{query}", headers=api.key("read")), 422, "usage")
    assert found["errors"][0]["parameter"] == query.partition("=")[0]


def test_the_catalog(api: Api) -> None:
    key = api.key("read")
    listed = api.client.get("/api/v1/pipelines", headers=key).json()["pipelines"]
    assert PATH in [one["pipeline"] for one in listed]
    for one in listed:
        assert api.client.get(f"/api/v1/pipelines/{one['pipeline']}", headers=key).json() == one
    found = problem(api.client.get("/api/v1/pipelines/openai/cost/usage", headers=key), 404, "not_found")
    assert PATH in found["fix"]


def test_a_plan_needs_the_scope_run_and_starts_nothing(api: Api) -> None:
    problem(api.client.post(f"{RUN}/plan", headers=api.key("read")), 403, "forbidden")
    problem(api.client.post(f"{RUN}s/plan", headers=api.key("run")), 404, "not_found")
    assert not api.actors.runs


def test_live_and_info(api: Api) -> None:
    assert api.client.get("/health/live").json() == {"status": "ok"}
    found = api.client.get("/health").json()
    assert found == {"status": "ok", "service": "manta", "version": "test", "environment": "local"}


def test_ready_says_what_is_red_and_what_to_do(api: Api) -> None:
    api.actors.away = True
    answer = api.client.get("/health/ready")
    assert answer.status_code == 503
    checks = {one["name"]: one for one in answer.json()["checks"]}
    assert checks["cluster"] == {
        "name": "cluster",
        "status": "failed",
        "problem": "The coordinator does not answer.",
        "fix": "See `manta status`.",
    }
    assert answer.json()["numbers"] == {}
    assert checks["key_store"]["status"] == checks["directory"]["status"] == "ok"


def test_metrics_have_no_tenant_in_them(api: Api) -> None:
    api.client.post(RUN, headers=ROOT_HEADERS)
    answer = api.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "manta_active_runs 1.0" in answer.text
    assert "acme" not in answer.text
    api.actors.away = True
    problem(api.client.get("/metrics"), 503, "transient")


def test_the_document_is_whole(api: Api) -> None:
    answer = api.client.get("/openapi.json")
    document: dict[str, Any] = answer.json()
    assert document["openapi"].startswith("3.1")
    names = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            names.append(operation["operationId"])
            assert operation["description"], path
            assert "500" in operation["responses"], path
            if path.startswith("/api/"):
                assert operation["security"], path
                assert "application/problem+json" in operation["responses"]["401"]["content"]
                for status in ("429", "503"):
                    assert operation["responses"][status]["headers"]["Retry-After"]["required"], path
            for status, answered in operation["responses"].items():
                assert answered["headers"]["X-Request-ID"]["required"], (path, status)
            if method in ("post", "put") and not path.endswith(("suspend", "resume", "execute")):
                (content,) = operation["requestBody"]["content"].values()
                assert content["examples"], path
                assert content["schema"]["additionalProperties"] is False, path
    assert len(set(names)) == len(names)
    assert set(document["components"]["securitySchemes"]) == {"OrganisationKey", "RootKey"}
    assert not SECRET_LOOKS.search(answer.text)
    wanted = set(re.findall(r'"#/components/schemas/(\w+)"', answer.text))
    assert wanted <= set(document["components"]["schemas"])


def test_the_page_loads_nothing_from_anywhere(api: Api) -> None:
    answer = api.client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "<script" not in answer.text
    assert not re.search(r"(src|href)=\"?(https?:)?//", answer.text)
    assert "style-src 'sha256-" in answer.headers["content-security-policy"]
    for path in api.client.get("/openapi.json").json()["paths"]:
        assert path in answer.text
    assert 'id="daily_quota"' in answer.text

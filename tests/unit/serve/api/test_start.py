"""Starting runs over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import httpx
import pytest

from engine.plans import Limits
from tests.unit.serve.api.conftest import ROOT_HEADERS, RUN, RUNS, Api, noted, problem


def test_a_new_run_is_answered_202_with_where_to_look(api: Api) -> None:
    answer = api.client.post(RUN, headers=api.key("run"), json={"date": "2026-03-01"})
    assert answer.status_code == 202
    found = answer.json()
    assert set(found) == {
        "pipeline_logging_id",
        "pipeline_id",
        "org_slug",
        "status",
        "message",
        "status_url",
    }
    assert found["pipeline_id"] == "acme-corp-openai-cost-usage-cost"
    assert found["status"] == "PENDING"
    assert answer.headers["location"] == found["status_url"] == f"{RUNS}/{found['pipeline_logging_id']}"


def test_the_same_request_is_the_same_run(api: Api) -> None:
    key = api.key("run")
    first = api.client.post(RUN, headers=key, json={"date": "2026-03-01"})
    again = api.client.post(RUN, headers=key, json={"start_date": "2026-03-01", "end_date": "2026-03-01"})
    other = api.client.post(RUN, headers=key, json={"date": "2026-03-02"})
    assert (first.status_code, again.status_code, other.status_code) == (202, 200, 202)
    assert again.json()["pipeline_logging_id"] == first.json()["pipeline_logging_id"]
    assert other.json()["pipeline_logging_id"] != first.json()["pipeline_logging_id"]


def test_a_hundred_at_once_are_one_run(api: Api) -> None:
    key = api.key("run")
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda _: api.client.post(RUN, headers=key, json={"date": "2026-03-01"}), range(100))
        )
    assert sorted(answer.status_code for answer in answers) == [200] * 99 + [202]
    assert len({answer.json()["pipeline_logging_id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "application/json", None]
)
@pytest.mark.parametrize("body", [b"{}", b"", b"  \n"])
def test_without_dates_it_is_the_last_closed_day(api: Api, kind: str | None, body: bytes) -> None:
    headers = api.key("run") | ({"Content-Type": kind} if kind else {})
    assert api.client.post(RUN, headers=headers, content=body).status_code == 202
    assert (api.actors.requests[-1].start, api.actors.requests[-1].end) == (date(2026, 3, 14),) * 2


def test_a_start_alone_goes_to_the_last_closed_day(api: Api) -> None:
    api.client.post(RUN, headers=api.key("run"), json={"start_date": "2026-03-01", "policy": "all"})
    request = api.actors.requests[-1]
    assert (request.start, request.end, request.policy) == (date(2026, 3, 1), date(2026, 3, 14), "all")


BAD: list[tuple[Any, int, str | None]] = [
    (b"{", 400, None),
    (b"[]", 400, None),
    (b'"x"', 400, None),
    (b"null", 400, None),
    (b'{"date": "2026-03-01", "date": "2026-03-02"}', 400, None),
    (b'{"variables": {"a": 1, "a": 1}}', 400, None),
    (b'{"date": NaN}', 400, None),
    (b'{"date": "\xff"}', 400, None),
    (b'{"policy": "\\ud800"}', 400, None),
    (b"[" * 100_000, 400, None),
    (b"date=2026-03-01", 400, None),
    (b'{"date": 20260301}', 422, "#/date"),
    (b'{"date": true}', 422, "#/date"),
    (b'{"date": "2026-3-1"}', 422, "#/date"),
    (b'{"date": "2026-02-30"}', 422, "#/date"),
    (b'{"date": "2026-03-01T00:00:00"}', 422, "#/date"),
    (b'{"date": " 2026-03-01"}', 422, "#/date"),
    (b'{"date": "2026-04-01"}', 422, "#/end_date"),
    (b'{"date": "2026-03-01", "start_date": "2026-03-01"}', 422, "#/date"),
    (b'{"end_date": "2026-03-01"}', 422, "#/start_date"),
    (b'{"start_date": "2026-03-02", "end_date": "2026-03-01"}', 422, "#/end_date"),
    (b'{"start_date": "2010-03-02"}', 422, "#/start_date"),
    (b'{"policy": "some"}', 422, "#/policy"),
    (b'{"force_refresh": true}', 422, "#/force_refresh"),
    (b'{"variables": {"x": 1}}', 422, "#/variables"),
    (b'{"variables": {"x": {"y": 1}}}', 422, None),
    (b'{"variables": []}', 422, "#/variables"),
]


@pytest.mark.parametrize(("body", "status", "pointer"), BAD, ids=[str(one[0][:40]) for one in BAD])
def test_a_bad_body_is_refused(api: Api, body: bytes, status: int, pointer: str | None) -> None:
    answer = api.client.post(RUN, headers=api.key("run"), content=body)
    found = problem(answer, status, "bad_request" if status == 400 else "usage")
    if pointer:
        assert [error["pointer"] for error in found["errors"]] == [pointer]
    assert not api.actors.requests


def test_words_are_those_of_the_api(api: Api) -> None:
    found = api.client.post(
        RUN, headers=api.key("run"), json={"start_date": "2026-03-02", "end_date": "2026-03-01"}
    ).json()
    assert found["fix"] == "Swap start_date and end_date."


def test_endpoints_are_the_roots(api: Api) -> None:
    body = {"endpoints": {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}}
    problem(api.client.post(RUN, headers=api.key("admin"), json=body), 403, "forbidden")
    assert api.client.post(RUN, headers=ROOT_HEADERS, json=body).status_code == 202
    assert dict(api.actors.requests[-1].endpoints) == body["endpoints"]
    for wrong in ({"OPENAI_URL": "http://127.0.0.1:9/v1"}, {"OPENAI_BASE_URL": "http://example.com/v1"}):
        problem(api.client.post(RUN, headers=ROOT_HEADERS, json={"endpoints": wrong}), 422, "usage")


def test_a_pipeline_that_is_not_there(api: Api) -> None:
    answer = api.client.post(RUN + "s", headers=api.key("run"))
    assert "usage_cost" in problem(answer, 404, "not_found")["fix"]


def test_an_organisation_that_is_not_there(api: Api) -> None:
    problem(api.client.post(RUN.replace("acme_corp", "nobody"), headers=ROOT_HEADERS), 404, "not_found")


def test_without_a_credential_there_is_something_to_do_first(api: Api) -> None:
    key = api.key("run")
    api.actors.credentials.discard(("acme_corp", "openai"))
    api.actors.publish()
    api.settle()
    found = problem(api.client.post(RUN, headers=key), 409, "configuration")
    assert "credentials" in found["fix"]
    # One that was stored a moment ago is found without waiting for the next regular reading.
    api.actors.credentials.add(("acme_corp", "openai"))
    api.doors.directory._looked = -10.0
    assert api.client.post(RUN, headers=key).status_code == 202


def test_an_idempotency_key_answers_with_its_run(api: Api) -> None:
    key = api.key("run") | {"Idempotency-Key": "order 66"}
    first = api.client.post(RUN, headers=key, json={"date": "2026-03-01", "policy": "all"})
    api.actors.end(first.json()["pipeline_logging_id"])
    # Another spelling of the same document is the same request.
    again = api.client.post(RUN, headers=key, content=b'{"policy":  "all", "date": "2026-03-01"}')
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json()["pipeline_logging_id"] == first.json()["pipeline_logging_id"]
    problem(api.client.post(RUN, headers=key, json={"date": "2026-03-02"}), 422, "usage")


@pytest.mark.parametrize("value", ["", "x" * 256, "caf\xe9", "tab\there"])
def test_an_idempotency_key_is_printable_and_short(api: Api, value: str) -> None:
    headers = httpx.Headers(api.key("run"))
    raw = [*headers.raw, (b"Idempotency-Key", value.encode("latin-1"))]
    found = problem(api.client.post(RUN, headers=raw), 422, "usage")
    assert found["errors"][0]["parameter"] == "Idempotency-Key"


def test_the_run_carries_its_audit_and_has_no_second_entry(api: Api) -> None:
    headers = api.key("run") | {"X-Request-ID": "req-1", "X-User-ID": "ann", "User-Agent": "curl/8" * 100}
    api.client.post(RUN, headers=headers)
    origin = api.actors.origins[0]
    assert origin.audit is not None
    assert origin.trigger_type == "api"
    assert origin.trigger_by == f"{origin.audit.actor} (ann)"
    assert origin.audit.actor.startswith("key:")
    assert (origin.audit.org, origin.audit.action) == ("acme_corp", "run.start")
    assert (origin.audit.request_id, origin.audit.user_id) == ("req-1", "ann")
    assert origin.audit.ip_address == "127.0.0.1"
    assert len(origin.audit.user_agent or "") == 256
    assert noted(api) == []
    # The same again changes nothing: that is for the batched trail.
    api.client.post(RUN, headers=headers)
    assert noted(api) == [("acme_corp", "run.start", "OK")]


def test_a_quota_says_when_to_come_back(api: Api) -> None:
    api.actors.add_org("acme_corp", limits=Limits(1, None, None))
    key = api.key("run")
    assert api.client.post(RUN, headers=key, json={"date": "2026-03-01"}).status_code == 202
    answer = api.client.post(RUN, headers=key, json={"date": "2026-03-02"})
    problem(answer, 429, "daily_quota")
    assert int(answer.headers["retry-after"]) == (17 * 60 + 30) * 60
    assert noted(api)[-1] == ("acme_corp", "run.start", "REFUSED")


def test_while_the_actors_are_away_runs_are_503_and_nothing_leaks(api: Api) -> None:
    key = api.key("run", "read")
    api.actors.away = True
    answer = api.client.post(RUN, headers=key)
    problem(answer, 503, "transient")
    assert answer.headers["retry-after"]
    assert api.client.get("/api/v1/pipelines", headers=key).status_code == 200


def test_retry_takes_what_failed(api: Api) -> None:
    key = api.key("run")
    run_id = api.client.post(RUN, headers=key, json={"date": "2026-03-01"}).json()["pipeline_logging_id"]
    problem(api.client.post(f"{RUNS}/{run_id}/retry", headers=key), 409, "conflict")
    api.actors.end(run_id, "PARTIAL")
    answer = api.client.post(f"{RUNS}/{run_id}/retry", headers=key)
    assert answer.status_code == 202
    assert api.actors.requests[-1].policy == "failed"
    assert api.actors.requests[-1].start == date(2026, 3, 1)
    problem(api.client.post(f"{RUNS}/{run_id}/retry", headers=key, json={"date": "2026-03-01"}), 422, "usage")


def test_cancel_is_on_record_before_it_is_answered(api: Api) -> None:
    key = api.key("run")
    run_id = api.client.post(RUN, headers=key).json()["pipeline_logging_id"]
    answer = api.client.delete(f"{RUNS}/{run_id}", headers=key)
    assert (answer.status_code, answer.json()["status"]) == (202, "CANCELLING")
    org, cancelled, audit = api.actors.cancelled[0]
    assert (org, cancelled, audit.action) == ("acme_corp", run_id, "run.cancel")
    api.actors.end(run_id, "CANCELLED")
    problem(api.client.delete(f"{RUNS}/{run_id}", headers=key), 409, "conflict")
    problem(api.client.delete(f"{RUNS}/{run_id}", headers=api.key("run", org="globex")), 404, "not_found")

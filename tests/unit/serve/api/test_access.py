"""Who gets in: keys, scopes, limits, and what of it is on record."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from engine.plans import Limits
from tests.unit.serve.api.conftest import ROOT_HEADERS, RUN, RUNS, Api, noted, problem
from tests.unit.serve.api.doubles import NOW

ORG = "/api/v1/organizations/acme_corp"


def test_without_a_key_it_is_401(api: Api) -> None:
    answer = api.client.get(RUNS)
    found = problem(answer, 401, "unauthenticated")
    assert "X-API-Key" in found["fix"]
    assert answer.headers["www-authenticate"].startswith("ApiKey")
    assert noted(api) == []


def test_a_wrong_key_is_401_and_on_record(api: Api) -> None:
    key = api.key("run")["X-API-Key"]
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    problem(api.client.post(RUN, headers={"X-API-Key": wrong}), 401, "unauthenticated")
    assert noted(api) == [("acme_corp", "run.start", "REFUSED")]
    assert key[-20:] not in str(api.rows)
    assert key[-20:] not in "".join(api.lines)


def test_a_key_of_another_organisation_is_403_and_on_record(api: Api) -> None:
    answer = api.client.post(RUN, headers=api.key("admin", org="globex"))
    problem(answer, 403, "forbidden")
    assert not api.actors.requests
    assert noted(api) == [("globex", "run.start", "REFUSED")]
    assert api.audits()[0]["resource_id"] == "refused: acme_corp"


def test_whether_another_organisation_exists_is_not_told(api: Api) -> None:
    key = api.key("admin", org="globex")
    there = api.client.post(RUN, headers=key).json()
    nobody = api.client.post(RUN.replace("acme_corp", "nobody_x"), headers=key).json()
    assert there["detail"].replace("acme_corp", "nobody_x") == nobody["detail"]


@pytest.mark.parametrize(
    ("scopes", "run", "read", "keys"),
    [(["run"], 202, 403, 403), (["read"], 403, 200, 403), (["admin"], 202, 200, 404)],
)
def test_scopes_are_enforced(api: Api, scopes: list[str], run: int, read: int, keys: int) -> None:
    key = api.key(*scopes)
    assert api.client.post(RUN, headers=key).status_code == run
    assert api.client.get("/api/v1/pipelines", headers=key).status_code == read
    # No such credential: whoever may look gets 404.
    api.actors.orgs.pop("globex")
    assert api.client.delete(f"{RUNS}/none", headers=key).status_code == (404 if run == 202 else 403)
    assert (api.client.put(f"{ORG}/plan", headers=key, json={"plan": "SCALE"}).status_code) == 403


def test_a_revoked_key_and_an_expired_one(api: Api) -> None:
    key = api.key("run")
    assert api.client.post(RUN, headers=key).status_code == 202
    api.actors.revoke(key["X-API-Key"])
    api.actors.publish()
    api.settle()
    problem(api.client.post(RUN, headers=key), 401, "unauthenticated")
    brief = api.actors.add_key("acme_corp", "run", expires_at=NOW + timedelta(seconds=1))
    api.actors.publish()
    api.settle()
    assert api.client.post(RUN, headers={"X-API-Key": brief}).status_code == 200


def test_a_key_added_a_moment_ago_works_and_guesses_cost_one_reading_a_second(api: Api) -> None:
    key = {"X-API-Key": api.actors.add_key("acme_corp", "run")}
    assert api.client.post(RUN, headers=key).status_code == 202
    before = api.actors.refreshed
    guesses = [f"acme_corp_api_{n:012x}{'x' * 43}" for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda guess: api.client.post(RUN, headers={"X-API-Key": guess}), guesses))
    for answer in found:
        problem(answer, 401, "unauthenticated")
    assert api.actors.refreshed - before <= 3


def test_a_new_key_in_many_requests_at_once_counts_as_no_failure(api: Api) -> None:
    key = {"X-API-Key": api.actors.add_key("acme_corp", "run")}
    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(lambda _: api.client.post(RUN, headers=key).status_code, range(16)))
    assert set(codes) <= {200, 202}


def test_too_many_failures_block_the_address_but_not_a_good_key(api: Api) -> None:
    key = api.key("run")
    codes = [
        api.client.post(RUN, headers={"X-API-Key": f"acme_corp_api_{n:012x}{'x' * 43}"}).status_code
        for n in range(15)
    ]
    assert codes == [401] * 10 + [429] * 5
    answer = api.client.post(RUN, headers={"X-CA-Root-Key": "wrong" * 10})
    problem(answer, 429, "failed_attempts")
    assert int(answer.headers["retry-after"]) >= 1
    assert api.client.post(RUN, headers=key).status_code == 202
    # Guessing goes on for ever; the trail holds the ten that counted and the one that blocked.
    assert len(api.audits()) == 11


def test_the_root_key_may_do_everything_and_is_not_limited(api: Api) -> None:
    answer = api.client.post(RUN, headers=ROOT_HEADERS)
    assert answer.status_code == 202
    assert "ratelimit" not in answer.headers
    assert api.actors.origins[0].trigger_by == "root"
    problem(api.client.post(RUN, headers={"X-CA-Root-Key": "x" * 40}), 401, "unauthenticated")


def test_both_keys_in_one_request_are_refused(api: Api) -> None:
    problem(api.client.post(RUN, headers=api.key("run") | ROOT_HEADERS), 400, "bad_request")


def test_platform_paths_want_the_root_key(api: Api) -> None:
    problem(api.client.get("/api/v1/organizations", headers=api.key("admin")), 403, "forbidden")
    problem(api.client.get("/api/v1/organizations"), 401, "unauthenticated")


def test_a_suspended_organisation_reads_but_runs_nothing(api: Api) -> None:
    key = api.key("admin")
    api.actors.add_org("acme_corp", status="SUSPENDED")
    api.actors.publish()
    api.settle()
    problem(api.client.post(RUN, headers=key), 403, "forbidden")
    assert api.client.get("/api/v1/pipelines", headers=key).status_code == 200
    api.actors.add_org("acme_corp", status="REMOVED")
    api.actors.publish()
    api.settle()
    problem(api.client.get("/api/v1/pipelines", headers=key), 403, "forbidden")


def test_request_limits_are_on_every_answer_and_hold(api: Api) -> None:
    api.actors.rates.update({"requests": 3, "runs": 2})
    api.actors.limits = type(api.actors.limits)(api.actors.rates)
    api.actors.add_org("acme_corp", limits=Limits(None, None, None))
    key = api.key("run", "read")
    answers = [api.client.post(RUN, headers=key, json={"date": f"2026-03-0{n}"}) for n in (1, 2, 3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert answers[0].headers["ratelimit"].startswith('"runs";r=1')
    assert answers[0].headers["ratelimit-policy"] == '"runs";q=2;w=60'
    assert answers[0].headers["x-ratelimit-org-limit"] == "2"
    problem(answers[2], 429, "rate_limited")
    assert int(answers[2].headers["retry-after"]) == 30
    # Three requests were counted: reading is over too, refusals of the framework carry the headers as well.
    answer = api.client.get("/api/v1/pipelines", headers=key)
    problem(answer, 429, "rate_limited")
    # The other organisation has its own.
    assert api.client.get("/api/v1/pipelines", headers=api.key("read", org="globex")).status_code == 200


def test_reads_are_on_record(api: Api) -> None:
    api.client.get("/api/v1/pipelines", headers=api.key("read") | {"X-User-ID": "bob"})
    assert noted(api) == [("acme_corp", "pipeline.read", "OK")]
    assert api.rows[0]["user_id"] == "bob"


def test_an_old_directory_is_believed_no_more(api: Api) -> None:
    key = api.key("read")
    assert api.client.get("/api/v1/pipelines", headers=key).status_code == 200
    api.actors.away = True
    api.doors.directory._clock = lambda: 1e12
    problem(api.client.get("/api/v1/pipelines", headers=key), 503, "transient")

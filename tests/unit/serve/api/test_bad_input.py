"""Bad input on every path of the document that takes it: slugs, bodies, days, things sent twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.serve.api.conftest import ROOT_HEADERS, RUN, RUNS, Api, noted, problem
from tests.unit.serve.api.test_edge import raw

PATHS = {
    "{provider}": "openai",
    "{domain}": "cost",
    "{pipeline}": "usage_cost",
    "{run_id}": "3f2a-7",
    "{key_id}": "0123456789ab",
    "{credential_id}": "0123456789ab",
}
#: Refused by the path alone.
HOSTILE = ["..", "../globex", "%2e%2e", "..%2Fglobex", "acme%2Fcorp", "acme%5ccorp", "acme%00", "%00"]
NO_SLUGS = [
    "Acme_corp",
    "ACME",
    "a" * 51,
    "ac",
    "1acme",
    "acme-corp",
    "acme.corp",
    "acme%20corp",
    "acm%C3%A9",
]
ELEVEN_MB = 11 * 2**20
WITH_DAYS = ("date", "start_date", "end_date")
NO_DAYS = [
    b"20260301",
    b"1772323200",
    b"1772323200.5",
    b"46082",
    b"-1",
    b"0",
    b"true",
    b'["2026-03-01"]',
    b"{}",
]


def operations(api: Api) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path with {org} in it or not, what the document says of it)."""
    for path, found in api.client.get("/openapi.json").json()["paths"].items():
        filled = path
        for name, value in PATHS.items():
            filled = filled.replace(name, value)
        for method, operation in found.items():
            yield method.upper(), filled, operation


def bodies(api: Api) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path of acme_corp, schema of the body) of every operation that reads one."""
    for method, path, operation in operations(api):
        if "requestBody" in operation:
            (content,) = operation["requestBody"]["content"].values()
            yield method, path.replace("{org}", "acme_corp"), content["schema"]


def test_there_is_something_to_try(api: Api) -> None:
    with_org = [path for _, path, _ in operations(api) if "{org}" in path]
    assert len(with_org) >= 19
    assert len(list(bodies(api))) >= 10


def test_a_hostile_slug_is_400_on_every_path(api: Api) -> None:
    for method, path, _ in operations(api):
        if "{org}" not in path:
            continue
        for slug in HOSTILE:
            status, headers, found = raw(api, method, path.replace("{org}", slug), [*ROOT_HEADERS.items()])
            assert (status, found["code"]) == (400, "bad_request"), (method, path, slug)
            assert headers["content-type"] == "application/problem+json"
    assert api.audits() == []


def test_what_is_no_slug_is_422_on_every_path_with_any_key(api: Api) -> None:
    for method, path, _ in operations(api):
        if "{org}" not in path:
            continue
        for slug in NO_SLUGS:
            url = path.replace("{org}", slug)
            found = problem(api.client.request(method, url, headers=ROOT_HEADERS), 422, "usage")
            assert found["errors"][0]["parameter"] == "org", (method, path, slug)
            # Before the key: nobody learns by it whether one is good.
            assert api.client.request(method, url).status_code == 422


def test_a_slug_in_the_query_is_held_to_the_same(api: Api) -> None:
    key = api.key("read")
    for path in (RUNS, f"{RUNS}/3f2a-7", f"{RUNS}/3f2a-7/events"):
        for slug in (*NO_SLUGS, "..", "..%2Fglobex", ""):
            answer = api.client.get(f"{path}?org={slug}", headers=ROOT_HEADERS)
            found = problem(answer, 422, "usage")
            assert found["errors"][0]["parameter"] == "org", (path, slug)
        assert api.client.get(f"{path}?org=acme%00", headers=ROOT_HEADERS).status_code == 400
        problem(api.client.get(f"{path}?org=globex", headers=key), 403, "forbidden")


def test_fifty_characters_are_a_slug(api: Api) -> None:
    problem(api.client.post(RUN.replace("acme_corp", "a" * 50), headers=ROOT_HEADERS), 404, "not_found")


def test_another_tenants_slug_is_403_on_every_path_and_on_record(api: Api) -> None:
    key = api.key("admin", org="globex")
    tried = 0
    for method, path, operation in operations(api):
        if "{org}" not in path:
            continue
        body = b"{}" if "requestBody" in operation else None
        answer = api.client.request(method, path.replace("{org}", "acme_corp"), headers=key, content=body)
        found = problem(answer, 403, "forbidden")
        assert "acme" not in found["title"]
        tried += 1
    entries = noted(api)
    assert len(entries) == tried
    assert {(org, status) for org, _, status in entries} == {("globex", "REFUSED")}
    assert not api.actors.requests


def test_a_body_that_says_a_key_twice_or_is_no_object_is_400_everywhere(api: Api) -> None:
    for method, path, schema in bodies(api):
        name = next(iter(schema.get("properties") or ["x"]))
        twice = f'{{"{name}": "a", "{name}": "b"}}'.encode()
        same = f'{{"{name}": null, "{name}": null}}'.encode()
        for body in (twice, same, b"[]", b"null", b"1", b'"{}"', b"{", b"{}{}", b"\xff\xfe{\x00}\x00"):
            answer = api.client.request(method, path, headers=ROOT_HEADERS, content=body)
            problem(answer, 400, "bad_request")


def test_wrong_types_and_unknown_keys_are_422_everywhere(api: Api) -> None:
    for method, path, schema in bodies(api):
        unknown = api.client.request(method, path, headers=ROOT_HEADERS, json={"no_such_key": 1})
        pointers = [one["pointer"] for one in problem(unknown, 422, "usage")["errors"]]
        assert "#/no_such_key" in pointers, (method, path)
        for name in schema.get("properties", {}):
            # No field takes a list in a list.
            answer = api.client.request(method, path, headers=ROOT_HEADERS, json={name: [[1]]})
            pointers = [one["pointer"] for one in problem(answer, 422, "usage")["errors"]]
            assert any(one.startswith(f"#/{name}") for one in pointers), (path, name)


@pytest.mark.parametrize("value", NO_DAYS)
def test_a_day_is_text_and_nothing_else(api: Api, value: bytes) -> None:
    for end in ("", "/plan"):
        for name in WITH_DAYS:
            body = b'{"%s": %s}' % (name.encode(), value)
            found = problem(api.client.post(RUN + end, headers=ROOT_HEADERS, content=body), 422, "usage")
            assert [one["pointer"] for one in found["errors"]] == [f"#/{name}"]
    assert not api.actors.requests


def test_a_day_in_a_query_is_no_number_either(api: Api) -> None:
    paths = (RUNS, "/api/v1/costs/acme_corp", "/api/v1/organizations/acme_corp/audit")
    key = api.key("admin")
    for path in paths:
        for name in ("since", "until"):
            for value in ("20260301", "1772323200", "0", "2026-3-1", "2026-02-30", "2026-03-01T00:00:00", ""):
                found = problem(api.client.get(f"{path}?{name}={value}", headers=key), 422, "usage")
                assert found["errors"][0]["parameter"] == name, (path, value)


def test_eleven_megabytes_are_413_everywhere_before_they_are_sent(api: Api) -> None:
    for method, path, _ in bodies(api):
        sent = [*ROOT_HEADERS.items(), ("Content-Length", str(ELEVEN_MB))]
        status, _, found = raw(api, method, path, sent)
        assert (status, found["code"]) == (413, "too_large"), path
    assert not api.actors.requests


@pytest.mark.parametrize("name", ["X-API-Key", "X-CA-Root-Key", "Idempotency-Key", "X-User-ID"])
def test_a_header_with_two_values_is_400_on_every_path(api: Api, name: str) -> None:
    for method, path, _ in operations(api):
        url = path.replace("{org}", "acme_corp")
        status, _, found = raw(api, method, url, [(name, "one"), (name.lower(), "two")])
        assert (status, found["code"]) == (400, "bad_request"), (method, path)
        assert name.lower() in found["detail"]
    assert len(api.actors.limits) == 0


def test_two_request_ids_are_none(api: Api) -> None:
    _, headers, _ = raw(api, "GET", "/health/live", [("X-Request-ID", "one"), ("X-Request-ID", "two")])
    assert headers["x-request-id"] not in ("one", "two", "one, two")


@pytest.mark.parametrize(
    "query", ["limit=1&limit=2", "limit=1&limit=1", "org=acme_corp&org=globex", "a&b&a", "l%69mit=1&limit=1"]
)
def test_a_parameter_that_is_sent_twice_is_400(api: Api, query: str) -> None:
    problem(api.client.get(f"{RUNS}?{query}", headers=api.key("read")), 400, "bad_request")
    assert noted(api) == []

"""Malformed requests, sizes, headers, log lines, what nobody expected."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import pytest

from tests.unit.serve.api.conftest import ROOT_HEADERS, RUN, RUNS, Api, problem

Raw = tuple[int, dict[str, str], dict[str, Any]]


def raw(api: Api, method: str, path: str, headers: list[tuple[str, str]], body: bytes = b"") -> Raw:
    """A request exactly as written."""
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=20)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    found = (answer.status, {k.lower(): v for k, v in answer.getheaders()}, json.loads(answer.read()))
    connection.close()
    return found


@pytest.mark.parametrize(
    "path",
    [
        RUN.replace("acme_corp", "acme%2Fcorp"),
        RUN.replace("acme_corp", "..%2fglobex"),
        RUN.replace("acme_corp", "acme%5Ccorp"),
        RUN.replace("acme_corp", "%2e%2e"),
        RUN.replace("acme_corp", "../globex"),
        RUN.replace("acme_corp", "acme%00"),
        RUN.replace("acme_corp", "acme%0d%0aX-A:b"),
        RUN.replace("acme_corp", "acme%ff"),
        RUN + "?a=%00",
        RUN + "?a=%fe",
    ],
)
def test_a_hostile_path_is_400_before_anything(api: Api, path: str) -> None:
    status, headers, found = raw(api, "POST", path, [("X-CA-Root-Key", "x" * 40)])
    assert (status, found["code"]) == (400, "bad_request")
    assert headers["content-type"] == "application/problem+json"
    assert not api.actors.requests
    # Not even a failed attempt was counted.
    assert len(api.actors.limits) == 0


@pytest.mark.parametrize(
    "slug", ["Acme", "a", "a" * 51, "1acme", "acme-corp", "acme%20corp", "acm%C3%A9", "_acme"]
)
def test_a_slug_that_is_none_is_422(api: Api, slug: str) -> None:
    for headers in ({}, ROOT_HEADERS):
        found = problem(api.client.post(RUN.replace("acme_corp", slug), headers=headers), 422, "usage")
        assert found["errors"][0]["parameter"] == "org"


@pytest.mark.parametrize("name", ["X-API-Key", "X-CA-Root-Key", "Idempotency-Key"])
def test_two_values_of_one_header_are_400(api: Api, name: str) -> None:
    key = api.key("run")["X-API-Key"]
    status, _, found = raw(api, "POST", RUN, [("X-API-Key", key), (name, "one"), (name, "two")])
    assert (status, found["code"]) == (400, "bad_request")
    status, _, _ = raw(api, "POST", RUN, [("X-API-Key", key), ("X-API-Key", key), ("Content-Length", "0")])
    assert status == 202


def test_large_headers_are_431(api: Api) -> None:
    status, _, found = raw(api, "GET", RUNS, [(f"X-{n}", "x" * 4000) for n in range(5)])
    assert (status, found["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize("settings_changes", [{"api_max_body_bytes": 1000}])
def test_a_large_body_is_413_whether_it_says_so_or_not(api: Api) -> None:
    key = api.key("run")
    problem(api.client.post(RUN, headers=key, content=b" " * 1001), 413, "too_large")
    # Without a length: counted while it arrives.
    answer = api.client.post(RUN, headers=key, content=(b" " * 100 for _ in range(11)))
    problem(answer, 413, "too_large")
    assert api.client.post(RUN, headers=key, content=b"{}" + b" " * 998).status_code == 202


def test_eleven_megabytes_are_413(api: Api) -> None:
    answer = api.client.post(RUN, headers=api.key("run"), content=b" " * (11 * 2**20))
    problem(answer, 413, "too_large")


def test_a_client_that_goes_away_in_its_body_does_no_harm(api: Api) -> None:
    key = api.key("run")
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        head = (
            f"POST {RUN} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key['X-API-Key']}\r\nContent-Length: 50\r\n\r\n{{"
        )
        connection.sendall(head.encode())
    assert api.client.post(RUN, headers=key).status_code == 202


def test_paths_and_methods_that_are_not_there(api: Api) -> None:
    problem(api.client.get("/api/v1/nothing"), 404, "not_found")
    problem(api.client.get("/"), 404, "not_found")
    answer = api.client.patch("/api/v1/pipelines")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"
    # A pipeline's path has the same form as a run's: the nearer one says what can be done.
    for method in ("GET", "PATCH"):
        answer = api.client.request(method, f"{RUNS}/3f2a-7/retry")
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "POST"
    problem(api.client.get(f"{RUNS}/3f2a-7/other"), 404, "not_found")


def test_headers_on_every_answer(api: Api) -> None:
    for answer in (api.client.get("/health/live"), api.client.get("/nothing"), api.client.get(RUNS)):
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-api-version"] == "v1"
        assert float(headers["x-process-time"]) >= 0


@pytest.mark.parametrize(
    ("given", "taken"), [("abc-1.2:3_x", True), ("a b", False), ("x" * 129, False), ("", False)]
)
def test_a_sane_request_id_is_taken_over(api: Api, given: str, taken: bool) -> None:
    answer = api.client.get("/health/live", headers={"X-Request-ID": given})
    assert (answer.headers["x-request-id"] == given) is taken
    assert api.logged()[0]["request_id"] == answer.headers["x-request-id"]


def test_a_request_is_one_log_line_without_body_query_or_key(api: Api) -> None:
    key = api.key("run", "read")
    api.client.post(RUN + "?secret=hush", headers=key, json={"date": "2026-03-01"})
    (line,) = api.logged()
    assert (line["method"], line["path"], line["status"], line["org"]) == ("POST", RUN, 202, "acme_corp")
    assert line["actor"].startswith("key:")
    text = json.dumps(line)
    for hidden in ("hush", "2026-03-01", key["X-API-Key"][-43:]):
        assert hidden not in text


def test_what_nobody_expected_is_a_500_that_tells_nothing(api: Api) -> None:
    key = api.key("run")

    async def broken(*_: object) -> None:
        raise RuntimeError("the password is swordfish")

    api.actors.accept = broken  # type: ignore[method-assign,assignment]
    answer = api.client.post(RUN, headers=key)
    problem(answer, 500, "internal")
    assert "swordfish" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert api.logged()[-1]["error"] == "RuntimeError"


@pytest.mark.parametrize(
    "settings_changes", [{"api_cors_origins": "https://ui.example, http://127.0.0.1:3000"}]
)
def test_cors_is_for_the_origins_of_the_settings(api: Api) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    good = api.client.options(RUN, headers={"Origin": "https://ui.example", **asked})
    assert good.status_code == 200
    assert good.headers["access-control-allow-origin"] == "https://ui.example"
    assert good.headers["x-content-type-options"] == "nosniff"
    bad = api.client.options(RUN, headers={"Origin": "https://evil.example", **asked})
    assert "access-control-allow-origin" not in bad.headers


def test_without_origins_there_is_no_cors(api: Api) -> None:
    answer = api.client.get("/health/live", headers={"Origin": "https://ui.example"})
    assert "access-control-allow-origin" not in answer.headers

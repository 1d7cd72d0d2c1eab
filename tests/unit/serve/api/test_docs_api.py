"""docs/api.md has a curl for each path, and the former readme's own commands work as they stand."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from serve.problems import TITLES
from tests.unit.serve.api.conftest import Api
from tests.unit.serve.api.doubles import ROOT_KEY
from tests.unit.serve.doubles import ROOT

PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
CALL = re.compile(r"""^curl (?:-X (?P<method>[A-Z]+) )?"\$API(?P<path>[^"?]*)(?:\?[^"]*)?\"""", re.MULTILINE)
#: The former readme's, byte for byte but for {org} and the keys' values.
README = [
    """curl -X POST "http://localhost:8001/api/v1/pipelines/run/{org}/gcp/cost/billing" \\
  -H "X-API-Key: $ORG_API_KEY" -d '{"date":"2025-12-08"}'""",
    """curl -X POST "http://localhost:8001/api/v1/pipelines/run/{org}/openai/cost/usage_cost" \\
  -H "X-API-Key: $ORG_API_KEY" -d '{"start_date":"2025-12-01","end_date":"2025-12-08"}'""",
    """curl -X POST "http://localhost:8001/api/v1/pipelines/run/{org}/saas_subscription/costs/saas_cost" \\
  -H "X-API-Key: $ORG_API_KEY" -d '{}'""",
]


def pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)))


def test_there_is_a_curl_for_each_path_and_a_path_for_each_curl(api: Api) -> None:
    paths = api.client.get("/openapi.json").json()["paths"]
    operations = {(method.upper(), path) for path, found in paths.items() for method in found}
    calls = [(found["method"] or "GET", found["path"]) for found in CALL.finditer(PAGE)]
    assert len(calls) >= len(operations)
    for method, path in operations:
        fits = [call for call in calls if call[0] == method and pattern(path).fullmatch(call[1])]
        assert fits, f"{method} {path} has no curl"
    for method, path in calls:
        assert any(one == method and pattern(other).fullmatch(path) for one, other in operations), path


def test_every_problem_code_is_documented(api: Api) -> None:
    assert [code for code in TITLES if f"`{code}`" not in PAGE] == []


@pytest.mark.parametrize("command", README, ids=["gcp", "openai", "saas"])
def test_the_former_readmes_commands_work_with_real_curl(api: Api, command: str) -> None:
    key = api.key("run")["X-API-Key"]
    api.actors.credentials.add(("acme_corp", "gcp"))
    api.actors.publish()
    # curl itself leads localhost:8001 to the test's port: the command stays as it is.
    to = f"--connect-to localhost:8001:127.0.0.1:{api.port} --noproxy '*'"
    said = subprocess.run(
        [
            "bash",
            "-c",
            command.replace("{org}", "acme_corp").replace(
                "curl ", f"curl -sS {to} -w '\\n%{{http_code}}' ", 1
            ),
        ],
        env={"ORG_API_KEY": key, "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    body, _, status = said.stdout.rpartition("\n")
    path = re.search(r"\{org\}/([a-z_/]+)", command)
    assert path is not None
    known = path[1] in api.doors.work.catalog.pipelines
    assert status == ("202" if known else "404"), body
    assert json.loads(body)["status"] == ("PENDING" if known else 404)
    assert ROOT_KEY not in body

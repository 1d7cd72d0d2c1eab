"""Runs through the HTTP API: what `manta run`, `cancel` and the progress of both go through."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from http import HTTPStatus
from typing import Any

import httpx

from engine.errors import (
    AuthenticationError,
    ConfigurationError,
    CredentialError,
    ForbiddenError,
    InternalError,
    LimitError,
    MantaError,
    NotFoundError,
    StateError,
    TransientError,
    UsageError,
)
from engine.root_keys import read_root_keys
from engine.runs import Progress, Run, Tally
from engine.settings import Settings
from engine.types import Discovery, RunRequest

#: Longer than the API itself waits for its actors.
TIMEOUT_S = 40.0
ATTEMPTS, PAUSE_S = 4, 2.0
KINDS: Mapping[str, type[MantaError]] = {
    kind.code: kind
    for kind in (
        AuthenticationError,
        ConfigurationError,
        CredentialError,
        ForbiddenError,
        InternalError,
        NotFoundError,
        StateError,
        TransientError,
        UsageError,
    )
}


def headers_of(settings: Settings, *, org_key: str | None) -> dict[str, str]:
    """The key to send: the organisation's when one is given, else the operator's.

    Raises ConfigurationError when there is neither.
    """
    if org_key:
        return {"X-API-Key": org_key}
    return {"X-CA-Root-Key": read_root_keys(settings)[0]}


class HttpRuns:
    """See the module. `headers` carry the key; `endpoints` are provider addresses for the runs it starts."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        endpoints: Mapping[str, str],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = url
        self._sleep = sleep
        self._endpoints = dict(endpoints)
        # A proxy of the environment is for the outside; the API's answers are waited for as long as it says.
        self._http = httpx.Client(base_url=url, headers=dict(headers), timeout=TIMEOUT_S, trust_env=False)

    def submit(
        self, request: RunRequest, *, trigger_by: str, idempotency_key: str | None = None
    ) -> tuple[Run, bool]:
        """Start a run; returns it and whether it is new. The same key within 24 hours is the same run."""
        headers = {"X-User-ID": trigger_by}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        answer = self._insist(
            "POST",
            f"/api/v1/pipelines/run/{request.org}/{request.pipeline}",
            json=self._body(request),
            headers=headers,
        )
        found = self._run(answer.json()["pipeline_logging_id"])
        return found, answer.status_code == HTTPStatus.ACCEPTED

    def discover(self, request: RunRequest) -> Discovery:
        """Ask the pipeline's source which days changed; nothing is started."""
        path = f"/api/v1/pipelines/run/{request.org}/{request.pipeline}/plan?discover=true"
        answer = self._insist("POST", path, json=self._body(request)).json()
        return Discovery(frozenset(map(date.fromisoformat, answer["discovered_days"] or ())), ())

    def progress(self, run_ids: Sequence[str]) -> list[Progress]:
        """How runs stand."""
        found = []
        for run_id in run_ids:
            facts = self._facts(run_id)
            found.append(Progress(run_of(facts), tuple(facts["running"])))
        return found

    def _body(self, request: RunRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "start_date": request.start.isoformat(),
            "end_date": request.end.isoformat(),
            "policy": request.policy,
            "variables": dict(request.variables),
        }
        return body | ({"endpoints": self._endpoints} if self._endpoints else {})

    def cancel(self, org: str, run_id: str) -> Run:
        """Stop a run. Raises NotFoundError, StateError."""
        self._call("DELETE", f"/api/v1/pipelines/runs/{run_id}")
        return self._run(run_id)

    def health(self) -> dict[str, int]:
        """The coordinator's numbers. Raises TransientError when something it stands on is red."""
        answer = self._call("GET", "/health/ready", may_be=HTTPStatus.SERVICE_UNAVAILABLE).json()
        for check in answer["checks"]:
            if check["status"] != "ok":
                raise TransientError(f"{check['name']}: {check['problem']}", fix=check["fix"])
        return dict(answer["numbers"])

    def _run(self, run_id: str) -> Run:
        return run_of(self._facts(run_id))

    def _facts(self, run_id: str) -> dict[str, Any]:
        answer = self._call("GET", f"/api/v1/pipelines/runs/{run_id}", params={"detail": "false"})
        return dict(answer.json())

    def _insist(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Ask again while the API answers that it cannot now: an equal request is the same run."""
        for _ in range(ATTEMPTS - 1):
            answer = self._call(method, path, may_be=HTTPStatus.SERVICE_UNAVAILABLE, **arguments)
            if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                return answer
            self._sleep(PAUSE_S)
        return self._call(method, path, **arguments)

    def _call(self, method: str, path: str, *, may_be: int | None = None, **arguments: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise TransientError(
                f"The API at {self._url} does not answer ({type(error).__name__}).",
                fix="See `manta status`; `manta up` (or `manta demo`) starts it again.",
            ) from error
        if answer.is_success or answer.status_code == may_be:
            return answer
        raise error_of(answer)


def error_of(answer: httpx.Response) -> MantaError:
    """A problem answer as the error it was made of."""
    try:
        problem = dict(answer.json())
        code, detail, fix = str(problem["code"]), str(problem["detail"]), str(problem.get("fix") or "")
    except (ValueError, KeyError, TypeError):
        return TransientError(
            f"The API answered {answer.status_code} without saying why.",
            fix="Look whether MANTA_API_URL is Manta's API, and at `manta status`.",
        )
    named = next(iter(problem.get("errors") or [{}]))
    field = (named.get("pointer") or named.get("parameter") or "").removeprefix("#/") or None
    if code in KINDS:
        return KINDS[code](detail, fix=fix, field=field)
    if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS or code == "too_many_runs":
        wait = timedelta(seconds=float(answer.headers.get("Retry-After", "1")))
        kind: Any = code
        return LimitError(detail, kind=kind, retry_after=wait, fix=fix)
    return UsageError(detail, fix=fix, field=field)


def run_of(facts: Mapping[str, Any]) -> Run:
    """A run from its JSON. What the API does not tell (its place on record) is empty."""
    request = RunRequest(
        org=facts["org_slug"],
        pipeline=facts["pipeline"],
        start=date.fromisoformat(facts["start_date"]),
        end=date.fromisoformat(facts["end_date"]),
        policy=facts["policy"],
        variables=facts["variables"],
    )
    ended = facts["end_time"]
    return Run(
        id=facts["pipeline_logging_id"],
        request=request,
        request_key="",
        pipeline_id=facts["pipeline_id"],
        status=facts["status"],
        sequence=0,
        version=0,
        trigger_type=facts["trigger_type"],
        trigger_by=facts["trigger_by"],
        start_time=datetime.fromisoformat(facts["start_time"]),
        plan_id=facts["plan_id"],
        tally=Tally(**facts["tally"]),
        error_code=facts["error_code"],
        error_message=facts["error_message"],
        end_time=datetime.fromisoformat(ended) if ended else None,
    )

"""Every refusal as application/problem+json (RFC 9457), whoever raised it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from math import ceil
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

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
from engine.log import redact

MEDIA_TYPE = "application/problem+json"
RETRY_S = 5
#: The first line that an error is an instance of says its status.
STATUSES: tuple[tuple[type[MantaError], HTTPStatus], ...] = (
    (StateError, HTTPStatus.CONFLICT),
    (UsageError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (CredentialError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (ConfigurationError, HTTPStatus.CONFLICT),
    (AuthenticationError, HTTPStatus.UNAUTHORIZED),
    (ForbiddenError, HTTPStatus.FORBIDDEN),
    (LimitError, HTTPStatus.TOO_MANY_REQUESTS),
    (TransientError, HTTPStatus.SERVICE_UNAVAILABLE),
)
#: What each code means, for the page that `type` points at.
TITLES: Mapping[str, str] = {
    "bad_request": "The request cannot be read",
    "unauthenticated": "No valid key",
    "forbidden": "Not allowed",
    "not_found": "Not found",
    "method_not_allowed": "Method not allowed",
    "conflict": "Not in this state",
    "configuration": "Something has to be set up first",
    "credential": "The provider's key cannot be used",
    "too_large": "Body too large",
    "usage": "The request is wrong",
    "headers_too_large": "Headers too large",
    "rate_limited": "Too many requests",
    "failed_attempts": "Too many failed attempts",
    "daily_quota": "Daily quota reached",
    "monthly_quota": "Monthly quota reached",
    "concurrent_runs": "Too many runs at once",
    "too_many_runs": "Too many runs in all",
    "transient": "Not available at the moment",
    "internal": "Internal error",
}
INTERNAL_FIX = "Try again; if it stays, report it with the request id."
# The engine's words name options of the command line.
_OPTIONS = {"start": "start_date", "end": "end_date", "email": "admin_email", "var": "variables"}
_PARAMETERS = {"after": "cursor"}
_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z_-]*)")


# Not frozen: exception machinery sets attributes.
@dataclass(eq=False)
class Problem(Exception):  # noqa: N818  (RFC 9457's own word)
    """One refusal; `errors` are of single fields, `headers` go with the answer."""

    status: int
    code: str
    detail: str
    fix: str = ""
    errors: Sequence[Mapping[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self, request_id: str) -> bytes:
        """The JSON document."""
        members: dict[str, Any] = {
            "type": f"/docs#{self.code}",
            "title": TITLES.get(self.code, HTTPStatus(self.status).phrase),
            "status": self.status,
            "detail": redact(self.detail),
            "code": self.code,
            "request_id": request_id,
        }
        if self.fix:
            members["fix"] = redact(self.fix)
        if self.errors:
            members["errors"] = [dict(error) for error in self.errors]
        # ASCII: whatever a client sent can be sent back.
        return json.dumps(members, separators=(",", ":")).encode()

    def response(self, request_id: str) -> Response:
        """The answer."""
        return Response(self.body(request_id), self.status, headers=dict(self.headers), media_type=MEDIA_TYPE)


def of_error(error: MantaError, request: Request | None = None) -> Problem:
    """An engine's error in HTTP's words; an internal one does not say what it knows."""
    if isinstance(error, InternalError):
        return Problem(
            HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "Something went wrong on our side.", INTERNAL_FIX
        )
    status = next((status for kind, status in STATUSES if isinstance(error, kind)), HTTPStatus.CONFLICT)
    if error.code == "too_many_runs":
        status = HTTPStatus.SERVICE_UNAVAILABLE
    code = error.code if error.code in TITLES else "configuration"
    headers: dict[str, str] = {}
    if isinstance(error, LimitError):
        headers["Retry-After"] = str(max(1, ceil(error.retry_after.total_seconds())))
    elif isinstance(error, TransientError):
        code = "transient"
        wait_s = error.retry_after.total_seconds() if error.retry_after else RETRY_S
        headers["Retry-After"] = str(max(1, ceil(wait_s)))
    elif isinstance(error, AuthenticationError):
        headers["WWW-Authenticate"] = 'ApiKey realm="manta"'
    detail = _api_words(error.message)
    return Problem(
        status, code, detail, _api_words(error.fix), _fields(error, detail, request), headers=headers
    )


def _fields(error: MantaError, detail: str, request: Request | None) -> list[dict[str, str]]:
    if error.field is None or not isinstance(error, UsageError | CredentialError):
        return []
    name = _PARAMETERS.get(error.field, error.field)
    if request is not None and (request.method in ("GET", "DELETE") or not name.islower()):
        return [{"parameter": name, "detail": detail}]
    return [{"pointer": f"#/{name}", "detail": detail}]


def _api_words(text: str) -> str:
    if "manta " in text:
        return text  # a whole command: its options are right as they are
    return _OPTION.sub(lambda found: _OPTIONS.get(found[1], found[1].replace("-", "_")), text)


def of_validation(errors: Sequence[Mapping[str, Any]], *, body: bool) -> Problem:
    """What pydantic found wrong: in the body by JSON pointer, elsewhere by parameter."""
    found = []
    for error in errors:
        said = str(error["msg"]).removeprefix("Value error, ")
        place = [str(part) for part in error["loc"]]
        if body:
            pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in place)
            found.append({"pointer": f"#{pointer}", "detail": said})
        else:
            found.append({"parameter": place[-1], "detail": said})
    first = found[0] if found else {"detail": "is wrong"}
    where = (first.get("pointer") or first.get("parameter") or "").removeprefix("#/")
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "usage",
        f"{where}: {first['detail']}" if where else first["detail"],
        "Correct what `errors` names.",
        found,
    )


def request_id_of(request: Request) -> str:
    """The request's id, as the answer carries it."""
    return str(getattr(request.state, "request_id", "-"))


def install(app: FastAPI) -> None:
    """Answer every error of the app as a problem."""

    async def problem(request: Request, error: Exception) -> Response:
        found = error if isinstance(error, Problem) else Problem(500, "internal", "")
        return found.response(request_id_of(request))

    async def manta(request: Request, error: Exception) -> Response:
        if not isinstance(error, MantaError):
            raise error
        # The log line says what the answer does not.
        request.state.failure = error
        return of_error(error, request).response(request_id_of(request))

    async def validation(request: Request, error: Exception) -> Response:
        found = error.errors() if isinstance(error, RequestValidationError) else ()
        return of_validation(found, body=False).response(request_id_of(request))

    async def http(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        return of_http(error, request).response(request_id_of(request))

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(MantaError, manta)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)


def of_http(error: HTTPException, request: Request) -> Problem:
    """The framework's own refusals: no such path, no such method."""
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND:
        return Problem(404, "not_found", "There is nothing at this path.", "See /docs for every path.")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(methods_of(request))
        return Problem(
            405,
            "method_not_allowed",
            f"{request.method} is not possible here.",
            "See /docs for what is.",
            headers=headers,
        )
    status = HTTPStatus(error.status_code)
    code = "bad_request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal"
    return Problem(status, code, f"{status.phrase}.", headers=headers)


def methods_of(request: Request) -> list[str]:
    """What this path can do; the framework names one route's methods only.

    Where a path fits a nearer form and a more general one, as runs/{id} does, the nearer one counts.
    """
    paths = request.app.openapi()["paths"]
    asked = request.scope["path"].split("/")
    found: dict[int, set[str]] = {}
    for path, operations in paths.items():
        parts = path.split("/")
        if len(parts) == len(asked) and all(
            a == b or b[:1] == "{" for a, b in zip(asked, parts, strict=True)
        ):
            named = sum(part[:1] == "{" for part in parts)
            found.setdefault(named, set()).update(method.upper() for method in operations)
    return sorted(found[min(found)]) if found else ["GET"]

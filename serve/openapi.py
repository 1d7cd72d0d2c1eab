"""The OpenAPI document and a page that shows it without a single script."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.responses import HTMLResponse

from serve.answers import ProblemAnswer
from serve.problems import INTERNAL_FIX, MEDIA_TYPE, TITLES, Problem

TITLE = "Manta run API"
ABOUT = """\
Starts and follows runs: a run is on record before its 202 leaves, and goes on whatever happens to the
connection.

Every organisation has keys of its own (`X-API-Key`), with the scopes `run`, `read` and `admin` (which
includes both); platform paths want the root key (`X-CA-Root-Key`). `X-User-ID` is put on record as a claim,
never checked. `X-Request-ID` is taken over if it is a plain token, and is in every answer and log line.
Every refusal is a problem document (RFC 9457). Amounts are strings: nothing is rounded on the way.
"""
STATUSES = {
    400: "The request cannot be read: hostile path, broken JSON, two values of one header.",
    401: "No valid key.",
    403: "The key may not do this: another organisation's, a missing scope, a suspended organisation.",
    404: "There is no such thing.",
    405: "The path knows no such method.",
    409: "Not in this state, or something has to be set up first.",
    413: "The body is too large.",
    422: "The request is wrong; `errors` names the fields.",
    429: "A limit or quota is reached; `Retry-After` says when to come back.",
    431: "The headers are too large.",
    500: "Something went wrong on our side.",
    503: "Not available at the moment; `Retry-After` says when to come back.",
}
BAD_DAY = "date 2026-02-30: February 2026 has 28 days."
#: Code, detail and fix of an example of each status.
EXAMPLES = {
    400: ("bad_request", "The body says 'date' twice.", "Send one JSON object."),
    401: ("unauthenticated", "The API key is not valid.", "Send a valid key in X-API-Key."),
    403: ("forbidden", "This key is not one of globex's.", "Use a key of that organisation."),
    404: ("not_found", "There is no pipeline 'openai/cost/usage'.", "Did you mean openai/cost/usage_cost?"),
    405: ("method_not_allowed", "PATCH is not possible here.", "See /docs for what is."),
    409: ("conflict", "Run 3f2a-7 has ended: SUCCESS.", "There is nothing to cancel."),
    413: ("too_large", "The body is larger than 10485760 bytes.", "Send a smaller one."),
    422: ("usage", BAD_DAY, "Correct what `errors` names."),
    429: ("rate_limited", "acme_corp may send 600 requests a minute.", "Wait as long as Retry-After says."),
    431: ("headers_too_large", "The headers take more than 16384 bytes.", "Send fewer."),
    500: ("internal", "Something went wrong on our side.", INTERNAL_FIX),
    503: ("transient", "The coordinator does not answer.", "Try again."),
}
RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds until it is worth another try.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}
#: Headers that every answer with this status has.
HEADERS: dict[int, dict[str, Any]] = {
    401: {
        "WWW-Authenticate": {
            "description": "Which scheme is wanted.",
            "required": True,
            "schema": {"type": "string"},
        }
    },
    429: RETRY_AFTER,
    503: RETRY_AFTER,
}
REQUEST_ID = {
    "X-Request-ID": {
        "description": "The request's id: the one that was sent, if it is a plain token, or a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"},
    }
}
LOCATION = {
    "Location": {
        "description": "Where to look for it.",
        "required": True,
        "schema": {"type": "string", "pattern": "^/api/v1/"},
    }
}
LIMITED = (400, 401, 403, 413, 422, 429, 431, 500, 503)
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "code{background:#f3f3f3;padding:0 .25em}h2{border-bottom:1px solid #ccc;margin-top:2rem}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.25rem .5rem}"
    "tr:nth-child(even){background:#f8f8f8}pre{background:#f3f3f3;padding:.5rem;overflow:auto}"
)
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Refusals of a route in the document: those of every route that knows its caller, and these."""
    return only(*LIMITED, *statuses)


def only(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Just these refusals."""
    schema = {"$ref": "#/components/schemas/ProblemAnswer"}
    return {
        status: {
            "description": STATUSES[status],
            "content": {MEDIA_TYPE: {"schema": schema, "example": _example(status)}},
            **({"headers": HEADERS[status]} if status in HEADERS else {}),
        }
        for status in sorted(set(statuses))
    }


def _example(status: int) -> dict[str, Any]:
    code, detail, fix = EXAMPLES[status]
    errors = [{"pointer": "#/date", "detail": BAD_DAY}] if detail == BAD_DAY else []
    found = Problem(status, code, detail, fix, errors).body("8f14e45fceea467a9d2b")
    example: dict[str, Any] = json.loads(found)
    return example


def operation_id(route: APIRoute) -> str:
    """The handler's name: every handler has its own."""
    return route.name


def document(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Answers the app's OpenAPI document, made once."""

    def made() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=TITLE,
                version=app.version,
                description=ABOUT,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            schemas = found.setdefault("components", {}).setdefault("schemas", {})
            schemas["ProblemAnswer"] = ProblemAnswer.model_json_schema(
                ref_template="#/components/schemas/{model}"
            )
            schemas.update(schemas["ProblemAnswer"].pop("$defs", {}))
            _lift_definitions(found, schemas)
            _mark_requests(found)
            app.openapi_schema = found
        return app.openapi_schema

    return made


def _lift_definitions(found: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Bodies carry definitions of their own; in one document they stand under components."""
    for path in found["paths"].values():
        for operation in path.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                schemas.update(content.get("schema", {}).pop("$defs", {}))


def _mark_requests(found: dict[str, Any]) -> None:
    """Every answer carries the request's id: the outermost ring puts it there."""
    for path in found["paths"].values():
        for operation in path.values():
            for answered in operation["responses"].values():
                answered["headers"] = {**answered.get("headers", {}), **REQUEST_ID}


def page(app: FastAPI) -> HTMLResponse:
    """The document for people."""
    found = app.openapi()
    rows = [
        _row(method, path, operation)
        for path, operations in found["paths"].items()
        for method, operation in operations.items()
    ]
    codes = [
        f'<tr id="{escape(code)}"><td><code>{escape(code)}</code></td><td>{escape(title)}</td></tr>'
        for code, title in TITLES.items()
    ]
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{TITLE}</title>'
        f"<style>{STYLE}</style></head><body><h1>{TITLE}</h1>{_paragraphs(ABOUT)}"
        '<p>The whole document: <a href="openapi.json">openapi.json</a>.</p>'
        f"<h2>Paths</h2>{_table(('', 'path', 'what it does', 'key'), rows)}"
        f"<h2>Problems</h2>{_table(('code', 'meaning'), codes)}</body></html>"
    )
    policy = f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; frame-ancestors 'none'"
    return HTMLResponse(text, headers={"Content-Security-Policy": policy})


def _row(method: str, path: str, operation: dict[str, Any]) -> str:
    keys = " or ".join(_header(name) for one in operation.get("security", []) for name in one)
    about = operation.get("description") or operation.get("summary", "")
    return (
        f"<tr><td><code>{method.upper()}</code></td><td><code>{escape(path)}</code></td>"
        f"<td>{_marked(about)}</td><td>{escape(keys) or 'none'}</td></tr>"
    )


def _header(scheme: str) -> str:
    return {"OrganisationKey": "X-API-Key", "RootKey": "X-CA-Root-Key"}[scheme]


def _table(head: Iterable[str], rows: Iterable[str]) -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><tr>{names}</tr>{''.join(rows)}</table>"


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_marked(part)}</p>" for part in text.split("\n\n"))


def _marked(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))

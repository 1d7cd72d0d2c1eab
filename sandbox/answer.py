"""The road every provider request takes: key, faults, report, record."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response

from sandbox import faults, seen
from sandbox.data import Provider
from sandbox.faults import Fault
from sandbox.query import Cursor, Params, Refusal, page_number
from sandbox.state import KEY_PREFIX, State
from sandbox.styles import dump

ORG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(slots=True)
class Page:
    """A page before it is written: its data, where the next one starts, how wide one step is."""

    data: list[dict[str, Any]]
    following: Cursor | None
    step: int

    def rows(self) -> list[dict[str, Any]]:
        """Give the rows of every bucket, or the records of a report without buckets."""
        return [row for entry in self.data for row in entry.get("results", [entry])]


class Vendor(Protocol):
    """What differs between providers on that road."""

    provider: Provider
    id_header: str

    def key(self, request: Request) -> str | None: ...
    def admit(self, request: Request, key: str | None) -> None: ...
    def refuse(self, refusal: Refusal, *, request_id: str) -> Response: ...
    def write(self, page: dict[str, Any], *, style: str) -> dict[str, Any]: ...


type Report = Callable[[State, str, Params], Page]


def organisation(vendor: Vendor, key: str | None) -> str | None:
    """Read the organisation out of an admin key; None when it is no key of the sandbox."""
    prefix = KEY_PREFIX[vendor.provider]
    if key is None or not key.startswith(prefix):
        return None
    org = key.removeprefix(prefix)
    return org if ORG.fullmatch(org) else None


async def answer(state: State, vendor: Vendor, request: Request, report: Report | None) -> Response:
    """Answer one request and record it, whatever becomes of it."""
    key, path = vendor.key(request), request.url.path
    org, request_id = organisation(vendor, key), f"req_{uuid4().hex}"
    pairs = request.query_params.multi_items()
    record = seen.Request(
        time=datetime.now(UTC).isoformat(),
        provider=vendor.provider,
        org=org,
        method=request.method,
        path=path,
        query=tuple(pairs),
        headers=seen.without_secrets(request.headers.items()),
        key_last4=key[-4:] if key else None,
        page=page_number(pairs),
    )
    # Before the answer: a client that gives up waiting must still be seen.
    state.seen.add(record)
    fault: Fault | None = None
    try:
        if report is None:
            raise Refusal(404, f"Invalid URL ({request.method} {path})", code="not_found")
        if request.method != "GET":
            raise Refusal(405, f"Method {request.method} is not allowed here.", code="method_not_allowed")
        vendor.admit(request, None if key in state.revoked else key)
        fault = state.faults.take(vendor.provider, org, path, record.page)
        record.fault = fault.name if fault else None
        response = await _reported(state, vendor, request, fault, report, record, request_id)
    except Refusal as refusal:
        response = vendor.refuse(refusal, request_id=request_id)
        if fault is not None and fault.name != "revoked_key":
            # A refused query never reached what the fault was to spoil.
            _give_back(state, fault, record)
    record.status = response.status_code
    return response


def _give_back(state: State, fault: Fault, record: seen.Request) -> None:
    state.faults.give_back(fault)
    record.fault = None


async def _reported(
    state: State,
    vendor: Vendor,
    request: Request,
    fault: Fault | None,
    report: Report,
    record: seen.Request,
    request_id: str,
) -> Response:
    if fault is not None and fault.name == "revoked_key":
        state.revoked.add(str(vendor.key(request)))
        vendor.admit(request, None)
    if fault is not None and fault.name in faults.REPLACING:
        return faults.replaced(
            fault, lambda status, text: vendor.refuse(Refusal(status, text), request_id=request_id)
        )
    if fault is not None and fault.name == "timeout":
        await asyncio.sleep(fault.seconds)
    org = str(record.org)
    page = report(state, org, Params(record.query, scope=f"{org} {record.path}"))
    envelope = {
        "data": page.data,
        "has_more": page.following is not None,
        "next_page": page.following.encode() if page.following else None,
    }
    asked = dict(record.query).get("page")
    if fault is not None and fault.name in faults.PAGE and not spoil(fault, page, envelope, asked=asked):
        _give_back(state, fault, record)
    body = dump(vendor.write(envelope, style=state.style_of(org)))
    if fault is not None and fault.name in faults.BODY:
        return faults.broken(fault, body)
    return Response(body, media_type="application/json", headers={vendor.id_header: request_id})


def spoil(fault: Fault, page: Page, envelope: dict[str, Any], *, asked: str | None) -> bool:
    """Spoil a page as the fault says; False when there was nothing to act on, e.g. no next page."""
    following = page.following
    if fault.name == "null_cursor":
        envelope.update(has_more=True, next_page=None)
        return True
    if fault.name == "repeated_cursor":
        if asked is not None:
            envelope.update(has_more=True, next_page=asked)
        return asked is not None
    if fault.name in ("bucket_repeated", "bucket_skipped"):
        if following is None:
            return False
        shift = -page.step if fault.name == "bucket_repeated" else page.step
        envelope["next_page"] = replace(following, position=following.position + shift).encode()
        return True
    return faults.spoil_row(fault, page.rows())

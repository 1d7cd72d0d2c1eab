"""What the REST sandboxes share: faults, the record of what was asked, refusals in the vendor's words."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sandbox import faults, seen
from sandbox.state import State

_encode = msgspec.json.Encoder(decimal_format="number").encode

type Handle = Callable[[Request], Awaitable[Response]]
type Refuse = Callable[[int, str], Response]


class RefusedError(Exception):
    """An answer that stands in place of the data."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def recorded(state: State, provider: str, handle: Handle, refuse: Refuse) -> Handle:
    """Put a handler behind the sandbox's faults and record what it is asked."""

    async def endpoint(request: Request) -> Response:
        key = request.headers.get("authorization") or request.headers.get("x-api-key")
        record = seen.Request(
            time=datetime.now(UTC).isoformat(),
            provider=provider,
            org=None,
            method=request.method,
            path=request.url.path,
            query=tuple(request.query_params.multi_items()),
            headers=seen.without_secrets(request.headers.items()),
            key_last4=key[-4:] if key else None,
            page=0,
        )
        state.seen.add(record)
        fault = state.faults.take(provider, None, request.url.path, 0)
        record.fault = fault.name if fault else None
        if fault is not None and fault.name in faults.REPLACING:
            response = faults.replaced(fault, refuse)
        else:
            if fault is not None and fault.name == "timeout":
                await asyncio.sleep(fault.seconds)
            try:
                response = await handle(request)
            except RefusedError as refusal:
                response = refusal.response
            if fault is not None and fault.name in faults.BODY:
                response = faults.broken(fault, bytes(response.body))
        record.status = response.status_code
        return response

    return endpoint


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON with every Decimal as the number it is, digit by digit."""
    return Response(_encode(body), status, headers, media_type="application/json")


def plain_refusal(status: int, message: str) -> Response:
    """`{"error": {"message"}}`, as most APIs say it."""
    return JSONResponse({"error": {"code": status, "message": message}}, status)


def dice(*seed: object) -> random.Random:
    """The same numbers for the same words, on every machine."""
    return random.Random("|".join(map(str, seed)))

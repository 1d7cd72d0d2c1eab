"""The sandbox's own HTTP control under `/_sandbox/`, the same on every port."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sandbox import faults, styles
from sandbox.gcp_keys import service_account_key
from sandbox.rows import Late
from sandbox.state import State

type Body = dict[str, Any]
type Act = Callable[[State, Body], Any]


def _faults_put(state: State, body: Body) -> Any:
    for fault in body.get("faults", [body]):
        state.faults.put(**fault)
    return {"faults": state.faults.as_json()}


def _faults_clear(state: State, _: Body) -> Any:
    state.faults.clear()
    return {"faults": []}


def _seen_clear(state: State, _: Body) -> Any:
    state.seen.clear()
    return {"requests": []}


def _clock(state: State, body: Body) -> Any:
    if "advance_s" in body:
        state.advance(float(body["advance_s"]))
    else:
        state.set_clock(datetime.fromisoformat(body["now"]) if body["now"] else None)
    return {"now": state.now().isoformat()}


def _keys(state: State, body: Body) -> Any:
    if body.get("revoked", True):
        state.revoked.add(body["key"])
    else:
        state.revoked.discard(body["key"])
    return {"revoked": len(state.revoked)}


def _late(state: State, body: Body) -> Any:
    state.late = Late(**body)
    return asdict(state.late)


def _style(state: State, body: Body) -> Any:
    state.set_style(body["style"], org=body.get("org"))
    return {"style": state.style, "organisations": state.org_styles}


def _service_account(_: State, query: Body) -> Any:
    return json.loads(service_account_key(query["org"]))


def _reset(state: State, _: Body) -> Any:
    state.reset()
    return _about(state, {})


def _about(state: State, _: Body) -> Any:
    return {
        "seed": state.seed,
        "scale": state.scale,
        "style": state.style,
        "now": state.now().isoformat(),
        "late": asdict(state.late),
        "fault_names": faults.NAMES,
        "styles": styles.STYLES,
    }


def _seen(state: State, query: Body) -> Any:
    wanted = {name: query.get(name) for name in ("provider", "org", "path")}
    return {"requests": state.seen.as_json(**wanted)}


def _totals(state: State, query: Body) -> Any:
    now = datetime.fromisoformat(query["now"]) if "now" in query else None
    days = date.fromisoformat(query["start"]), date.fromisoformat(query["end"])
    return state.known_totals(query["org"], *days, query["provider"], now=now)


ACTS: dict[tuple[str, str], Act] = {
    ("GET", "/_sandbox/state"): _about,
    ("GET", "/_sandbox/faults"): lambda state, _: {"faults": state.faults.as_json()},
    ("POST", "/_sandbox/faults"): _faults_put,
    ("DELETE", "/_sandbox/faults"): _faults_clear,
    ("GET", "/_sandbox/seen"): _seen,
    ("DELETE", "/_sandbox/seen"): _seen_clear,
    ("PUT", "/_sandbox/clock"): _clock,
    ("PUT", "/_sandbox/keys"): _keys,
    ("PUT", "/_sandbox/late"): _late,
    ("PUT", "/_sandbox/style"): _style,
    ("GET", "/_sandbox/totals"): _totals,
    ("GET", "/_sandbox/service_account"): _service_account,
    ("POST", "/_sandbox/reset"): _reset,
}


def routes(state: State) -> list[BaseRoute]:
    """Build the control routes over one state."""

    def route(method: str, path: str, act: Act) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                text = await request.body()
                body = json.loads(text) if text else dict(request.query_params)
                return _json(act(state, body), 200)
            except (ValueError, TypeError, KeyError, AttributeError) as problem:
                return _json({"error": f"{type(problem).__name__}: {problem}"}, 400)

        return Route(path, endpoint, methods=[method])

    return [route(method, path, act) for (method, path), act in ACTS.items()]


def _json(value: Any, status: int) -> Response:
    # Money leaves as exact strings: the reader is a test, not a vendor's client.
    text = json.dumps(value, default=lambda item: str(item) if isinstance(item, Decimal) else list(item))
    return Response(text, status, media_type="application/json")

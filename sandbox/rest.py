"""Public-style REST APIs on one port: three that Manta ships configs for, and one of each kind of paging."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sandbox.state import State
from sandbox.vendor import RefusedError, answer, dice, plain_refusal, recorded

CURRENCIES = {"CHF": "0.93", "GBP": "0.87", "JPY": "181.2", "USD": "1.16"}
SKUS = (("actions", "Actions Linux", "Minutes", "0.008"), ("copilot", "Copilot Business", "UserMonths", "19"))
HISTORY_KEY = "dop_v1_sandbox"
ROWS = 45
SECRETS = {"header": "rest-secret-header", "bearer": "rest-secret-bearer", "query": "rest-secret-query"}
BASIC = "sandbox:rest-secret-basic"
CLIENT = ("rest-client", "rest-client-secret")


def app(state: State, more: list[BaseRoute]) -> Starlette:
    """The port's application."""
    tokens: set[str] = set()

    def route(path: str, handle: Any, methods: tuple[str, ...] = ("GET",)) -> Route:
        return Route(path, recorded(state, "rest", handle, plain_refusal), methods=list(methods))

    async def token(request: Request) -> Response:
        return _token(request, await request.body(), tokens)

    async def guarded(request: Request) -> Response:
        _admit(request, request.path_params["kind"], tokens)
        return answer({"items": _rows(3)})

    return Starlette(
        routes=[
            *more,
            route("/frankfurter/v1/{span}", _rates),
            route("/github/organizations/{org}/settings/billing/usage", _github),
            route("/digitalocean/v2/customers/my/billing_history", _history),
            route("/acorn/v1/invoices", _invoices),
            route("/styles/{kind}", _styles, ("GET", "POST")),
            route("/oauth/token", token, ("POST",)),
            route("/auth/{kind}", guarded),
        ]
    )


async def _rates(request: Request) -> Response:
    """Reference rates of working days; a range that begins on a weekend begins on the Friday before."""
    first, _, last = request.path_params["span"].partition("..")
    day, end = date.fromisoformat(first), date.fromisoformat(last or first)
    while day.weekday() > 4:
        day -= timedelta(days=1)
    base = request.query_params.get("base", "EUR")
    rates: dict[str, dict[str, Decimal]] = {}
    while day <= end:
        if day.weekday() < 5:
            rates[day.isoformat()] = {
                currency: _near(Decimal(rate), "rate", currency, day) for currency, rate in CURRENCIES.items()
            }
        day += timedelta(days=1)
    return answer({"amount": 1.0, "base": base, "start_date": first, "end_date": last, "rates": rates})


def _near(value: Decimal, *seed: object) -> Decimal:
    moved = value * (1 + Decimal(dice(*seed).randrange(-300, 300)) / 10_000)
    return moved.quantize(Decimal("0.0001"))


async def _github(request: Request) -> Response:
    org = request.path_params["org"]
    if request.headers.get("authorization") != f"Bearer ghp_sandbox_{org}":
        raise RefusedError(answer({"message": "Bad credentials", "status": "401"}, 401))
    asked = request.query_params
    day = date(int(asked["year"]), int(asked["month"]), int(asked["day"]))
    found = []
    for product, sku, unit, price in SKUS:
        for repository in ("api", "web"):
            quantity = dice("github", org, sku, repository, day).randrange(0, 500)
            gross = quantity * Decimal(price)
            discount = min(gross, Decimal("1.5"))
            found.append(
                {
                    "date": day.isoformat(),
                    "product": product,
                    "sku": sku,
                    "quantity": quantity,
                    "unitType": unit,
                    "pricePerUnit": Decimal(price),
                    "grossAmount": gross,
                    "discountAmount": discount,
                    "netAmount": gross - discount,
                    "organizationName": org,
                    "repositoryName": f"{org}/{repository}",
                }
            )
    return answer({"usageItems": found})


async def _history(request: Request) -> Response:
    """An invoice on the first of each month of two years, and its payment four days later."""
    if request.headers.get("authorization") != f"Bearer {HISTORY_KEY}":
        raise RefusedError(answer({"id": "unauthorized", "message": "Unable to authenticate you"}, 401))
    entries = [entry for month in range(24) for entry in _month(2025 + month // 12, month % 12 + 1)]
    entries.sort(key=lambda entry: str(entry["date"]), reverse=True)
    size, page = int(request.query_params.get("per_page", "20")), int(request.query_params.get("page", "1"))
    following = str(request.url.include_query_params(page=page + 1))
    more = page * size < len(entries)
    return answer(
        {
            "billing_history": entries[(page - 1) * size : page * size],
            "links": {"pages": {"next": following}} if more else {},
            "meta": {"total": len(entries)},
        }
    )


def _month(year: int, month: int) -> list[dict[str, Any]]:
    amount = Decimal(dice("history", year, month).randrange(1_000, 90_000)) / 100
    uuid = f"{year}{month:02}-sandbox"
    return [
        {
            "description": f"Invoice for {year}-{month:02}",
            "amount": str(amount),
            "invoice_id": f"{year}{month:02}",
            "invoice_uuid": uuid,
            "date": f"{year}-{month:02}-01T08:44:38Z",
            "type": "Invoice",
        },
        {
            "description": "Payment (Visa 8822)",
            "amount": str(-amount),
            "date": f"{year}-{month:02}-05T08:44:38Z",
            "type": "Payment",
        },
    ]


async def _invoices(request: Request) -> Response:
    """The API of the tutorial in docs/generic-api.md."""
    if request.headers.get("authorization") != "Bearer acorn_sandbox":
        raise RefusedError(plain_refusal(401, "No such token."))
    asked = request.query_params
    first, last = date.fromisoformat(asked["from"]), date.fromisoformat(asked["to"])
    found = [
        {
            "id": f"inv_{day:%Y%m%d}_{n}",
            "issued_on": day.isoformat(),
            "customer": {"name": "Blue Harbor" if n % 2 else "Cobalt Labs"},
            "total": {
                "amount": f"{dice('acorn', day, n).randrange(100, 90_000) / 100:.2f}",
                "currency": "EUR",
            },
            "lines": n + 1,
        }
        for day in (first + timedelta(days=n) for n in range((last - first).days + 1))
        for n in range(5)
    ]
    start, size = int(asked.get("cursor", "c0").removeprefix("c")), int(asked.get("limit", "20"))
    following = f"c{start + size}" if start + size < len(found) else None
    return answer({"data": found[start : start + size], "meta": {"next_cursor": following}})


def _rows(stop: int, *, start: int = 0, day: str = "2025-12-08") -> list[dict[str, Any]]:
    return [
        {"id": n, "day": day, "name": f"row {n}", "amount": Decimal(n) / 100, "nested": {"deep": str(n)}}
        for n in range(start, stop)
    ]


async def _styles(request: Request) -> Response:
    """Rows by one kind of paging: cursor, page, offset, next, link or none."""
    body = await request.body()
    asked: dict[str, Any] = dict(request.query_params) | (json.loads(body) if body else {})
    await asyncio.sleep(float(asked.get("latency_ms", 0)) / 1000)
    total, day = int(asked.get("rows", ROWS)), str(asked.get("day", "2025-12-08"))
    size, kind = int(asked.get("limit", 10)), request.path_params["kind"]
    if kind == "none":
        return answer({"items": _rows(total, day=day)})
    if kind == "page":
        start = (int(asked.get("page", 1)) - 1) * size
    elif kind == "offset":
        start = int(asked.get("offset", 0))
    else:
        start = int(str(asked.get("cursor") or "c0").removeprefix("c"))
    items = _rows(min(start + size, total), start=start, day=day)
    page = {"items": items, "total": total, "pages": -(-total // size)}
    more = start + size < total
    following = f"c{start + size}"
    url = str(request.url.include_query_params(cursor=following))
    if kind == "cursor":
        return answer({**page, "has_more": more, "next": following if more else None})
    if kind == "next":
        return answer({**page, "links": {"next": url if more else None}})
    if kind == "link":
        links = f'<{request.url}>; rel="first"' + (f', <{url}>; rel="next"' if more else "")
        return answer(page["items"], headers={"link": links})
    return answer(page)


def _basic(pair: str) -> str:
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _token(request: Request, body: bytes, tokens: set[str]) -> Response:
    pair = f"{CLIENT[0]}:{CLIENT[1]}"
    if request.headers.get("authorization") != _basic(pair) or b"grant_type=client_credentials" not in body:
        raise RefusedError(answer({"error": "invalid_client", "error_description": "Unknown client."}, 401))
    token = f"rest-token-{uuid4().hex}"
    tokens.add(token)
    return answer({"access_token": token, "token_type": "Bearer", "expires_in": 3600})


def _admit(request: Request, kind: str, tokens: set[str]) -> None:
    given = {
        "none": True,
        "header": request.headers.get("x-key") == SECRETS["header"],
        "bearer": request.headers.get("authorization") == f"Bearer {SECRETS['bearer']}",
        "query": request.query_params.get("key") == SECRETS["query"],
        "basic": request.headers.get("authorization") == _basic(BASIC),
        "oauth": request.headers.get("authorization", "").removeprefix("Bearer ") in tokens,
    }
    if not given.get(kind):
        raise RefusedError(plain_refusal(401, "Who are you?"))

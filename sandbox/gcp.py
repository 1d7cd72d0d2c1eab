"""Google Cloud on one port: the token endpoint, the Cloud Billing API and the Compute Engine API."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from sandbox.gcp_keys import DOMAIN, Refused, issue
from sandbox.state import State
from sandbox.vendor import RefusedError, answer, dice, recorded

STATUSES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
STATUSES |= {429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"}
SERVICES = (
    ("6F81-5844-456A", "Compute Engine"),
    ("95FF-2EF5-5EA1", "Cloud Storage"),
    ("24E6-581D-38E5", "BigQuery"),
)
ZONES = ("europe-west1-b", "us-central1-a", "us-central1-f")
SKUS_EACH = 7


def app(state: State, more: list[BaseRoute]) -> Starlette:
    """The port's application."""

    def route(path: str, handle: Any, methods: tuple[str, ...] = ("GET",), *, guarded: bool = True) -> Route:
        async def admitted(request: Request) -> Response:
            return answer(handle(request, _admit(state, request)))

        async def open_to_all(request: Request) -> Response:
            return handle(state, await request.body())  # type: ignore[no-any-return]

        endpoint = recorded(state, "gcp", admitted if guarded else open_to_all, status)
        return Route(path, endpoint, methods=list(methods))

    return Starlette(
        routes=[
            *more,
            route("/token", _token, ("POST",), guarded=False),
            route("/v1/billingAccounts", _accounts),
            route("/v1/services", _services),
            route("/v1/services/{service}/skus", _skus),
            route("/compute/v1/projects/{project}/aggregated/instances", _instances),
        ]
    )


def status(code: int, message: str, *details: dict[str, Any]) -> Response:
    """A google.rpc.Status as Google's REST APIs write it."""
    error: dict[str, Any] = {"code": code, "message": message, "status": STATUSES.get(code, "UNKNOWN")}
    return JSONResponse({"error": error | ({"details": list(details)} if details else {})}, code)


def _token(state: State, body: bytes) -> Response:
    try:
        return JSONResponse(issue(state, dict(parse_qsl(body.decode()))))
    except Refused as refused:
        said = {"error": refused.code, "error_description": refused.description}
        return JSONResponse(said, 400)


def _admit(state: State, request: Request) -> str:
    """The organisation of a service account; refuses a token that is unknown, or of a revoked account."""
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    email = state.tokens.get(token)
    if email is None or email in state.revoked:
        reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_EXPIRED"}
        raise RefusedError(status(401, "Request had invalid authentication credentials.", reason))
    return email.removesuffix(f"@{DOMAIN}")


def _paged(request: Request, rows: list[Any], name: str, *, size_param: str = "pageSize") -> dict[str, Any]:
    size = int(request.query_params.get(size_param, "100"))
    start = int(request.query_params.get("pageToken", "t0").removeprefix("t"))
    following = {"nextPageToken": f"t{start + size}"} if start + size < len(rows) else {}
    # Zero values are left out, as proto3's JSON does.
    page = rows[start : start + size]
    return ({name: page} if page else {}) | following


def _accounts(request: Request, org: str) -> dict[str, Any]:
    rows = [
        {
            "name": f"billingAccounts/{_account_id(org, n)}",
            "displayName": f"{org} account {n + 1}",
            "masterBillingAccount": "",
            "parent": "organizations/123456789012",
            "currencyCode": "EUR" if n else "USD",
            **({"open": True} if n < 2 else {}),
        }
        for n in range(3)
    ]
    return _paged(request, rows, "billingAccounts")


def _account_id(org: str, n: int) -> str:
    drawn = dice("account", org, n)
    return "-".join(f"{drawn.randrange(16**6):06X}" for _ in range(3))


def _services(request: Request, _: str) -> dict[str, Any]:
    rows = [
        {
            "name": f"services/{number}",
            "serviceId": number,
            "displayName": name,
            "businessEntityName": "businessEntities/GCP",
        }
        for number, name in SERVICES
    ]
    return _paged(request, rows, "services")


def _skus(request: Request, _: str) -> dict[str, Any]:
    service, currency = request.path_params["service"], request.query_params.get("currencyCode", "USD")
    known = dict(SERVICES)
    if service not in known:
        raise RefusedError(status(404, f"Service {service} not found."))
    rows = [_sku(service, known[service], n, currency) for n in range(SKUS_EACH)]
    return _paged(request, rows, "skus")


def _sku(service: str, name: str, n: int, currency: str) -> dict[str, Any]:
    sku = f"{dice('sku', service, n).randrange(16**12):012X}"
    sku = "-".join(sku[at : at + 4] for at in range(0, 12, 4))
    nanos = dice("price", sku).randrange(1_000, 900_000_000)
    tiers: list[dict[str, Any]] = [
        {"startUsageAmount": 0, "unitPrice": {"currencyCode": currency, "nanos": nanos}}
    ]
    if n % 3 == 0:
        # A free tier: units and nanos are zero and therefore absent.
        tiers.insert(0, {"startUsageAmount": 0, "unitPrice": {"currencyCode": currency}})
        tiers[1]["startUsageAmount"] = 5
    if n == SKUS_EACH - 1:
        tiers[-1]["unitPrice"]["units"] = "12"
    expression = {
        "usageUnit": "h" if n % 2 else "GiBy.mo",
        "displayQuantity": 1,
        "tieredRates": tiers,
        "usageUnitDescription": "hour" if n % 2 else "gibibyte month",
        "baseUnit": "s" if n % 2 else "By.s",
        "baseUnitDescription": "second" if n % 2 else "byte second",
        "baseUnitConversionFactor": 3600 if n % 2 else 2.8759556382e15,
    }
    return {
        "name": f"services/{service}/skus/{sku}",
        "skuId": sku,
        "description": f"{name} item {n + 1}",
        "category": {
            "serviceDisplayName": name,
            "resourceFamily": "Compute" if n % 2 else "Storage",
            "resourceGroup": "CPU" if n % 2 else "SSD",
            "usageType": "OnDemand",
        },
        "serviceRegions": ["europe-west1", "us-central1"][: 1 + n % 2],
        "pricingInfo": [
            {
                "summary": "",
                "pricingExpression": expression,
                "currencyConversionRate": 1,
                "effectiveTime": "2025-12-01T09:00:00.123Z",
            }
        ],
        "serviceProviderName": "Google",
    }


def _instances(request: Request, org: str) -> dict[str, Any]:
    """Every page holds every zone's key; a page may hold no instance and yet be followed by another."""
    project = request.path_params["project"]
    rows: list[tuple[str, dict[str, Any]] | None] = [
        (zone, _instance(project, zone, n)) for zone in ZONES[:2] for n in range(2)
    ]
    rows.insert(2, None)
    size = int(request.query_params.get("maxResults", "500"))
    start = int(request.query_params.get("pageToken", "t0").removeprefix("t"))
    page = [row for row in rows[start : start + size] if row is not None]
    items: dict[str, Any] = {
        f"zones/{zone}": {"instances": [found for at, found in page if at == zone]}
        if any(at == zone for at, _ in page)
        else {"warning": {"code": "NO_RESULTS_ON_PAGE", "message": f"There are no results for scope {zone}."}}
        for zone in ZONES
    }
    answered: dict[str, Any] = {
        "kind": "compute#instanceAggregatedList",
        "id": f"projects/{project}",
        "items": items,
    }
    if start + size < len(rows):
        answered["nextPageToken"] = f"t{start + size}"
    if org.startswith("partial"):
        answered["unreachables"] = [f"projects/{project}/zones/{ZONES[2]}"]
    return answered


def _instance(project: str, zone: str, n: int) -> dict[str, Any]:
    drawn = dice("instance", project, zone, n)
    return {
        "kind": "compute#instance",
        "id": str(drawn.randrange(2**63, 2**64)),
        "name": f"vm-{n}",
        "zone": f"https://www.googleapis.com/compute/v1/projects/{project}/zones/{zone}",
        "machineType": f"https://www.googleapis.com/compute/v1/projects/{project}/zones/{zone}/machineTypes/e2-medium",
        "status": "RUNNING" if n else "TERMINATED",
        "creationTimestamp": "2025-11-03T02:11:09.123-07:00",
        "labels": {"team": "data"} if n else {},
        "scheduling": {"provisioningModel": "SPOT" if n else "STANDARD", "preemptible": bool(n)},
    }

"""Every shipped pipeline that reads a described API, against the sandbox and through its table's audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from engine.catalog import Catalog
from engine.checks import audit
from engine.errors import ConfigurationError, CredentialError, MantaError, TransientError
from engine.settings import Settings
from engine.templates import render
from engine.types import Unit
from engine.unit import add_lineage
from engine.vault import Secret
from processors import resolve
from sandbox.gcp_keys import service_account_key
from sandbox.server import Sandbox
from tests.wire.scripted import NOW, Asked, Reading, Said, serving

CHECKOUT = Path(__file__).resolve().parents[2]
ORG = "acme_corp"
TODAY, YESTERDAY = NOW.date(), NOW.date() - timedelta(days=1)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.load(CHECKOUT)


@dataclass
class Shipped:
    """Runs the only step of a shipped pipeline as a unit would, up to what would be published."""

    catalog: Catalog
    settings: Settings
    reading: Reading

    async def __call__(
        self,
        path: str,
        days: Sequence[date],
        secrets: Mapping[str, str],
        *,
        variables: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> tuple[pa.Table, dict[str, Any]]:
        pipeline = self.catalog.pipeline(path)
        provider = self.catalog.providers[pipeline.provider]
        (step,) = pipeline.steps
        (output,) = pipeline.outputs
        given = {
            "org_slug": ORG,
            "date": days[-1],
            "start_date": days[0],
            "end_date": days[-1],
            "variables": {**pipeline.variables, **(variables or {})},
        }
        assert len(days) <= pipeline.partition.max_days_per_unit
        context: dict[str, Any] = {
            "org_slug": ORG,
            "addresses": provider.addresses(self.settings),
            "secrets": {name: Secret(secret) for name, secret in secrets.items()},
            "pipeline_id": pipeline.id_for(ORG),
            "run_id": "run_1",
            "clock": lambda: NOW,
        }
        auths = {
            name: self.reading.opening(provider, secret, self.settings) for name, secret in secrets.items()
        }
        result = await self.reading.run(
            resolve(step.ps_type),
            render(step.config, given) | changes,
            str(provider.address(self.settings)),
            days=days,
            auths=auths or None,
            context=context,
            services=provider.addresses(self.settings),
            official_hosts=provider.official_hosts,
            provider=provider.name,
        )
        schema = self.catalog.schemas[output.schema_]
        table = add_lineage(result["tables"][output.table], schema, context)
        unit = Unit(ORG, path, tuple(days))
        return audit(table, schema, output.checks, unit), result

    async def fails(self, *given: Any, **more: Any) -> MantaError:
        """The error of a run that must not succeed."""
        with pytest.raises(MantaError) as caught:
            await self(*given, **more)
        return caught.value


@pytest.fixture
def shipped(sandbox: Sandbox, catalog: Catalog, tmp_path: Path) -> Shipped:
    names = ("frankfurter", "github", "digitalocean")
    settings = Settings(
        root=CHECKOUT,
        home=tmp_path,
        provider_base_urls={name: f"{sandbox.rest_url}/{name}" for name in names},
        gcp_billing_base_url=sandbox.gcp_url,
        gcp_compute_base_url=sandbox.gcp_url,
        gcp_oauth_base_url=sandbox.gcp_url,
    )
    return Shipped(catalog, settings, Reading())


async def test_exchange_rates_of_a_weekend_and_after(shipped: Shipped) -> None:
    days = [date(2025, 12, 6) + timedelta(days=n) for n in range(4)]
    table, result = await shipped("frankfurter/rates", days, {})
    assert sorted(set(table["rate_date"].to_pylist())) == [date(2025, 12, 8), date(2025, 12, 9)]
    assert set(table["base_currency"].to_pylist()) == {"USD"}
    assert set(table["currency"].to_pylist()) == {"CHF", "GBP", "JPY", "USD"}
    assert table["rate"].to_pylist()[0] == Decimal("0.9046")
    assert set(table["x_credential_id"].to_pylist()) == {"none"}
    # Friday's, which the API gives unasked.
    assert result["metrics"]["dropped"] == 4


async def test_github_usage_of_a_day_and_of_another_tenants_organisation(shipped: Shipped) -> None:
    secrets = {"cred_1": "ghp_sandbox_acme-corp"}
    table, _ = await shipped("github/billing_usage", [YESTERDAY], secrets)
    assert table.num_rows == 4
    for row in table.to_pylist():
        assert row["net_amount"] == row["gross_amount"] - row["discount_amount"]
        assert row["gross_amount"] == row["quantity"] * row["price_per_unit"]
        assert (row["usage_date"], row["organization_name"], row["currency"]) == (
            YESTERDAY,
            "acme-corp",
            "USD",
        )
    error = await shipped.fails(
        "github/billing_usage", [YESTERDAY], secrets, variables={"organization": "somebody"}
    )
    assert isinstance(error, CredentialError)
    assert "Bad credentials" in error.message


async def test_digitalocean_history_is_kept_by_day(shipped: Shipped, sandbox: Sandbox) -> None:
    days = [date(2025, 12, 1) + timedelta(days=n) for n in range(7)]
    table, result = await shipped("digitalocean/billing_history", days, {"cred_1": "dop_v1_sandbox"})
    assert table["entry_type"].to_pylist() == ["Payment", "Invoice"]
    first, second = table["amount"].to_pylist()
    assert first == -second
    assert result["metrics"] | {"unknown_fields": []} == {
        "rows": 2,
        "pages": 1,
        "dropped": 46,
        "unknown_fields": [],
    }


KEY = {"cred_1": service_account_key("acme", project="acme-prod")}


async def test_billing_accounts_of_every_credential(shipped: Shipped) -> None:
    secrets = KEY | {"cred_2": service_account_key("blue")}
    table, _ = await shipped("gcp/api/billing_accounts", [YESTERDAY], secrets, page_size=2)
    assert table["x_credential_id"].to_pylist() == ["cred_1"] * 3 + ["cred_2"] * 3
    assert table["is_open"].to_pylist() == [True, True, False] * 2
    assert table["currency"].to_pylist() == ["USD", "EUR", "EUR"] * 2
    assert set(table["snapshot_date"].to_pylist()) == {YESTERDAY}


async def test_list_prices_are_exact_by_tier(shipped: Shipped, sandbox: Sandbox) -> None:
    table, result = await shipped(
        "gcp/api/skus", [YESTERDAY], KEY, page_size=3, quota_project="payer", variables={"currency": "EUR"}
    )
    assert len(set(zip(table["service_id"].to_pylist(), table["sku_id"].to_pylist(), strict=True))) == 21
    assert result["metrics"]["pages"] == 9
    rows = [row for row in table.to_pylist() if row["service_id"] == "6F81-5844-456A"]
    free = [row for row in rows if row["unit_price"] == 0]
    assert [(row["tier"], row["start_usage_amount"]) for row in free] == [(0, 0)] * 3
    dear = rows[-1]
    assert dear["unit_price"] > 12
    assert dear["unit_price"].as_tuple().exponent == -9
    assert {row["currency"] for row in rows} == {"EUR"}
    assert rows[0]["effective_time"] == datetime(2025, 12, 1, 9, 0, 0, 123000, UTC)
    (asked, *_) = sandbox.state.seen.all(provider="gcp", path="/skus")
    assert asked.headers["x-goog-user-project"] == "payer"


async def test_instances_of_every_zone_through_empty_pages(shipped: Shipped, sandbox: Sandbox) -> None:
    table, result = await shipped("gcp/api/instances", [TODAY], KEY, page_size=1)
    assert result["metrics"]["pages"] == 5
    assert table.select(["project_id", "zone", "instance_name", "machine_type", "status"]).to_pylist()[0] == {
        "project_id": "acme-prod",
        "zone": "europe-west1-b",
        "instance_name": "vm-0",
        "machine_type": "e2-medium",
        "status": "TERMINATED",
    }
    assert table["creation_time"].to_pylist()[0] == datetime(2025, 11, 3, 9, 11, 9, 123000, UTC)
    assert all(int(number) >= 2**63 for number in table["instance_id"].to_pylist())
    (asked, *_) = sandbox.state.seen.all(provider="gcp", path="/instances")
    assert ("returnPartialSuccess", "true") in asked.query


async def test_a_zone_that_does_not_answer_is_told(shipped: Shipped) -> None:
    secrets = {"cred_1": service_account_key("partial", project="p")}
    error = await shipped.fails("gcp/api/instances", [TODAY], secrets)
    assert isinstance(error, TransientError)
    assert "projects/p/zones/us-central1-f did not answer" in error.message
    table, result = await shipped("gcp/api/instances", [TODAY], secrets, unreachable="finding")
    assert table.num_rows == 4
    (finding,) = result["findings"]
    assert (finding.code, finding.subject) == ("unreachable", "projects/p/zones/us-central1-f")


def problem(code: int, reason: str, *, form: str = "details", **more: Any) -> Said:
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}
    return Said({"error": {"code": code, "message": "the words", form: [detail, *more.values()]}}, code)


@pytest.mark.parametrize(
    ("said", "kind", "told", "calls"),
    [
        (problem(403, "SERVICE_DISABLED"), ConfigurationError, "Enable the API", 1),
        (problem(403, "accessNotConfigured", form="errors"), ConfigurationError, "Enable the API", 1),
        (problem(403, "quotaExceeded", form="errors"), ConfigurationError, "a quota is used up", 1),
        (problem(403, "rateLimitExceeded", form="errors"), TransientError, "after 5 attempts", 5),
        (problem(403, "IAM_PERMISSION_DENIED"), CredentialError, "HTTP 403: the words", 1),
        (problem(503, "x"), TransientError, "HTTP 503 after 5 attempts: the words", 5),
        (problem(404, "x"), ConfigurationError, "HTTP 404: the words", 1),
        (Said(b"<html>502</html>", 502), TransientError, "HTTP 502 after 5 attempts", 5),
    ],
)
async def test_googles_errors_by_class(
    shipped: Shipped, said: Said, kind: type[MantaError], told: str, calls: int
) -> None:
    with serving(lambda _: said) as server:
        shipped.settings = shipped.settings.with_endpoints({"GCP_BILLING_BASE_URL": server.url})
        error = await shipped.fails("gcp/api/billing_accounts", [YESTERDAY], KEY)
        assert isinstance(error, kind)
        assert told in str(error)
        assert "cred_1" in error.message
        assert len(server.asked) == calls


async def test_google_is_left_alone_as_long_as_it_asks(shipped: Shipped) -> None:
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}
    left = [problem(403, "RATE_LIMIT_EXCEEDED", retry=retry), problem(429, "x", retry=retry)]

    def answer(_: Asked) -> Said:
        return left.pop(0) if left else Said({})

    with serving(answer) as server:
        shipped.settings = shipped.settings.with_endpoints({"GCP_BILLING_BASE_URL": server.url})
        table, _ = await shipped("gcp/api/billing_accounts", [YESTERDAY], KEY)
    assert table.num_rows == 0
    assert [int(waited * 10) for waited in shipped.reading.waits] == [75, 75]
    assert shipped.reading.permits.learned[0] == (429, {"retry-after": "7.500"})

"""OpenAI's and Anthropic's costs as charges."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from engine.errors import InternalError
from engine.focus import ai
from engine.prices.book import PriceBook
from engine.prices.costs import costs
from engine.types import Finding
from processors.anthropic.cost import MODEL as ANTHROPIC
from processors.openai.cost import MODEL as OPENAI
from tests.focus.rows import FIRST, book, table

CLAUDE = {"service_tier": "standard", "context_window": "0-200k", "inference_geo": "global"}


def openai(
    *rows: dict[str, Any], prices: PriceBook | None = None
) -> tuple[list[dict[str, Any]], tuple[Finding, ...]]:
    given = [{"usage_date": FIRST, "endpoint": "completions", "x_credential_id": "c1", **row} for row in rows]
    usage = table("openai_usage_daily_raw", given)
    prices = prices or book("openai")
    charges, findings = ai.convert(ai.OPENAI, OPENAI, usage, costs(OPENAI, usage, prices)[0], prices)
    return charges.to_pylist(), findings


def anthropic(**row: Any) -> list[dict[str, Any]]:
    given = [{"usage_date": FIRST, "x_credential_id": "c1", **CLAUDE, **row}]
    usage = table("anthropic_usage_daily_raw", given)
    made = costs(ANTHROPIC, usage, book("anthropic"))[0]
    return ai.convert(ai.ANTHROPIC, ANTHROPIC, usage, made, book("anthropic"))[0].to_pylist()


def test_each_kind_of_token_is_a_charge_and_a_sku_of_its_own() -> None:
    charges, findings = openai(
        {
            "model": "gpt-4o-mini",
            "project_id": "p1",
            "user_id": "u1",
            "api_key_id": "k1",
            "input_tokens": 5_000_001,
            "input_cached_tokens": 1_200_000,
            "output_tokens": 800_000,
        }
    )
    assert findings == ()
    told = {c["SkuId"]: (c["SkuMeter"], c["ConsumedQuantity"], c["BilledCost"]) for c in charges}
    assert told == {
        "gpt-4o-mini/input": ("Input Tokens", 3_800_001, Decimal("0.57000015")),
        "gpt-4o-mini/cached_input": ("Cached Input Tokens", 1_200_000, Decimal("0.09")),
        "gpt-4o-mini/output": ("Output Tokens", 800_000, Decimal("0.48")),
    }
    assert len({charge["x_ChargeId"] for charge in charges}) == 3
    first = charges[0]
    assert (first["PricingQuantity"], first["PricingUnit"]) == (Decimal("3.800001"), "1000000 Tokens")
    assert first["ListUnitPrice"] == first["ContractedUnitPrice"] == Decimal("0.15")
    assert first["BilledCost"] == first["EffectiveCost"] == first["ContractedCost"] == first["ListCost"]
    assert (first["SubAccountId"], first["SubAccountName"], first["SubAccountType"]) == (
        "p1",
        "p1",
        "Project",
    )
    assert (first["x_UserId"], first["x_ApiKeyId"], first["x_credential_id"]) == ("u1", "k1", "c1")


def test_periods_are_utc_with_exclusive_ends() -> None:
    (charge,) = openai({"model": "gpt-4.1", "input_tokens": 1})[0]
    assert charge["ChargePeriodStart"] == datetime(2026, 10, 12, tzinfo=UTC)
    assert charge["ChargePeriodEnd"] == datetime(2026, 10, 13, tzinfo=UTC)
    assert charge["BillingPeriodStart"] == datetime(2026, 10, 1, tzinfo=UTC)
    assert charge["BillingPeriodEnd"] == datetime(2026, 11, 1, tzinfo=UTC)


def test_a_tier_is_another_price_of_the_same_sku() -> None:
    charges, _ = openai(
        {"model": "gpt-4.1", "input_tokens": 1_000_000},
        {"model": "gpt-4.1", "input_tokens": 1_000_000, "batch": True},
    )
    assert {charge["SkuId"] for charge in charges} == {"gpt-4.1/input"}
    assert [charge["SkuPriceId"] for charge in charges] == [
        "gpt-4.1/input;tier=standard",
        "gpt-4.1/input;tier=batch",
    ]
    assert [charge["BilledCost"] for charge in charges] == [2, 1]
    assert json.loads(charges[1]["SkuPriceDetails"]) == {
        "x_Model": "gpt-4.1",
        "x_Meter": "input",
        "x_Tier": "batch",
    }


def test_negotiated_rates_are_contracted_and_the_list_stays() -> None:
    (listed,) = [
        c for c in book("openai").cards if (c.model, c.tier) == ("gpt-4.1", "standard") and c.valid_on(FIRST)
    ]
    own = replace(listed, org_slug="acme", rates={**listed.rates, "input": Decimal("0.000001500007")})
    (charge,) = openai(
        {"model": "gpt-4.1", "input_tokens": 3},
        prices=PriceBook("openai", [*book("openai").cards, own], org="acme"),
    )[0]
    assert (charge["ListUnitPrice"], charge["ListCost"]) == (2, Decimal("0.000006"))
    assert charge["ContractedUnitPrice"] == Decimal("1.500007")
    # 3 x 0.000001500007 rounded once.
    assert charge["ContractedCost"] == charge["BilledCost"] == Decimal("0.000004500")


def test_what_only_an_own_card_prices_has_no_list_price() -> None:
    (base,) = [
        c for c in book("openai").cards if (c.model, c.tier) == ("gpt-4.1", "standard") and c.valid_on(FIRST)
    ]
    own = replace(base, model="code_interpreter", match='{"equals": "code_interpreter"}', org_slug="acme",
                  rates={"code_session": Decimal("0.03")}, valid_from=None, valid_to=None)  # fmt: skip
    (charge,) = openai(
        {"endpoint": "code_interpreter_sessions", "num_sessions": 2},
        prices=PriceBook("openai", [*book("openai").cards, own], org="acme"),
    )[0]
    assert (charge["ListUnitPrice"], charge["ListCost"]) == (None, Decimal("0.06"))
    assert (charge["ConsumedUnit"], charge["PricingUnit"]) == ("Sessions", "1000 Sessions")
    assert charge["ContractedUnitPrice"] == 30


def test_nobodys_price_is_no_charge_but_a_finding() -> None:
    charges, findings = openai(
        {"model": "gpt-99", "input_tokens": 5}, {"model": "gpt-99", "input_tokens": 7, "project_id": "p2"}
    )
    assert charges == []
    (finding,) = findings
    assert (finding.code, finding.subject, finding.rows) == ("unpriced_not_in_focus", "gpt-99", 2)
    assert (finding.table, finding.day) == ("focus_openai_daily", FIRST)


def test_free_usage_is_a_charge_of_zero_and_no_usage_is_none() -> None:
    free, _ = openai({"endpoint": "moderations", "model": "omni-moderation-latest", "input_tokens": 9})
    assert [(c["ConsumedQuantity"], c["BilledCost"]) for c in free] == [(9, 0)]
    assert openai({"model": "gpt-4.1", "num_model_requests": 1})[0] == []


def test_a_vector_store_is_a_resource() -> None:
    (charge,) = openai({"endpoint": "file_search_calls", "vector_store_id": "vs1", "num_requests": 1_000})[0]
    assert (charge["ResourceId"], charge["ResourceType"]) == ("vs1", "Vector Store")
    assert (charge["ConsumedUnit"], charge["PricingQuantity"], charge["PricingUnit"]) == (
        "Requests",
        1,
        "1000 Requests",
    )


def test_anthropics_classes_and_its_united_states() -> None:
    charges = anthropic(
        model="claude-opus-5",
        inference_geo="us",
        workspace_id=None,
        uncached_input_tokens=10,
        cache_read_input_tokens=20,
        cache_creation_5m_input_tokens=30,
        cache_creation_1h_input_tokens=40,
        output_tokens=50,
        web_search_requests=6,
    )
    assert [(c["x_TokenKind"], c["ConsumedQuantity"]) for c in charges] == [
        ("input", 10),
        ("cached_input", 20),
        ("cache_write_5m", 30),
        ("cache_write_1h", 40),
        ("output", 50),
        ("web_search", 6),
    ]
    assert {(c["RegionId"], c["RegionName"]) for c in charges} == {("us", "United States")}
    # The default workspace has no id, and gets no invented one.
    assert {(c["SubAccountId"], c["SubAccountName"], c["SubAccountType"]) for c in charges} == {(None,) * 3}
    assert charges[0]["SkuPriceId"].startswith("claude-opus-5/input;tier=standard;context_window=0-200k;")


def test_ids_are_the_same_in_every_run_and_order() -> None:
    rows: list[dict[str, Any]] = [
        {"model": "gpt-4.1", "input_tokens": 1, "project_id": "p1"},
        {"model": "gpt-4.1", "input_tokens": 1, "project_id": None},
    ]
    forth, back = (openai(*some)[0] for some in (rows, rows[::-1]))
    assert {c["SubAccountId"]: c["x_ChargeId"] for c in forth} == {
        c["SubAccountId"]: c["x_ChargeId"] for c in back
    }
    assert len({c["x_ChargeId"] for c in forth}) == 2


def test_costs_of_other_usage_are_refused() -> None:
    usage = table(
        "openai_usage_daily_raw",
        [
            {"usage_date": FIRST, "endpoint": "completions", "model": m, "x_credential_id": "c"}
            for m in ("a", "b")
        ],
    )
    made = costs(OPENAI, usage, book("openai"))[0]
    with pytest.raises(InternalError, match="is not made of the rows of openai_usage_daily_raw"):
        ai.convert(ai.OPENAI, OPENAI, usage, made.take(pa.array([1, 0])), book("openai"))

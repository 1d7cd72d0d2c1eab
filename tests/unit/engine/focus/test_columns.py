"""The columns are the specification's, and the shipped schemas have exactly those."""

from __future__ import annotations

from collections import Counter

import pytest

from engine.focus.columns import ALLOWED, COLUMNS, CUSTOM, NAMES
from engine.focus.services import BUSINESS, GCP, NOTHING_FITS, PAIRS, SAAS, SUBCATEGORIES
from engine.focus.shape import ARROW
from tests.focus.rows import catalog

SOURCES = ("anthropic", "gcp", "openai", "saas_subscription")
LINEAGE = ["x_org_slug", "x_pipeline_id", "x_pipeline_run_date", "x_run_id", "x_ingested_at"]


def test_there_are_57_columns_of_1_2_and_8_of_1_3() -> None:
    since = Counter(column.since for column in COLUMNS)
    assert since.pop("1.3") == 8
    assert sum(since.values()) == 57
    assert list(NAMES) == sorted(set(NAMES))


def test_mandatory_columns_and_those_that_take_no_null() -> None:
    assert sum(column.level == "M" for column in COLUMNS) == 23
    never = {column.name for column in COLUMNS if not column.nullable}
    assert {"BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "BillingAccountId"} <= never
    assert {"InvoiceId", "ChargeClass", "PricingQuantity", "HostProviderName"}.isdisjoint(never)


def test_our_own_columns_begin_with_x_and_come_last() -> None:
    assert all(name.startswith("x_") for name, _, _ in CUSTOM)
    assert ARROW.names == [*NAMES, *(name for name, _, _ in CUSTOM)]


@pytest.mark.parametrize("source", SOURCES)
def test_a_shipped_schema_is_the_columns_and_lineage(source: str) -> None:
    schema = catalog().schemas[f"focus_{source}_daily"]
    assert schema.arrow.names == [*ARROW.names, *LINEAGE]
    for field in ARROW:
        assert schema.arrow.field(field.name) == field
    assert (schema.partition, schema.key) == ("x_UsageDate", ("x_UsageDate", "x_ChargeId"))


def test_what_is_not_lineage_is_content() -> None:
    hashed = [column.name for column in catalog().schemas["focus_openai_daily"].hashed]
    assert hashed == ARROW.names
    raw = [column.name for column in catalog().schemas["openai_usage_daily_raw"].hashed]
    assert [name for name in raw if name.startswith("x_")] == ["x_credential_id"]


def test_the_view_is_over_all_sources_with_the_same_columns() -> None:
    view = catalog().schemas["cost_data_standard_1_3"]
    assert view.sources == {f"focus_{source}_daily" for source in SOURCES}
    assert view.arrow.names == [*ARROW.names, *LINEAGE]
    # UNION ALL goes by place, not by name: each SELECT names all columns in the view's order.
    for select in str(view.view).split("UNION ALL"):
        listed = select.split("SELECT")[1].split("FROM")[0]
        assert [name.strip() for name in listed.split(",")] == view.arrow.names


def test_categories() -> None:
    assert len(SUBCATEGORIES) == 19
    assert len(PAIRS) == 82
    assert {*GCP.values(), *SAAS.values(), BUSINESS, NOTHING_FITS} <= PAIRS
    assert ALLOWED["ChargeCategory"] == ("Usage", "Purchase", "Tax", "Credit", "Adjustment")

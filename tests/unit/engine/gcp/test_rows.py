"""Rows of an export: names that do not depend on order, copies that stay, credits that sum."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.content_hash import content_hash
from engine.errors import DataError
from engine.gcp.row_ids import row_hashes, row_ids
from engine.gcp.rows import AT_ONCE, ROWS, Gathered, content_of, read
from engine.schemas import Schema
from tests.unit.test_docs import SCHEMAS

CREDITS = pa.list_(pa.struct([("id", pa.string()), ("amount", pa.float64())]))
BATCH = pa.schema(
    [
        ("usage_date", pa.date32()),
        ("usage_start_time", pa.timestamp("us", tz="UTC")),
        ("export_time", pa.timestamp("us", tz="UTC")),
        ("currency", pa.string()),
        ("cost", pa.float64()),
        ("credits", CREDITS),
        ("project_id", pa.string()),
    ]
)
MOMENT = datetime(2025, 12, 8, 4, tzinfo=UTC)


def row(cost: float | None = 1.5, *granted: float, project: str | None = "p") -> dict[str, Any]:
    return {
        "usage_date": date(2025, 12, 8),
        "usage_start_time": MOMENT,
        "export_time": MOMENT,
        "currency": "USD",
        "cost": cost,
        "credits": [{"id": "c", "amount": amount} for amount in granted],
        "project_id": project,
    }


def batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=BATCH)


def table(rows: list[dict[str, Any]], *, sizes: int = 2) -> pa.Table:
    batches = [batch(rows[start : start + sizes]) for start in range(0, len(rows), sizes)]
    return read(batches, credential_id="cred", address="p.d.t")


rows_strategy = st.lists(
    st.builds(
        row,
        st.sampled_from([0.1, 0.2, -3.0, None]),
        st.sampled_from([-0.05, 0.0]),
        project=st.sampled_from(["a", "b", None]),
    ),
    max_size=12,
)


@given(rows_strategy, st.randoms(use_true_random=False), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_content_hash_and_names_do_not_depend_on_the_order_of_reading(
    rows: list[dict[str, Any]], rand: random.Random, sizes: int
) -> None:
    schema: Schema = SCHEMAS["gcp_billing_daily_raw"]
    shuffled = list(rows)
    rand.shuffle(shuffled)
    one, other = table(rows), table(shuffled, sizes=sizes)
    assert sorted(one["row_id"].to_pylist()) == sorted(other["row_id"].to_pylist())
    assert len(set(one["row_id"].to_pylist())) == len(rows)
    if rows:
        full = [found.append_column("x_org_slug", pa.nulls(len(rows), pa.string())) for found in (one, other)]
        hashes = {content_hash(_complete(found, schema), schema) for found in full}
        assert len(hashes) == 1


def _complete(found: pa.Table, schema: Schema) -> pa.Table:
    return pa.table(
        {
            column.name: found[column.name]
            if column.name in found.column_names
            else pa.nulls(found.num_rows, column.arrow.type)
            for column in schema.columns
        }
    )


def test_exact_copies_stay_and_are_numbered() -> None:
    found = table([row(), row(), row(2.0), row()])
    names = found["row_id"].to_pylist()
    alone = names[found["cost"].to_pylist().index(Decimal(2))]
    assert len(alone) == 32
    assert sorted(name.partition("-")[2] for name in names if name != alone) == ["", "2", "3"]
    assert len({name.partition("-")[0] for name in names}) == 2


@pytest.mark.parametrize(
    "other",
    [row(1.6), row(1.5, -0.5), row(1.5, project=None), row(1.5, project=""), row(None), row(0.0)],
)
def test_whatever_differs_gives_another_name(other: dict[str, Any]) -> None:
    names = table([row(1.5), other])["row_id"].to_pylist()
    assert len(set(names)) == 2


def test_names_stay_as_they_are() -> None:
    """Golden: with another way of naming rows, every partition of every tenant would be loaded again."""
    rows = [row(0.1, -0.05), row(0.1, -0.05), row(-3.0, project=None)]
    assert table(rows)["row_id"].to_pylist() == GOLDEN


GOLDEN = [
    "57b66c431b8b7a21f32ff2493a998e46",
    "57b66c431b8b7a21f32ff2493a998e46-2",
    "9885a9f821bd72e7cf30289580513eb8",
]


def test_a_column_that_is_empty_changes_no_name() -> None:
    content = content_of(batch([row(), row(2.0)]))
    wider = content.append_column("added_later", pa.nulls(2, pa.string()))
    assert row_ids(*row_hashes(content)).equals(row_ids(*row_hashes(wider)))
    dropped = content.drop_columns(["tags"])
    assert row_ids(*row_hashes(content)).equals(row_ids(*row_hashes(dropped)))


def test_values_that_change_places_give_another_name() -> None:
    def named(one: str | None, two: str | None) -> str:
        hashes = row_hashes(pa.RecordBatch.from_pydict({"a": pa.array([one]), "b": pa.array([two])}))
        return str(row_ids(*hashes)[0])

    assert len({named("x", "y"), named("y", "x"), named("x", None), named(None, "x"), named("x", "x")}) == 5


def written(amount: str) -> str:
    return f'{{"amount":"{amount}","full_name":null,"id":"c","name":null,"type":null}}'


def test_credits_are_kept_and_summed_as_they_are_kept() -> None:
    one = written("-0.100000000"), written("-0.200000000")
    for one_row, credits_total, net_cost, text in (
        (row(1.0, -0.1, -0.2), "-0.3", "0.7", f"[{','.join(one)}]"),
        (row(1.0), "0", "1", None),
        (row(None, -0.25), "-0.25", "-0.25", f"[{written('-0.250000000')}]"),
    ):
        # Beside another, so that no column is left out.
        (found,) = [r for r in table([one_row, row(7.0, -7.0)]).to_pylist() if r["cost"] != Decimal(7)]
        assert (found["credits_total"], found["net_cost"]) == (Decimal(credits_total), Decimal(net_cost))
        assert found["credits"] == text


def test_an_amount_that_is_none_is_refused_by_its_column() -> None:
    with pytest.raises(DataError, match=r"credits\.amount"):
        table([row(1.0, float("nan"))])


def test_nothing_read_is_a_table_of_all_columns() -> None:
    assert Gathered().table().schema == ROWS


def test_columns_that_nobody_filled_are_left_out() -> None:
    found = table([row()])
    assert "tags" not in found.column_names
    assert set(found.column_names) < set(ROWS.names)


def test_rows_come_sorted_by_day_and_name_and_text_by_its_spellings() -> None:
    found = table([row(float(n)) for n in range(50)], sizes=7)
    assert found["row_id"].to_pylist() == sorted(found["row_id"].to_pylist())
    assert pa.types.is_dictionary(found["project_id"].type)
    assert found["project_id"].to_pylist() == ["p"] * 50


def test_a_batch_of_any_size_is_worked_on_in_pieces() -> None:
    rows = [row(float(n % 7)) for n in range(AT_ONCE + 5)]
    whole = read([batch(rows)], credential_id="cred", address="p.d.t")
    pieces = read([batch(rows[:9]), batch(rows[9:])], credential_id="cred", address="p.d.t")
    assert whole.num_rows == len(rows)
    assert whole["row_id"].to_pylist() == pieces["row_id"].to_pylist()


def test_rows_are_the_schema_without_lineage() -> None:
    schema = SCHEMAS["gcp_billing_daily_raw"]
    lineage = {"x_org_slug", "x_pipeline_id", "x_pipeline_run_date", "x_run_id", "x_ingested_at"}
    assert {c.name: c.arrow.type for c in schema.columns if c.name not in lineage} == {
        field.name: field.type for field in ROWS
    }

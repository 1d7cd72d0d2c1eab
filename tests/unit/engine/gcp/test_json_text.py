"""Lists of an export as JSON text, against json.dumps itself."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.gcp.json_text import flat, json_arrays, json_objects

PAIRS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
TAGS = pa.list_(pa.struct([("key", pa.string()), ("inherited", pa.bool_())]))

text = st.text(st.characters(codec="utf-8"), max_size=6)
pairs = st.lists(st.fixed_dictionaries({"key": text, "value": st.one_of(text, st.none())}), max_size=4)
tags = st.lists(
    st.fixed_dictionaries({"key": text, "inherited": st.sampled_from([True, False, None])}), max_size=3
)


def canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


@given(st.lists(st.one_of(pairs, st.none()), max_size=6))
@settings(max_examples=200, deadline=None)
def test_labels_are_canonical_objects(rows: list[list[dict[str, Any]] | None]) -> None:
    unique = [None if row is None else list({p["key"]: p for p in row}.values()) for row in rows]
    found = json_objects(pa.array(unique, PAIRS)).to_pylist()
    assert [None if text is None else json.loads(text) for text in found] == [
        {p["key"]: p["value"] for p in row} if row else None for row in unique
    ]
    backwards = [None if row is None else row[::-1] for row in unique]
    assert json_objects(pa.array(backwards, PAIRS)).to_pylist() == found


@given(st.lists(st.one_of(tags, st.none()), max_size=6))
@settings(max_examples=100, deadline=None)
def test_tags_are_arrays_in_the_sources_order(rows: list[list[dict[str, Any]] | None]) -> None:
    lists = pa.array(rows, TAGS)
    entries, _ = flat(lists)
    fields = {name: pc.struct_field(entries, name) for name in ("key", "inherited")}
    assert json_arrays(lists, fields).to_pylist() == [canonical(row) if row else None for row in rows]


def test_a_key_with_two_values_keeps_both_and_a_pair_twice_is_one() -> None:
    row = [
        {"key": "env", "value": "prod"},
        {"key": "env", "value": "dev"},
        {"key": "env", "value": "prod"},
        {"key": "a", "value": None},
    ]
    assert json_objects(pa.array([row], PAIRS)).to_pylist() == ['{"a":null,"env":"dev","env#2":"prod"}']


def test_a_field_that_the_export_lacks_is_null() -> None:
    lists = pa.array([[{"key": "a", "value": "b"}]], PAIRS)
    entries, _ = flat(lists)
    found = json_arrays(lists, {"key": pc.struct_field(entries, "key"), "inherited": None})
    assert found.to_pylist() == ['[{"inherited":null,"key":"a"}]']


def test_a_slice_of_lists_is_read_from_its_own_beginning() -> None:
    lists = pa.array([[{"key": "x", "value": "1"}], None, [{"key": "y", "value": "2"}]], PAIRS).slice(1)
    assert json_objects(lists).to_pylist() == [None, '{"y":"2"}']


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("-0.000000033", "-0.000000033"),
        ("0", "0.000000000"),
        ("-0.0000012", "-0.000001200"),
        ("123456789012345678.000000001", "123456789012345678.000000001"),
    ],
)
def test_amounts_are_written_without_an_exponent(amount: str, text: str) -> None:
    lists = pa.array([[{"key": "a", "value": "b"}]], PAIRS)
    found = json_arrays(lists, {"amount": pa.array([Decimal(amount)], pa.decimal128(38, 9))})
    assert found.to_pylist() == [f'[{{"amount":"{text}"}}]']

"""The columns of Google's detailed billing export, as Arrow and as BigQuery writes them."""

from __future__ import annotations

import pyarrow as pa

PAIRS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
STRINGS = ("id", "description", "mode", "type")
SCHEMA = pa.schema(
    [
        ("billing_account_id", pa.string()),
        ("invoice", pa.struct([("month", pa.string()), ("publisher_type", pa.string())])),
        ("cost_type", pa.string()),
        ("service", pa.struct([("id", pa.string()), ("description", pa.string())])),
        ("sku", pa.struct([("id", pa.string()), ("description", pa.string())])),
        ("usage_start_time", pa.timestamp("us", tz="UTC")),
        ("usage_end_time", pa.timestamp("us", tz="UTC")),
        (
            "project",
            pa.struct(
                [
                    *((name, pa.string()) for name in ("id", "number", "name", "ancestry_numbers")),
                    ("labels", PAIRS),
                    (
                        "ancestors",
                        pa.list_(pa.struct([("resource_name", pa.string()), ("display_name", pa.string())])),
                    ),
                ]
            ),
        ),
        ("labels", PAIRS),
        ("system_labels", PAIRS),
        ("location", pa.struct([(name, pa.string()) for name in ("location", "country", "region", "zone")])),
        ("resource", pa.struct([("name", pa.string()), ("global_name", pa.string())])),
        (
            "tags",
            pa.list_(
                pa.struct(
                    [
                        ("key", pa.string()),
                        ("value", pa.string()),
                        ("inherited", pa.bool_()),
                        ("namespace", pa.string()),
                    ]
                )
            ),
        ),
        ("cost", pa.float64()),
        ("currency", pa.string()),
        ("currency_conversion_rate", pa.float64()),
        (
            "usage",
            pa.struct(
                [
                    ("amount", pa.float64()),
                    ("unit", pa.string()),
                    ("amount_in_pricing_units", pa.float64()),
                    ("pricing_unit", pa.string()),
                ]
            ),
        ),
        (
            "credits",
            pa.list_(
                pa.struct(
                    [
                        ("name", pa.string()),
                        ("amount", pa.float64()),
                        ("full_name", pa.string()),
                        ("id", pa.string()),
                        ("type", pa.string()),
                    ]
                )
            ),
        ),
        ("adjustment_info", pa.struct([(name, pa.string()) for name in STRINGS])),
        ("export_time", pa.timestamp("us", tz="UTC")),
        ("cost_at_list", pa.float64()),
        ("transaction_type", pa.string()),
        ("seller_name", pa.string()),
        (
            "price",
            pa.struct(
                [
                    ("effective_price", pa.decimal128(38, 9)),
                    ("tier_start_amount", pa.decimal128(38, 9)),
                    ("unit", pa.string()),
                    ("pricing_unit_quantity", pa.decimal128(38, 9)),
                ]
            ),
        ),
        ("subscription", pa.struct([("instance_id", pa.string())])),
    ]
)
#: Only the detailed export has these.
DETAILED_ONLY = ("resource", "subscription")


def sql_type(kind: pa.DataType) -> str:
    """BigQuery's name for an Arrow type."""
    if pa.types.is_list(kind):
        return f"ARRAY<{sql_type(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"STRUCT<{', '.join(f'`{field.name}` {sql_type(field.type)}' for field in kind)}>"
    names = {
        pa.string(): "STRING",
        pa.float64(): "FLOAT64",
        pa.bool_(): "BOOL",
        pa.decimal128(38, 9): "NUMERIC",
    }
    return names.get(kind, "TIMESTAMP")

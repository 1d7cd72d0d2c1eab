"""Which tables are the export, what they are cut by, and the statements over them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from google.cloud import bigquery

from engine.errors import ConfigurationError
from engine.gcp import sql
from engine.gcp.columns import FIELDS
from engine.gcp.tables import PartitionColumn, choose, described

F = bigquery.SchemaField
DAY = date(2025, 12, 8)
DETAILED = "gcp_billing_export_resource_v1_0124FF_8C7296_9F0D41"
STANDARD = "gcp_billing_export_v1_0124FF_8C7296_9F0D41"
OTHER = "gcp_billing_export_v1_AAAAAA_BBBBBB_CCCCCC"
LEAST = (
    F("usage_start_time", "TIMESTAMP"),
    F("export_time", "TIMESTAMP"),
    F("cost", "FLOAT64"),
    F("currency", "STRING"),
)


@pytest.mark.parametrize(
    ("names", "more", "expected"),
    [
        ([STANDARD, DETAILED], {}, [DETAILED]),
        ([STANDARD, DETAILED, OTHER], {}, [DETAILED, OTHER]),
        ([STANDARD, DETAILED, OTHER], {"export": "standard"}, [STANDARD, OTHER]),
        ([STANDARD, DETAILED, OTHER], {"export": "detailed"}, [DETAILED]),
        ([STANDARD, OTHER], {"accounts": ["AAAAAA-BBBBBB-CCCCCC"]}, [OTHER]),
        ([STANDARD, OTHER], {"accounts": ["aaaaaa_bbbbbb_cccccc"]}, [OTHER]),
        # One Google page writes the account with dashes.
        (["gcp_billing_export_v1_0124FF-8C7296-9F0D41", DETAILED], {}, [DETAILED]),
        (["cloud_pricing_export", "gcp_billing_export_focus_X", "loading_" + STANDARD], {}, []),
    ],
)
def test_exports_are_found_by_prefix(names: list[str], more: dict[str, Any], expected: list[str]) -> None:
    assert [named.name for named in choose(names, **more)] == expected
    assert [named.name for named in choose(names[::-1], **more)] == expected


def table(*columns: bigquery.SchemaField, cut: bigquery.TimePartitioning | None = None) -> bigquery.Table:
    made = bigquery.Table("p.d.t", schema=[*LEAST, *columns])
    if cut is not None:
        made.time_partitioning = cut
    return made


@pytest.mark.parametrize(
    ("cut", "column", "expected"),
    [
        (None, None, PartitionColumn("export_time", "TIMESTAMP")),
        (bigquery.TimePartitioning(), None, PartitionColumn("_PARTITIONTIME", "TIMESTAMP")),
        (bigquery.TimePartitioning(field="loaded"), F("loaded", "DATE"), PartitionColumn("loaded", "DATE")),
        (
            bigquery.TimePartitioning(field="loaded", type_="HOUR"),
            F("loaded", "DATETIME"),
            PartitionColumn("loaded", "DATETIME"),
        ),
    ],
)
def test_the_metadata_says_what_a_load_partition_is(
    cut: bigquery.TimePartitioning | None, column: bigquery.SchemaField | None, expected: PartitionColumn
) -> None:
    found = described("p.d.t", "detailed", table=table(*([column] if column else []), cut=cut), location="EU")
    assert found.partition == expected
    assert found.unknown == (("loaded",) if column else ())


def test_new_columns_and_strange_ones_are_named() -> None:
    found = described(
        "p.d.t",
        "detailed",
        table=table(
            F("service", "RECORD", fields=[F("id", "STRING"), F("tier", "STRING")]),
            F("labels", "STRING"),
            F("credits", "RECORD", "REPEATED", fields=[F("amount", "FLOAT64"), F("origin", "STRING")]),
            F("carbon", "FLOAT64"),
            cut=bigquery.TimePartitioning(expiration_ms=60 * 86_400_000),
        ),
        location="EU",
    )
    assert found.unknown == ("carbon", "credits.origin", "service.tier")
    assert found.misfits == ("labels (STRING NULLABLE)",)
    assert {field.name for field in found.fields} == {
        *("usage_start_time", "export_time", "cost", "currency", "service_id", "credits")
    }
    assert found.expires_days == 60


def test_all_of_googles_columns_are_known() -> None:
    assert len(FIELDS) == len({field.name for field in FIELDS}) == len({field.path for field in FIELDS})


@pytest.mark.parametrize("missing", ["usage_start_time", "export_time", "cost", "currency"])
def test_without_its_own_columns_a_table_is_no_export(missing: str) -> None:
    made = bigquery.Table("p.d.t", schema=[field for field in LEAST if field.name != missing])
    with pytest.raises(ConfigurationError, match=missing):
        described("p.d.t", "detailed", table=made, location="EU")


def test_statements_name_columns_and_no_days() -> None:
    found = described("p.d.t", "detailed", table=table(cut=bigquery.TimePartitioning()), location="EU")
    statement, parameters = sql.rows(found, [DAY], [date(2025, 12, 9), date(2025, 12, 11)])
    assert "*" not in statement
    assert "2025" not in statement
    assert "_PARTITIONTIME >= @from AND _PARTITIONTIME < @until" in statement
    assert parameters == {
        "from": datetime(2025, 12, 9, tzinfo=UTC),
        "until": datetime(2025, 12, 12, tzinfo=UTC),
        "partitions": [date(2025, 12, 9), date(2025, 12, 11)],
        "first": datetime(2025, 12, 8, tzinfo=UTC),
        "after": datetime(2025, 12, 9, tzinfo=UTC),
    }


def test_a_date_column_is_compared_with_dates() -> None:
    cut = bigquery.TimePartitioning(field="loaded")
    found = described("p.d.t", "detailed", table=table(F("loaded", "DATE"), cut=cut), location="EU")
    statement, parameters = sql.usage_days(found, [DAY])
    assert "`loaded` >= @from AND `loaded` < @until" in statement
    assert parameters["from"] == DAY


@pytest.mark.parametrize("name", ["p.d`; DROP TABLE x; --", "p.d\\", "p.d\n"])
def test_a_name_that_would_leave_its_backticks_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no name"):
        sql.quoted(name)

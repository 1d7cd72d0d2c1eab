"""What a question may not name; nothing of it may reach the warehouse, not even as a dry run."""

from __future__ import annotations

from typing import Any, cast

import pytest

from engine.errors import UsageError
from engine.questions import ask
from engine.warehouse import Warehouse


class Untouched:
    """A warehouse that says when it is used."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the warehouse was asked for {name}")


NOWHERE = cast("Warehouse", Untouched())


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM READ_PARQUET ('/data/artifacts/globex_local/*/*/*.parquet')",
        "SELECT * FROM openai_cost_daily, read_blob('/data/keys/master.key')",
        "SELECT * FROM openai_cost_daily AS a JOIN `read_csv_auto`('/x.csv') AS b ON TRUE",
        "SELECT (SELECT COUNT(*) FROM read_json /* hidden */ ('/x.json'))",
        "WITH a AS (SELECT * FROM system.main.read_text('/x')) SELECT * FROM a",
        "SELECT * FROM parquet_scan('/x.parquet')",
        "SELECT * FROM glob('/data/keys/*')",
        "SELECT * FROM query('SELECT 42')",
        "SELECT * FROM query_table('globex_local.openai_cost_daily')",
        "SELECT * FROM duckdb_tables()",
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM ST_Read('/x.geojson')",
        "SELECT current_setting('temp_directory')",
    ],
)
def test_functions_of_the_embedded_engine_are_refused(sql: str) -> None:
    with pytest.raises(UsageError, match="is no function of BigQuery"):
        ask(NOWHERE, sql)


@pytest.mark.parametrize(
    "disguised",
    [
        "SELECT 1 AS `a--b`, {}",
        "SELECT 1 AS `a#b`, {}",
        "SELECT 1 AS `a'b`, {} WHERE 'x' = 'x'",
        "SELECT 1 AS `/*`, {} -- */",
        'SELECT """\\""" x """, {} -- """',
        "SELECT '''\\''' x ''', {} -- '''",
        "SELECT r'\\\\', {} -- '",
        "SELECT '\\\\', {} -- '",
    ],
)
@pytest.mark.parametrize(
    "reach",
    [
        "* FROM read_text('/x')",
        "* FROM `region-us`.INFORMATION_SCHEMA.JOBS",
        "* FROM globex_local.__TABLES__",
    ],
)
def test_nothing_hides_behind_quotes_and_comments(disguised: str, reach: str) -> None:
    with pytest.raises(UsageError, match=r"is no function|reaches beyond"):
        ask(NOWHERE, disguised.format(reach))


@pytest.mark.parametrize(
    "sql",
    [
        r"SELECT * FROM `read\x5ftext`('/x')",
        r"SELECT * FROM `region-us`.`INFORMATION\137SCHEMA`.JOBS",
        r"SELECT * FROM globex_local.`__TABLES\u005f_`",
    ],
)
def test_a_name_is_not_spelled_in_escapes(sql: str) -> None:
    with pytest.raises(UsageError, match="holds an escape"):
        ask(NOWHERE, sql)


@pytest.mark.parametrize(
    "sql",
    [
        r"SELECT REGEXP_REPLACE(model, r'-\d+$', '') FROM openai_cost_daily WHERE model != 'it\'s'",
        "SELECT 'read_text(1)' AS said, query FROM t -- glob('x')",
        "SELECT SUM(total_cost) FROM openai_cost_daily WHERE model LIKE '%query(%'",
        "SELECT * FROM UNNEST([1, 2]) AS n JOIN (SELECT 1) AS query USING (n)",
    ],
)
def test_their_names_elsewhere_count_for_nothing(sql: str) -> None:
    with pytest.raises(AssertionError, match="the warehouse was asked"):
        ask(NOWHERE, sql)

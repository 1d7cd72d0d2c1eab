"""Which tables SQL names, and that it names no dataset."""

from __future__ import annotations

import pytest

from engine.procedures.sql_tables import named, refuse_datasets
from engine.procedures.sql_text import SqlError, tokens


@pytest.mark.parametrize(
    ("sql", "reads", "writes"),
    [
        ("SELECT * FROM a AS x, UNNEST(x.list) JOIN `b` USING (id)", {"a", "b"}, set()),
        ("WITH w AS (SELECT * FROM a), v AS (SELECT 1) SELECT * FROM w JOIN v ON TRUE", {"a"}, set()),
        (
            "INSERT INTO a (x) SELECT EXTRACT(DAY FROM b.day) FROM b WHERE x IS DISTINCT FROM b.y",
            {"b"},
            {"a"},
        ),
        ("DELETE FROM a WHERE x IN (SELECT y FROM b)", {"b"}, {"a"}),
        ("UPDATE a SET x = 1 FROM b WHERE c LIKE 'd'", {"b"}, {"a"}),
        ("MERGE INTO a AS t USING b AS s ON t.x = s.x WHEN MATCHED THEN DELETE", {"b"}, {"a"}),
        ("MERGE a USING b ON TRUE WHEN NOT MATCHED THEN INSERT ROW", {"b"}, {"a"}),
        ("ALTER TABLE IF EXISTS a ADD COLUMN IF NOT EXISTS x INT64", set(), {"a"}),
        ("ALTER TABLE a RENAME TO b", set(), {"a", "b"}),
        ("ALTER TABLE a ALTER COLUMN x SET DATA TYPE NUMERIC", set(), {"a"}),
        ("CREATE OR REPLACE TABLE a LIKE b AS SELECT 1 FROM c", {"b", "c"}, {"a"}),
        ("CREATE TEMP TABLE t AS SELECT * FROM a; SELECT * FROM t", {"a"}, set()),
        ("DROP VIEW IF EXISTS v", set(), {"v"}),
        ("TRUNCATE TABLE a", set(), {"a"}),
        ("SELECT table_name FROM INFORMATION_SCHEMA.TABLES", set(), set()),
        ("EXECUTE IMMEDIATE 'SELECT 1 FROM a' INTO x USING y AS z", set(), set()),
    ],
)
def test_tables_read_and_written(sql: str, reads: set[str], writes: set[str]) -> None:
    found = named(tokens(sql))
    assert {one.table for one in found if one.written} == writes
    assert {one.table for one in found if not one.written} == reads


@pytest.mark.parametrize(
    ("sql", "path"),
    [
        ("SELECT * FROM acme_prod.x", "acme_prod.x"),
        ("SELECT * FROM `acme_prod.x`", "acme_prod.x"),
        ("SELECT * FROM `acme_prod`.`x`", "acme_prod.x"),
        ("SELECT * FROM my-project.acme.x", "my-project.acme.x"),
        ("SELECT * FROM x, `acme.y`", "acme.y"),
        ("INSERT acme.t VALUES (1)", "acme.t"),
        ("DELETE FROM acme.t WHERE TRUE", "acme.t"),
        ("DELETE acme.t WHERE TRUE", "acme.t"),
        ("UPDATE acme.t SET x = 1", "acme.t"),
        ("TRUNCATE TABLE acme.t", "acme.t"),
        ("ALTER TABLE IF EXISTS acme.t ADD COLUMN x INT64", "acme.t"),
        ("ALTER TABLE t RENAME TO acme.t", "acme.t"),
        ("MERGE acme.t USING x ON TRUE WHEN MATCHED THEN DELETE", "acme.t"),
        ("MERGE t USING acme.x ON TRUE WHEN MATCHED THEN DELETE", "acme.x"),
        ("CREATE TABLE x LIKE acme.t", "acme.t"),
        ("CREATE TABLE acme.t (x INT64)", "acme.t"),
        ("CALL acme.p()", "acme.p"),
        ("EXECUTE IMMEDIATE 'SELECT 1 FROM acme.x'", "acme.x"),
        ("EXECUTE IMMEDIATE FORMAT('SELECT 1 FROM `acme.x` WHERE a = %d', b)", "acme.x"),
        ("EXECUTE IMMEDIATE 'SELECT ' || a || ' FROM `acme.x`'", "acme.x"),
        ("SELECT * FROM `acme.INFORMATION_SCHEMA.TABLES`", "acme.INFORMATION_SCHEMA.TABLES"),
    ],
)
@pytest.mark.parametrize("bare", [True, False])
def test_a_dataset_is_refused_wherever_it_stands(sql: str, path: str, bare: bool) -> None:
    with pytest.raises(SqlError) as raised:
        refuse_datasets(tokens(f"\n{sql}"), bare=bare)
    # A bare table may stand before it, and is refused first where none is allowed.
    assert f"{path} names a dataset" in raised.value.message or (
        not bare and "outside" in raised.value.message
    )
    assert raised.value.line == 2


def test_the_line_within_a_string_of_many_lines_is_found() -> None:
    sql = 'EXECUTE IMMEDIATE FORMAT("""\n  SELECT 1\n  FROM `%s.ours`\n  JOIN acme.x ON TRUE""", dataset)'
    with pytest.raises(SqlError) as raised:
        refuse_datasets(tokens(sql), bare=False)
    assert raised.value.line == 4


@pytest.mark.parametrize(
    "sql",
    [
        'EXECUTE IMMEDIATE FORMAT("SELECT 1 FROM `%s.plans` AS p, UNNEST(p.items)", dataset)',
        'EXECUTE IMMEDIATE FORMAT("""INSERT INTO `%s.%s` (a) SELECT x.a FROM `%s.t` AS x""", d, s, d)',
        'EXECUTE IMMEDIATE FORMAT("SELECT 1 FROM `%s.INFORMATION_SCHEMA.TABLES`", dataset)',
        "RAISE USING MESSAGE = 'see docs.example from acme.corp'",
        "CREATE TEMP TABLE t AS SELECT 1 AS a; SELECT t.a FROM t",
        "FOR r IN (WITH w AS (SELECT 1 AS a) SELECT * FROM w) DO SELECT r.a; END FOR",
        "SELECT a.b, COUNT(*) FROM UNNEST([STRUCT(1 AS b)]) AS a GROUP BY a.b",
    ],
)
def test_what_keeps_to_the_form_passes(sql: str) -> None:
    refuse_datasets(tokens(sql), bare=False)


def test_a_table_outside_of_dynamic_sql_is_a_migrations_alone() -> None:
    refuse_datasets(tokens("SELECT * FROM plans"), bare=True)
    with pytest.raises(SqlError, match="plans is named outside of dynamic SQL"):
        refuse_datasets(tokens("SELECT * FROM plans"), bare=False)

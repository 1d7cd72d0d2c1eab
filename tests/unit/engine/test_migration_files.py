"""Migration files: header, statements, transactions, and what has no place in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.migrations.files import migration_of, read_migrations
from engine.procedures.sql_text import SqlError

ROOT = Path(__file__).resolve().parents[3]
GOOD = """\
-- scope: tenant
-- requires: costs, plans
-- Why it is done.

ALTER TABLE costs ADD COLUMN IF NOT EXISTS note STRING;

BEGIN TRANSACTION;
UPDATE costs SET note = 'a;b' WHERE note IS NULL;
INSERT INTO plans (id) SELECT id FROM costs;
COMMIT TRANSACTION;

BEGIN
  DECLARE n INT64;
  SET n = (SELECT COUNT(*) FROM costs);
END;
"""


def made(sql: str, name: str = "001_note"):  # type: ignore[no-untyped-def]
    return migration_of(sql, name=name, file=f"procedures/migrations/{name}.sql")


def test_a_good_file_is_taken_apart() -> None:
    found = made(GOOD)
    assert (found.number, found.scope, found.requires) == (1, "tenant", ("costs", "plans"))
    assert [(part.line, part.reads, part.writes) for part in found.parts] == [
        (5, (), ("costs",)),
        (7, (), ("costs", "plans")),
        (12, ("costs",), ()),
    ]
    # One job for a transaction: in several it would be none.
    assert found.parts[1].sql.startswith("BEGIN TRANSACTION;\nUPDATE")
    assert found.parts[1].sql.endswith("COMMIT TRANSACTION")


def test_the_checksum_is_the_whole_files_and_line_ends_do_not_count() -> None:
    assert made(GOOD).checksum == made(GOOD.replace("\n", "\r\n")).checksum
    assert made(GOOD).checksum != made(GOOD.replace("Why", "How")).checksum
    assert made(GOOD).checksum_of(1) == made(GOOD.replace("Why", "How").replace("a;b", "c")).checksum_of(1)
    assert made(GOOD).checksum_of(2) != made(GOOD.replace("a;b", "c")).checksum_of(2)


@pytest.mark.parametrize(
    ("sql", "line", "said"),
    [
        ("ALTER TABLE a ADD COLUMN b INT64", 1, "does not say its scope"),
        ("SELECT 1;\n-- scope: tenant", 1, "does not say its scope"),
        ("-- scope: everything\nSELECT 1", 1, "scope is 'everything'"),
        ("-- scope: tenant\n-- requires: a b\nSELECT 1", 2, "'a b', which is no table"),
        ("-- scope: tenant\n", 1, "holds no statement"),
        ("-- scope: tenant\nALTER TABLE acme_prod.a ADD COLUMN b INT64", 2, "acme_prod.a names a dataset"),
        ("-- scope: tenant\nEXECUTE IMMEDIATE 'DROP TABLE `x.y`'", 2, "x.y names a dataset"),
        ("-- scope: tenant\nDROP SCHEMA acme_prod CASCADE", 2, "DROP SCHEMA has no place"),
        ("-- scope: central\nCREATE OR REPLACE PROCEDURE p() BEGIN SELECT 1; END", 2, "CREATE PROCEDURE has"),
        ("-- scope: tenant\nSELECT 1;\nDECLARE x INT64", 3, "DECLARE has no place"),
        ("-- scope: tenant\nBEGIN TRANSACTION;\nSELECT 1", 2, "is not committed"),
        ("-- scope: tenant\nALTR TABLE a", 2, "No statement begins with ALTR"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(sql: str, line: int, said: str) -> None:
    with pytest.raises(SqlError) as raised:
        made(sql)
    assert said in raised.value.message
    assert raised.value.line == line
    assert raised.value.fix


@pytest.mark.parametrize("name", ["note", "1_note", "001-note", "001_Note"])
def test_a_name_without_number_is_refused(name: str) -> None:
    with pytest.raises(SqlError, match="no migration's name"):
        made(GOOD, name)


def test_two_files_cannot_have_one_number(tmp_path: Path) -> None:
    folder = tmp_path / "procedures" / "migrations"
    folder.mkdir(parents=True)
    for name in ("002_b", "001_a", "002_c"):
        (folder / f"{name}.sql").write_text("-- scope: central\nSELECT 1")
    read = read_migrations(tmp_path)
    assert [one.name for one in read.migrations] == ["001_a", "002_b", "002_c"]
    (problem,) = read.problems
    assert (problem.file, problem.problem) == (
        "procedures/migrations/002_c.sql",
        "has the number of 002_b.sql",
    )


def test_the_shipped_files_are_right() -> None:
    assert read_migrations(ROOT).problems == ()

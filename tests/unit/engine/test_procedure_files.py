"""Procedure files: exactly one well-formed procedure, no dataset in it, and what makes two the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.procedures.files import Definition, procedure_of, read_procedures
from engine.procedures.sql_text import SqlError, statements

ROOT = Path(__file__).resolve().parents[3]
GOOD = """\
-- what it does
CREATE OR REPLACE PROCEDURE demo_days(dataset STRING, staging STRING, IN first DATE, tags ARRAY<STRING>)
BEGIN
  EXECUTE IMMEDIATE FORMAT("INSERT INTO `%s.%s` (day) SELECT @day", dataset, staging) USING first AS day;
END;
"""


def made(sql: str):  # type: ignore[no-untyped-def]
    return procedure_of(sql, domain="demo", stem="days", file="procedures/demo/days.sql")


def test_a_good_file_is_taken_apart() -> None:
    found = made(GOOD)
    assert found.name == "demo_days"
    assert [str(one) for one in found.definition.arguments] == [
        "dataset STRING",
        "staging STRING",
        "first DATE",
        "tags ARRAY<STRING>",
    ]
    assert found.body_line == 3
    assert found.definition.body.startswith("BEGIN\n  EXECUTE")
    assert found.definition.body.endswith("END")
    assert (
        found.statement("p.central.demo_days")
        .split("\n")[1]
        .startswith("CREATE OR REPLACE PROCEDURE `p.central.demo_days`(dataset")
    )


@pytest.mark.parametrize(
    ("sql", "line", "said"),
    [
        ("", 1, "holds no statement"),
        (GOOD + "\nSELECT 1;", 7, "second statement"),
        (GOOD + GOOD, 7, "second statement"),
        ("SELECT 1", 1, "does not begin with CREATE OR REPLACE PROCEDURE"),
        (GOOD.replace("OR REPLACE ", ""), 2, "does not begin with CREATE OR REPLACE PROCEDURE"),
        (GOOD.replace("demo_days", "acme_prod.demo_days"), 2, "is called acme_prod.demo_days"),
        (GOOD.replace("demo_days", "`demo_days`"), 2, "is called `demo_days`"),
        (GOOD.replace("demo_days", "days"), 2, "is called days"),
        (GOOD.replace("BEGIN", "OPTIONS (strict_mode = FALSE)\nBEGIN"), 3, "stands OPTIONS"),
        (GOOD.replace("`%s.%s`", "`acme_prod.%s`"), 4, "acme_prod.%s names a dataset"),
        (
            GOOD.replace("END;", "  SELECT * FROM globex_prod.costs;\nEND;"),
            5,
            "globex_prod.costs names a dataset",
        ),
        (GOOD.replace("END;", "  DELETE FROM costs WHERE TRUE;\nEND;"), 5, "outside of dynamic SQL"),
        (GOOD.replace("IN first DATE", "OUT first DATE"), 2, "gives back a value"),
        (GOOD.replace("first DATE", "first DATES"), 2, "is of type DATES"),
        (GOOD.replace("ARRAY<STRING>", "ARRAY<ARRAY<STRING>>"), 2, "is of type ARRAY<ARRAY<STRING>>"),
        (GOOD.replace("IN first", "dataset"), 2, "dataset"),
        (GOOD.replace("staging STRING", "staging DATE"), 2, "bound by Manta as STRING"),
        (GOOD.replace("first DATE", "First DATE"), 2, "is no parameter's name"),
        (GOOD.replace("END;", ""), 3, "BEGIN that begins here has no end"),
        (GOOD.replace("EXECUTE IMMEDIATE", "EXECUT IMMEDIATE"), 4, "No statement begins with EXECUT"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(sql: str, line: int, said: str) -> None:
    with pytest.raises(SqlError) as raised:
        made(sql)
    assert said in raised.value.message
    assert raised.value.line == line
    assert raised.value.fix


def test_every_problem_of_a_folder_is_named(tmp_path: Path) -> None:
    for name, text in {
        "demo/days.sql": GOOD,
        "demo/bad.sql": "CREATE OR REPLACE PROCEDURE demo_bad()\nBEGIN\n  SELEC 1;\nEND",
        "alone.sql": GOOD,
        "demo/deep/er.sql": GOOD,
        "Demo/days.sql": GOOD,
        "migrations/001_a.sql": "this is another's",
    }.items():
        path = tmp_path / "procedures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "procedures" / "demo" / "bytes.sql").write_bytes(b"\xff\xfe")
    read = read_procedures(tmp_path)
    assert set(read.procedures) == {"demo_days"}
    assert sorted((one.file.removeprefix("procedures/"), one.line) for one in read.problems) == [
        ("Demo/days.sql", 1),
        ("alone.sql", 1),
        ("demo/bad.sql", 3),
        ("demo/bytes.sql", 1),
        ("demo/deep/er.sql", 1),
    ]


@pytest.mark.parametrize(
    "body",
    [
        "BEGIN\n  SELECT 1;\nEND",
        "\n  SELECT 1;\n",
        "  SELECT 1;",
        "BEGIN\r\n  SELECT 1;   \r\nEND\n",
    ],
)
def test_the_same_body_has_the_same_hash_however_bigquery_gives_it_back(body: str) -> None:
    wanted = Definition(made(GOOD).definition.arguments, "BEGIN\n  SELECT 1;\nEND").content_hash
    assert Definition(made(GOOD).definition.arguments, body).content_hash == wanted


def test_body_and_parameters_both_count() -> None:
    definition = made(GOOD).definition
    hashes = {
        definition.content_hash,
        Definition(definition.arguments[:-1], definition.body).content_hash,
        Definition(definition.arguments, definition.body.replace("day", "date")).content_hash,
    }
    assert len(hashes) == 3


def test_the_example_of_the_page_is_a_procedure_file() -> None:
    page = (ROOT / "docs" / "procedures.md").read_text("utf-8")
    found = re.search(r"```sql\n# procedures/(\w+)/(\w+)\.sql\n(.*?)```", page, re.DOTALL)
    assert found
    made_of = procedure_of(found[3], domain=found[1], stem=found[2], file="docs/procedures.md")
    assert made_of.name == "example_plan_days"


def test_the_shipped_files_are_right() -> None:
    assert read_procedures(ROOT).problems == ()
    for file in read_procedures(ROOT).procedures.values():
        assert len(statements(file.sql)) == 1

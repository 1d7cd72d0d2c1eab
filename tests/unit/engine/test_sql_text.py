"""Taking SQL apart: tokens with their lines, statements of a script, and the line of what does not fit."""

from __future__ import annotations

import pytest

from engine.procedures.sql_text import SqlError, statements, tokens

SCRIPT = """\
-- a comment; with a semicolon
CREATE OR REPLACE PROCEDURE a_b(dataset STRING)
BEGIN
  DECLARE x INT64 DEFAULT IF(TRUE, 1, 2);
  IF x = 1 THEN SELECT CASE x WHEN 1 THEN IF(a, 1, 2) ELSE 3 END;
  ELSEIF x = 2 THEN SET x = 2;
  ELSE SELECT 1; END IF;
  CASE x WHEN 1 THEN SELECT 1; ELSE SELECT 2; END CASE;
  outer_loop: LOOP BREAK; END LOOP;
  WHILE x < 3 DO SET x = x + 1; END WHILE;
  FOR r IN (SELECT 1 AS a) DO SELECT r.a; END FOR;
  REPEAT SET x = 1; UNTIL TRUE END REPEAT;
  BEGIN TRANSACTION; COMMIT TRANSACTION;
  MERGE t USING w ON TRUE WHEN MATCHED THEN UPDATE SET a = 1 WHEN NOT MATCHED THEN INSERT (a) VALUES (1);
  CREATE TABLE IF NOT EXISTS y AS SELECT ';' AS a, ['x', "it's; "] AS b;
EXCEPTION WHEN ERROR THEN
  RAISE USING MESSAGE = CONCAT('it\\'s', @@error.message);
END;
SELECT 2 # another; comment
"""


def test_a_block_is_one_statement_with_all_that_is_in_it() -> None:
    first, second = statements(SCRIPT)
    assert first.text.startswith("CREATE OR REPLACE PROCEDURE")
    assert first.text.endswith("END")
    assert (first.line, second.line) == (2, 19)
    assert second.text == "SELECT 2"


@pytest.mark.parametrize(
    ("sql", "texts"),
    [
        ("", []),
        (" ;; -- nothing\n/* ; */ ;", []),
        ("SELECT 1; SELECT 2;", ["SELECT 1", "SELECT 2"]),
        ("SELECT '''a;\n'b' \"c\" ''' ; SELECT 2", ["SELECT '''a;\n'b' \"c\" '''", "SELECT 2"]),
        ('SELECT """a ; ""b"" """; SELECT 2', ['SELECT """a ; ""b"" """', "SELECT 2"]),
        ("SELECT `a;b`.`c`; SELECT '', \"\"", ["SELECT `a;b`.`c`", "SELECT '', \"\""]),
        ('SELECT rb\'x;y\', B"\\";"', ['SELECT rb\'x;y\', B"\\";"']),
        ("WITH a AS (SELECT 1) SELECT * FROM a; (SELECT 1)", None),
        ("BEGIN; SELECT 1; COMMIT;", ["BEGIN", "SELECT 1", "COMMIT"]),
    ],
)
def test_semicolons_in_quotes_comments_and_blocks_end_nothing(sql: str, texts: list[str] | None) -> None:
    if texts is None:
        assert statements(sql)
    else:
        assert [one.text for one in statements(sql)] == texts


@pytest.mark.parametrize(
    ("sql", "line", "said"),
    [
        ("SELECT\n'a", 2, "string that begins here is never closed"),
        ("SELECT\n\n`a\nb`", 3, "name in backticks"),
        ("SELECT 1; /* x", 1, "comment that begins here"),
        ('SELECT """a\nb', 1, "never closed"),
        ("BEGIN\nSELECT 1;", 1, "The BEGIN that begins here has no end"),
        ("SELECT 1;\nIF TRUE THEN SELECT 1;\nEND;", 3, "The IF of line 2 ends with END IF"),
        ("BEGIN LOOP SELECT 1; END WHILE; END", 1, "ends with END LOOP"),
        ("BEGIN\n  SELEC 1;\nEND", 2, "No statement begins with SELEC"),
        ("'a'", 1, "No statement begins with 'a'"),
        ("SELECT (1;", 1, "The ( is not closed"),
        ("SELECT\n1)", 2, "Nothing is open that this ) could close"),
        ("SELECT [1)", 1, "Nothing is open that this ) could close"),
        ("SELECT 1;\nEND", 2, "Nothing is open that this END could end"),
        ("SELECT CASE 1 WHEN 1 THEN 2; END", 1, "CASE expression is not closed"),
        ("SELECT 1;\nSELECT (\n", 2, "( that begins here has no end"),
    ],
)
def test_what_does_not_fit_is_said_with_its_line(sql: str, line: int, said: str) -> None:
    with pytest.raises(SqlError, match=None) as raised:
        statements(sql)
    assert said in raised.value.message
    assert raised.value.line == line


def test_tokens_know_what_stands_between_quotes() -> None:
    found = {token.text: token.content for token in tokens("SELECT 'a', r\"b\", '''c''', `d.e`, f, 1.5, @g")}
    assert found["'a'"] == "a"
    assert found['r"b"'] == "b"
    assert found["'''c'''"] == "c"
    assert found["`d.e`"] == "d.e"
    assert found["f"] == "f"


def test_a_quoted_name_is_no_keyword() -> None:
    quoted, bare = tokens("`select` select")
    assert (quoted.word, bare.word) == ("", "SELECT")

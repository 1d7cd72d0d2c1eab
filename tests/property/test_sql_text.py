"""Whatever stands in quotes, comments and blocks, a script comes apart into the statements it was made of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.procedures.sql_text import SqlError, statements, tokens

INNER = st.text(alphabet="ab ;'\"`-#/*\\()%{}\n", max_size=12)


def quoted(quote: str) -> st.SearchStrategy[str]:
    """A string or name between these quotes, whatever is in it."""

    def written(text: str) -> str:
        text = text.replace("\\", "\\\\")
        if len(quote) == 1:
            text = text.replace("\n", " ")
        return quote + text.replace(quote[0], f"\\{quote[0]}") + quote

    return INNER.map(written)


VALUES = st.one_of(*(quoted(quote) for quote in ("'", '"', "'''", '"""')))
BLANKS = st.sampled_from([" ", "\n", " /* ; ' */ ", " -- it's; \n", " # ;\n"])
SELECTS = st.builds(lambda blank, value: f"SELECT{blank}{value}", BLANKS, VALUES)
NAMES = quoted("`").filter(lambda name: name != "``").map(lambda name: f"DROP TABLE {name}")


def block(inner: list[str]) -> str:
    return "BEGIN " + " ".join(f"{one};" for one in inner) + " END"


def branch(inner: list[str]) -> str:
    return "IF x = 1 THEN " + "; ".join(inner) + "; ELSE SELECT CASE WHEN a THEN IF(b, 1, 2) END; END IF"


STATEMENTS = st.recursive(
    SELECTS | NAMES,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(block)
        | st.lists(inner, min_size=1, max_size=3).map(branch)
    ),
    max_leaves=5,
)


@given(st.lists(STATEMENTS, min_size=1, max_size=4), BLANKS)
def test_a_script_comes_apart_into_what_it_was_made_of(made: list[str], blank: str) -> None:
    script = "".join(f"{blank}{one}{blank};" for one in made)
    assert [one.text for one in statements(script)] == made


@given(st.lists(STATEMENTS, min_size=1, max_size=4))
def test_every_statement_knows_its_line(made: list[str]) -> None:
    script = ";\n".join(made)
    for one in statements(script):
        assert script.split("\n")[one.line - 1 :]
        assert "\n".join(script.split("\n")[one.line - 1 :]).find(one.text.split("\n")[0]) >= 0


@given(st.text(alphabet="abSELECTBEGINEND ;'\"`-#/*\\()\n@.", max_size=60))
def test_any_text_comes_apart_or_is_refused_with_a_line_that_it_has(text: str) -> None:
    refused = None
    try:
        taken = tokens(text)
        statements(text)
    except SqlError as error:
        refused = error
    if refused is None:
        assert all(text[one.start : one.end] == one.text for one in taken)
    else:
        assert 1 <= refused.line <= text.count("\n") + 1

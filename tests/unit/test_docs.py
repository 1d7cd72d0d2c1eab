"""README and docs/*.md name what is there: links, commands with their options, files, tables, prices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from engine import publish
from engine.catalog import Catalog
from engine.ledger import State
from engine.prices.files import OverrideFile, PriceFile
from engine.prices.overrides import overrides
from engine.prices.sources import cards
from engine.schemas import Schema
from serve.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
SCHEMAS = Catalog.load(ROOT).schemas
TREE: Any = typer.main.get_command(app)
HELP = {"--help", "-h"}
#: Folders of the checkout by which a name in backticks is known to be a path of ours.
TOPS = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}


def linked(text: str) -> set[str]:
    """Targets of links within the repository."""
    found = re.findall(r"\[[^\]]+\]\(([^)\s]+)\)", text)
    return {link.split("#")[0] for link in found if "://" not in link and not link.startswith("#")}


def quoted(text: str) -> list[str]:
    """What stands in backticks outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def examples(text: str) -> set[str]:
    """Files that a guide tells the reader to make: the first line of a code block names them."""
    return set(re.findall(r"^```\w+\n# ([\w./-]+)$", text, flags=re.MULTILINE))


def called(text: str) -> set[str]:
    """Calls of manta: in backticks, and lines of shell blocks."""
    lines = [
        line
        for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    calls = [*quoted(text), *(line.split("#")[0].strip() for line in lines)]
    return {m[1] for call in calls if (m := re.match(r"(?:\.venv/bin/)?manta ((?:[a-z]|--).*)", call))}


def resolve(words: list[str]) -> tuple[Any, list[str]]:
    """The deepest command that the words name, and the words after it."""
    command = TREE
    while words and hasattr(command, "commands"):
        if words[0].startswith("--"):
            break
        assert words[0] in command.commands, f"there is no command {words[0]!r} in manta"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def paths(text: str) -> Iterator[str]:
    """Names in backticks that look like files or folders of the checkout."""
    for name in quoted(text):
        top, slash, _ = name.partition("/")
        if slash and top in TOPS and re.fullmatch(r"[\w./*-]+", name):
            yield name


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    missing = {link for link in linked(PAGES[page]) if not ((ROOT / page).parent / link).exists()}
    assert missing == set()


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_with_their_options(page: str) -> None:
    for call in called(PAGES[page]):
        words = [word for word in re.split(r"[\s|\[\]]+", re.sub(r'"[^"]*"', "TEXT", call)) if word]
        command, rest = resolve(words)
        known = {option for parameter in command.params for option in parameter.opts} | HELP
        options = {word.split("=")[0] for word in rest if word.startswith("--")}
        assert options <= known, f"{page}: manta {call}"


@pytest.mark.parametrize("page", PAGES)
def test_files_exist(page: str) -> None:
    missing = {name for name in paths(PAGES[page]) if not any(ROOT.glob(name.rstrip("/")))}
    assert missing - examples(PAGES[page]) == set()


def test_every_page_can_be_found_from_the_readme() -> None:
    found, left = {"README.md"}, ["README.md"]
    while left:
        page = left.pop()
        for link in linked(PAGES[page]):
            target = ((ROOT / page).parent / link).resolve().relative_to(ROOT).as_posix()
            if target in PAGES and target not in found:
                found.add(target)
                left.append(target)
    assert found == set(PAGES)


# docs/tables.md: one section a table; all but "written by" and "read by" follow from the schema file.
SECTIONS = {
    part.split("`", 1)[0]: part.partition("\n")[2].split("\n## ")[0].strip()
    for part in re.split(r"^### `", PAGES["docs/tables.md"], flags=re.MULTILINE)[1:]
}


def section(schema: Schema, written_by: str | None, read_by: str) -> str:
    """What docs/tables.md says of a table; nobody writes a view."""
    stored = {
        "partition": f"`{schema.partition}`, by day" if schema.partition else "none",
        "key": ", ".join(f"`{name}`" for name in schema.key),
        "written by": written_by,
    }
    rows = {
        "dataset": "central" if schema.scope == "central" else "the organisation's",
        "origin": "original service" if schema.origin == "original" else "new",
        **({"view over": ", ".join(f"`{t}`" for t in sorted(schema.sources))} if schema.view else stored),
        "read by": read_by,
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([schema.description, "", "| | |", "|---|---|", *lines])


def said(table: str, row: str) -> str:
    found = re.search(rf"^\| {row} \| (.+) \|$", SECTIONS[table], re.MULTILINE)
    assert found is not None, f"docs/tables.md: {table} has no row {row!r}"
    return found[1]


def test_every_table_is_described_and_no_other() -> None:
    assert list(SECTIONS) == sorted(SCHEMAS, key=lambda name: (SCHEMAS[name].scope, name))


@pytest.mark.parametrize("table", SCHEMAS)
def test_a_table_is_described_as_its_schema_says(table: str) -> None:
    writer = None if SCHEMAS[table].view else said(table, "written by")
    expected = section(SCHEMAS[table], writer, said(table, "read by"))
    assert SECTIONS[table] == expected, f"docs/tables.md, {table}: make it\n{expected}"


@pytest.mark.parametrize("table", SCHEMAS)
@pytest.mark.parametrize("row", ["written by", "read by"])
def test_writer_and_reader_name_the_table(table: str, row: str) -> None:
    if SCHEMAS[table].view and row == "written by":
        return
    kinds = (".py", ".sql", ".yml", ".md")
    files = [name for name in re.findall(r"`([^`]+)`", said(table, row)) if name.endswith(kinds)]
    assert files
    # Cost tables are found by their provider: f"{provider}_cost_daily".
    needles = [table, *(["_cost_daily"] if table.endswith("_cost_daily") else [])]
    for name in files:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert any(needle in text for needle in needles), f"{name} does not name {table}"
        if row == "written by" and SCHEMAS[table].scope == "central":
            assert "append(" in text, f"{name} appends nothing"


def test_origins_are_counted() -> None:
    original = sum(schema.origin == "original" for schema in SCHEMAS.values())
    assert f"{len(SCHEMAS)} tables, {original} of them from the original service" in PAGES["docs/tables.md"]


def first_column(page: str, heading: str) -> list[str]:
    """Names in backticks of the first column of the table below a heading."""
    below = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGES[page], re.MULTILINE | re.DOTALL)
    assert below is not None, f"{page} has no section {heading!r}"
    return [
        name
        for cell in re.findall(r"^\| ([^|]+) \|", below[1], re.MULTILINE)
        for name in re.findall(r"`(\w+)`", cell)
    ]


def test_each_kill_point_and_state_of_publishing_is_explained() -> None:
    assert first_column("docs/publishing.md", "What a kill leads to") == list(publish.SYNC_POINTS)
    assert first_column("docs/publishing.md", "States in the ledger") == [state.value for state in State]


def price_examples() -> list[dict[str, Any]]:
    return [
        yaml.safe_load(text)
        for text in re.findall(r"^```yaml\n(.*?)^```", PAGES["docs/prices.md"], re.MULTILINE | re.DOTALL)
    ]


def test_the_example_of_a_price_is_one() -> None:
    (example,) = [found for found in price_examples() if "cards" in found]
    assert PriceFile.model_validate({"provider": "openai", **example}).cards[0].card("openai").rates


def test_the_worked_example_of_an_override_is_right(tmp_path: Path) -> None:
    (example,) = [found for found in price_examples() if "overrides" in found]
    OverrideFile.model_validate(example)
    (tmp_path / "configs" / "acme").mkdir(parents=True)
    (tmp_path / "configs" / "acme" / "prices.yml").write_text(yaml.safe_dump(example))
    listed = cards(ROOT)
    own = overrides(tmp_path, "acme", listed)
    (gpt,) = [card for card in own if card.model == "gpt-4o"]
    assert {card.model: dict(card.rates) for card in own}["code_interpreter"] == {
        "code_session": Decimal("0.03")
    }
    (base,) = [
        card
        for card in listed
        if (card.model, card.tier) == ("gpt-4o", "standard")
        and gpt.valid_from
        and card.valid_on(gpt.valid_from)
    ]
    rows = re.findall(
        r"^\| ([a-z ]+) \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$",
        PAGES["docs/prices.md"],
        re.MULTILINE,
    )
    assert len(rows) == 3
    for meter, tokens, *shown in rows:
        name, count = meter.replace(" ", "_"), int(tokens.replace(",", ""))
        rates = base.rates[name], gpt.rates[name]
        assert [Decimal(text) for text in shown] == [rates[0], rates[0] * count, rates[1], rates[1] * count]
    for place, total in ((3, "**5.00**"), (5, "**4.10**")):
        assert sum(Decimal(row[place]) for row in rows) == Decimal(total.strip("*"))
        assert total in PAGES["docs/prices.md"]

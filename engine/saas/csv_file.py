"""Plans from a CSV file: every mistake with its line, and nothing taken if there is one."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from engine.located import Document, Problem
from engine.saas.plans import SaasPlan

COLUMNS = tuple(SaasPlan.model_fields)
REQUIRED = tuple(name for name, field in SaasPlan.model_fields.items() if field.is_required())
#: `effective_from` may be left out: it is the start then.
NEEDED = tuple(name for name in REQUIRED if name != "effective_from")
DAYS = ("start_date", "effective_from", "end_date", "trial_end_date")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class PlansRead:
    """What a file holds; with `problems` it is not to be used. `lines` are the plans' lines, from 1."""

    plans: tuple[SaasPlan, ...]
    lines: tuple[int, ...]
    problems: tuple[Problem, ...]


def read_plans(text: str, *, name: str) -> PlansRead:
    """Read CSV (RFC 4180, header line, comma); `name` stands for the file in problems."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    plans: list[SaasPlan] = []
    lines: list[int] = []
    problems: list[Problem] = []
    try:
        header = [cell.strip() for cell in next(reader, [])]
        problems += _header(header, name)
        if problems:
            return PlansRead((), (), tuple(problems))
        for line, cells in _records(reader):
            made, wrong = _plan(header, cells, Document(name, {}, {(): line}))
            problems += wrong
            if made is not None:
                plans.append(made)
                lines.append(line)
    except csv.Error as error:
        fix = "quote cells that hold commas, quotes or line breaks"
        problems.append(Problem(name, reader.line_num, "", f"no CSV: {error}", fix))
    problems += _twice(plans, lines, name)
    return PlansRead(tuple(plans), tuple(lines), tuple(sorted(problems)))


def _header(header: list[str], name: str) -> Iterator[Problem]:
    if not any(header):
        yield Problem(name, 1, "", "holds no header line", f"begin with the columns {', '.join(NEEDED)}")
        return
    for column in header:
        if column not in COLUMNS:
            near = difflib.get_close_matches(column, COLUMNS, n=1)
            fix = f"did you mean {near[0]}?" if near else "remove it, or see docs/saas.md for the columns"
            yield Problem(name, 1, column, "unknown column", fix)
    for column in sorted({column for column in header if header.count(column) > 1}):
        yield Problem(name, 1, column, "the column appears twice", "keep one of them")
    for column in NEEDED:
        if column not in header:
            yield Problem(name, 1, column, "the column is missing", "add it")


def _records(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Records with the line they begin on; empty lines are none."""
    line = reader.line_num + 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield line, cells
        line = reader.line_num + 1


def _plan(header: list[str], cells: list[str], document: Document) -> tuple[SaasPlan | None, list[Problem]]:
    if len(cells) != len(header):
        said = f"has {len(cells)} cells, the header {len(header)}"
        return None, [document.problem((), said, "quote cells that hold commas")]
    given = {name: text.strip() for name, text in zip(header, cells, strict=True) if text.strip()}
    if bad := [name for name in DAYS if name in given and not _DAY.fullmatch(given[name])]:
        fix = "write it as YYYY-MM-DD, such as 2026-01-31"
        return None, [document.problem((name,), f"{given[name]} is no day", fix) for name in bad]
    try:
        return SaasPlan.model_validate(_in_our_spelling(given)), []
    except ValidationError as error:
        return None, document.problems(error)


def _in_our_spelling(given: dict[str, str]) -> dict[str, str]:
    """Codes as the model writes them, whichever case and dashes a file has."""
    found = dict(given)
    for name in ("billing_cycle", "discount_type"):
        if name in found:
            found[name] = found[name].lower().replace("-", "_").replace(" ", "_")
    for name in ("pricing_model", "status", "currency"):
        if name in found:
            found[name] = found[name].upper().replace("-", "_").replace(" ", "_")
    return found


def _twice(plans: list[SaasPlan], lines: list[int], name: str) -> Iterator[Problem]:
    first: dict[tuple[str, object], int] = {}
    for plan, line in zip(plans, lines, strict=True):
        key = plan.subscription_id, plan.effective_from
        if key in first:
            said = f"{plan.subscription_id} from {plan.effective_from} stands on line {first[key]} already"
            yield Problem(name, line, "effective_from", said, "keep one, or change its effective_from")
        first.setdefault(key, line)

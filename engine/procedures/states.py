"""A procedure as the warehouse has it beside the one of the files: its state, and the difference."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from engine.errors import NotFoundError
from engine.procedures.files import Argument, Definition, ProcedureFile

#: current: as the file says. changed: the file is newer. drifted: somebody changed it in the warehouse.
#: missing: not there yet. orphaned: Manta wrote it, and its file is gone.
State = Literal["current", "changed", "drifted", "missing", "orphaned"]
MARK = re.compile(
    r"Written by Manta from (?P<file>\S+):(?P<line>\d+)\b.*sha256:(?P<hash>[0-9a-f]{64})", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A procedure as it stands in the warehouse.

    `written` is the content hash that Manta left in the description, None where it left none.
    """

    name: str
    definition: Definition
    written: str | None
    file: str | None
    body_line: int | None
    modified_at: datetime | None
    routine: Any


@dataclass(frozen=True, slots=True)
class Compared:
    """One procedure, file and warehouse side by side; `diff` is unified, from the warehouse to the file."""

    name: str
    domain: str | None
    file: str | None
    state: State
    arguments: tuple[Argument, ...]
    content_hash: str
    modified_at: datetime | None
    diff: str


def stored_of(routine: Any) -> Stored:
    """Read a client's routine, without a call."""
    mark = MARK.search(routine.description or "")
    arguments = tuple(
        Argument(str(one.name), _type_name(one._properties.get("dataType") or {}))
        for one in routine.arguments
    )
    return Stored(
        name=routine.routine_id,
        definition=Definition(arguments, routine.body or ""),
        written=mark["hash"] if mark else None,
        file=mark["file"] if mark else None,
        body_line=int(mark["line"]) if mark else None,
        modified_at=routine.modified,
        routine=routine,
    )


def compared(file: ProcedureFile | None, found: Stored | None) -> Compared:
    """One procedure of either or both sides. Raises NotFoundError when it is on none."""
    there = found.definition if found else None
    wanted = file.definition if file else None
    shown = wanted or there
    if shown is None:
        raise NotFoundError("There is neither a file nor a procedure.")
    return Compared(
        name=file.name if file else found.name if found else "",
        domain=file.domain if file else None,
        file=file.file if file else found.file if found else None,
        state=_state(file, found),
        arguments=shown.arguments,
        content_hash=shown.content_hash,
        modified_at=found.modified_at if found else None,
        diff=_diff(there, wanted) if wanted else "",
    )


def _state(file: ProcedureFile | None, found: Stored | None) -> State:
    if found is None:
        return "missing"
    if found.written is not None and found.written != found.definition.content_hash:
        return "drifted"
    if file is None:
        return "orphaned"
    if found.definition.content_hash == file.definition.content_hash:
        # The same text under another's description would not be ours to delete.
        return "current" if found.written is not None else "drifted"
    return "changed" if found.written is not None else "drifted"


def _diff(there: Definition | None, wanted: Definition) -> str:
    before = there.text.splitlines(keepends=True) if there else []
    return "".join(
        difflib.unified_diff(before, wanted.text.splitlines(keepends=True), "warehouse", "file", n=3)
    )


def data_type(name: str) -> dict[str, Any]:
    """A type's name as the routines API has it."""
    element = name.removeprefix("ARRAY<").removesuffix(">")
    if element != name:
        return {"typeKind": "ARRAY", "arrayElementType": {"typeKind": element}}
    return {"typeKind": name}


def _type_name(kind: dict[str, Any]) -> str:
    if kind.get("typeKind") == "ARRAY":
        return f"ARRAY<{_type_name(kind.get('arrayElementType') or {})}>"
    return str(kind.get("typeKind", "ANY TYPE"))

"""Stored procedures in the central dataset: what stands there, how the files differ, and syncing them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from google.cloud import bigquery

from engine.errors import ConfigurationError, NotFoundError, StateError
from engine.foreign import Conflict
from engine.located import Problem
from engine.procedures.files import FilesRead, ProcedureFile
from engine.procedures.states import Compared, State, Stored, compared, data_type, stored_of
from engine.warehouse import CALL_TIMEOUT_S, NO_RETRY, Dataset

#: Problems that a message names.
SHOWN = 5
_PLACE = re.compile(r"\[(?:[^\[\]]*:)?(\d+):(\d+)\]")
_REQUEST = re.compile(r"^.*?\b(?:GET|POST|PUT|PATCH|DELETE) https?://\S+: ", re.DOTALL)
_FOOTER = re.compile(r"\s*\n\s*(Location: |Job ID: ).*$", re.DOTALL)


class SqlFilesError(ConfigurationError):
    """Procedure or migration files that are wrong; `problems` has all, the message some."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first, more = problems[0], len(problems) - SHOWN
        super().__init__(
            "; ".join(f"{one.file}:{one.line}: {one.problem}" for one in problems[:SHOWN])
            + (f" (and {more} more)." if more > 0 else "."),
            fix=f"{first.fix[:1].upper()}{first.fix[1:]}; nothing was changed.",
            field=first.file,
        )
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Synced:
    """What a sync did, or in a dry run would do, to one procedure; `before` is its state until then."""

    name: str
    file: str
    action: Literal["created", "updated", "repaired", "unchanged"]
    before: State
    diff: str


_ACTIONS: dict[State, Literal["created", "updated", "repaired", "unchanged"]] = {
    "missing": "created",
    "changed": "updated",
    "drifted": "repaired",
    "current": "unchanged",
}


class Procedures:
    """The procedures of one installation; `read` gives the files as they are now."""

    def __init__(self, dataset: Dataset, *, read: Callable[[], FilesRead]) -> None:
        self._dataset = dataset
        self._read = read

    def reference(self, name: str) -> str:
        """The procedure's full name, without backticks."""
        return f"{self._dataset.project}.{self._dataset.dataset}.{name}"

    def stored(self, name: str) -> Stored:
        """The procedure as it stands in the warehouse. Raises NotFoundError."""
        try:
            routine = self._dataset.insist(
                f"Reading procedure {name}",
                lambda: self._dataset.clients.bigquery.get_routine(
                    self.reference(name), retry=NO_RETRY, timeout=CALL_TIMEOUT_S
                ),
            )
        except NotFoundError:
            routine = None
        if routine is None or routine.type_ != "PROCEDURE":
            raise NotFoundError(
                f"There is no procedure {name} in {self._dataset.dataset}.",
                fix="Put its file under procedures/ and run `manta procedures sync`.",
                field="procedure",
            )
        return stored_of(routine)

    def file_of(self, name: str) -> str | None:
        """The file that holds a procedure, broken files aside."""
        file = self._read().procedures.get(name)
        return file.file if file else None

    def compare(self) -> tuple[Compared, ...]:
        """Every procedure of the files, and those that Manta wrote before, by name.

        Raises SqlFilesError. What others made in the dataset is not listed.
        """
        files, standing = self._files(), self._standing()
        ours = [one for one in standing.values() if one.name in files or one.written is not None]
        names = sorted({*files, *(one.name for one in ours)})
        return tuple(compared(files.get(name), standing.get(name)) for name in names)

    def show(self, name: str) -> Compared:
        """One procedure of `compare`. Raises NotFoundError, SqlFilesError."""
        file = self._files().get(name)
        try:
            return compared(file, self.stored(name))
        except NotFoundError:
            if file is None:
                raise
            return compared(file, None)

    def sync(
        self, *, names: Sequence[str] = (), domain: str | None = None, dry_run: bool = False
    ) -> tuple[Synced, ...]:
        """Make the warehouse as the files say; without `names` and `domain`, all of them.

        All files are checked, here and by BigQuery, before the first is written. Raises SqlFilesError,
        and NotFoundError for a name or domain that has no file.
        """
        chosen = _chosen(self._files(), names, domain)
        standing = self._standing()
        plan = [(file, compared(file, standing.get(file.name))) for file in chosen]
        pending = [(file, one) for file, one in plan if one.state != "current"]
        if problems := [found for file, _ in pending for found in self._refusals(file)]:
            raise SqlFilesError(problems)
        if not dry_run:
            for file, one in pending:
                self._write(file, standing.get(one.name))
        return tuple(
            Synced(one.name, file.file, _ACTIONS[one.state], one.state, one.diff) for file, one in plan
        )

    def delete(self, name: str) -> bool:
        """Drop a procedure that Manta wrote; False when there is none.

        Raises StateError for one that others made. One whose file stays comes back with the next sync.
        """
        try:
            found = self.stored(name)
        except NotFoundError:
            return False
        if found.written is None:
            raise StateError(
                f"Procedure {name} was not written by Manta.",
                fix="Drop it in BigQuery, if that is what you want.",
                field="procedure",
            )
        with suppress(NotFoundError):
            self._dataset.insist(
                f"Dropping procedure {name}",
                lambda: self._dataset.clients.bigquery.delete_routine(
                    self.reference(name), retry=NO_RETRY, timeout=CALL_TIMEOUT_S
                ),
            )
        return True

    def _files(self) -> dict[str, ProcedureFile]:
        read = self._read()
        if read.problems:
            raise SqlFilesError(read.problems)
        return read.procedures

    def _standing(self) -> dict[str, Stored]:
        client = self._dataset.clients.bigquery
        listed = self._dataset.insist(
            "Listing procedures",
            lambda: list(
                client.list_routines(
                    f"{self._dataset.project}.{self._dataset.dataset}",
                    retry=NO_RETRY,
                    timeout=CALL_TIMEOUT_S,
                )
            ),
        )
        found: dict[str, Stored] = {}
        for routine in listed:
            # BigQuery's list gives names and types only.
            if routine.type_ == "PROCEDURE":
                with suppress(NotFoundError):
                    found[routine.routine_id] = self.stored(routine.routine_id)
        return found

    def _refusals(self, file: ProcedureFile) -> list[Problem]:
        """What BigQuery has against the file's statement, found by a dry run of it."""
        statement = file.statement(self.reference(file.name))
        config = bigquery.QueryJobConfig(dry_run=True, use_query_cache=False, labels=self._dataset.labels)
        try:
            self._dataset.insist(
                f"Checking procedure {file.name}",
                lambda: self._dataset.clients.bigquery.query(
                    statement,
                    job_config=config,
                    location=self._dataset.location,
                    retry=NO_RETRY,
                    job_retry=NO_RETRY,
                    timeout=CALL_TIMEOUT_S,
                ),
            )
        except ConfigurationError as error:
            said = what_bigquery_said(error.message)
            return [Problem(file.file, line_of(said) or file.body_line, "", said, "correct the statement")]
        return []

    def _write(self, file: ProcedureFile, found: Stored | None) -> None:
        client, wanted = self._dataset.clients.bigquery, self._routine(file)
        try:
            if found is None:
                self._dataset.insist(
                    f"Creating procedure {file.name}",
                    lambda: client.create_routine(wanted, retry=NO_RETRY, timeout=CALL_TIMEOUT_S),
                )
            else:
                # With the etag: what somebody changes between the look and the write is not written over.
                wanted._properties["etag"] = found.routine.etag
                fields = ["type_", "language", "arguments", "body", "description"]
                self._dataset.insist(
                    f"Replacing procedure {file.name}",
                    lambda: client.update_routine(wanted, fields, retry=NO_RETRY, timeout=CALL_TIMEOUT_S),
                )
        except Conflict:
            # Another sync of the same files is as good.
            if self.stored(file.name).definition.content_hash != file.definition.content_hash:
                raise

    def _routine(self, file: ProcedureFile) -> Any:
        return bigquery.Routine.from_api_repr(
            {
                "routineReference": {
                    "projectId": self._dataset.project,
                    "datasetId": self._dataset.dataset,
                    "routineId": file.name,
                },
                "routineType": "PROCEDURE",
                "language": "SQL",
                "arguments": [
                    {"name": one.name, "dataType": data_type(one.type)} for one in file.definition.arguments
                ],
                "definitionBody": file.definition.body,
                "description": (
                    f"Written by Manta from {file.file}:{file.body_line}; change the file and sync. "
                    f"sha256:{file.definition.content_hash}"
                ),
            }
        )


def what_bigquery_said(message: str) -> str:
    """BigQuery's own words out of an error's message: without the request and the job's id."""
    return _FOOTER.sub("", _REQUEST.sub("", message)).strip().rstrip(".")


def line_of(message: str) -> int | None:
    """The line that a BigQuery message names: "... at [3:5]"."""
    found = _PLACE.search(message)
    return int(found[1]) if found else None


def _chosen(files: dict[str, ProcedureFile], names: Sequence[str], domain: str | None) -> list[ProcedureFile]:
    domains = sorted({file.domain for file in files.values()})
    if domain is not None and domain not in domains:
        raise NotFoundError(
            f"There is no folder procedures/{domain}.",
            fix=f"There are {', '.join(domains) or 'none'}.",
            field="domain",
        )
    for name in names:
        if name not in files:
            near = difflib.get_close_matches(name, files, n=1) or sorted(files)
            raise NotFoundError(
                f"No file under procedures/ holds {name}.",
                fix=f"Did you mean {near[0]}?" if near else "There is no procedure file.",
                field="names",
            )
    return [
        file
        for name, file in sorted(files.items())
        if (not names or name in names) and (domain is None or file.domain == domain)
    ]

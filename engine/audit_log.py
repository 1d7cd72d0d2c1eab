"""The audit trail: reads and refusals are written in batches, changes stand in their own rows; one view."""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from engine.audit import Audit
from engine.central import Central
from engine.errors import InternalError, TransientError, UsageError

REQUESTS = "org_audit_requests"
#: A view: these requests, and the `audit` column of every table whose rows are changes on request.
TRAIL = "org_audit_logs"
BATCH = 500
#: What waits while the warehouse is away; about 10 MB.
MOST_WAITING = 20_000
#: Characters kept of a text that came from outside.
LONGEST_TEXT = 1_000
CLOSE_WITHIN_S = 10.0

Row = dict[str, object]


class AuditLog:
    """Writes entries behind the caller's back: a crash loses at most `flush_s` seconds of them.

    `append` writes rows to org_audit_requests and raises MantaError when it cannot; one call is under way at
    a time. Entries wait while it cannot, at most `most`; then the oldest go, and one entry says how many.
    """

    def __init__(
        self,
        append: Callable[[list[Row]], None],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        flush_s: float = 1.0,
        new_id: Callable[[], str] = lambda: uuid4().hex,
        most: int = MOST_WAITING,
    ) -> None:
        self._append = append
        self._now = now
        self._flush_s = flush_s
        self._new_id = new_id
        self._most = most
        self._waiting: deque[Row] = deque()
        self._dropped = 0
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._closed = False
        self._thread: threading.Thread | None = None

    def note(self, audit: Audit) -> None:
        """Take an entry; never waits for the warehouse and never raises on its account."""
        row = _row(audit, audit_id=self._new_id(), created_at=self._now())
        with self._changed:
            self._waiting.append(row)
            if len(self._waiting) > self._most:
                self._waiting.popleft()
                self._dropped += 1
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._keep_flushing, name="audit-log", daemon=True)
                self._thread.start()
            if len(self._waiting) >= BATCH:
                self._changed.notify_all()

    def flush(self) -> None:
        """Write what waits. Raises MantaError when the warehouse does not take it; it goes on waiting."""
        with self._writing:
            while batch := self._next_batch():
                try:
                    self._write(batch)
                except BaseException:
                    with self._changed:
                        self._waiting.extendleft(reversed(batch))
                    raise

    def close(self) -> None:
        """Write what waits and end the background thread. Raises MantaError like `flush`."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(CLOSE_WITHIN_S)
            if thread.is_alive():
                raise TransientError(
                    f"The audit log cannot be written: {len(self._waiting)} entries and more are lost.",
                    fix="See whether the warehouse is up.",
                )
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep_flushing(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._waiting) >= BATCH, self._flush_s)
                if self._closed:
                    return
            try:
                self.flush()
            except Exception:  # noqa: BLE001 - also after a fault of ours: a dead thread loses all that follows
                # The entries wait, and a full batch must not make this a busy loop.
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, self._flush_s)

    def _next_batch(self) -> list[Row]:
        with self._changed:
            if self._dropped:
                self._waiting.appendleft(self._drops(self._dropped))
                self._dropped = 0
            return [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]

    def _write(self, batch: list[Row]) -> None:
        try:
            self._append(batch)
        except InternalError:
            # A row that does not fit must not keep the others away for ever.
            if len(batch) > 1:
                middle = len(batch) // 2
                self._write(batch[:middle])
                self._write(batch[middle:])
                return
            with self._changed:
                self._dropped += batch[0]["action"] != "audit.dropped"

    def _drops(self, number: int) -> Row:
        said = Audit(
            org="-",
            action="audit.dropped",
            actor="manta",
            resource_type="audit",
            status="FAILED",
            detail=f"{number} entries could not be written and are lost.",
        )
        return _row(said, audit_id=self._new_id(), created_at=self._now())


def _row(audit: Audit, *, audit_id: str, created_at: datetime) -> Row:
    said = {name: _clean(value) for name, value in asdict(audit).items()}
    said["org_slug"] = said.pop("org")
    return {"audit_id": audit_id, **said, "created_at": created_at}


def _clean(text: str | None) -> str | None:
    """Text from outside as a column takes it: no lone surrogates, no null bytes, not endless."""
    if text is None:
        return None
    return text[:LONGEST_TEXT].encode("utf-8", "replace").decode().replace("\0", "?")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the trail. Fields that were not known are None."""

    audit_id: str
    org_slug: str
    action: str
    actor: str
    user_id: str | None
    resource_type: str
    resource_id: str | None
    status: str
    detail: str | None
    ip_address: str | None
    user_agent: str | None
    request_id: str | None
    created_at: datetime

    @property
    def cursor(self) -> str:
        """Where the next page begins: behind this entry."""
        place = json.dumps([self.created_at.isoformat(), self.audit_id])
        return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def read(
    central: Central,
    org: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 100,
    after: str | None = None,
) -> list[Entry]:
    """The organisation's entries from `since` up to, without, `until`, newest first.

    `after` is the `cursor` of the last entry of the page before. Raises UsageError for one that is none.
    """
    where, given = ["org_slug = @org_slug"], dict[str, object](limit=limit)
    if since is not None:
        where.append("created_at >= @since")
        given["since"] = since
    if until is not None:
        where.append("created_at < @until")
        given["until"] = until
    if after is not None:
        given["at"], given["behind"] = _place(after)
        where.append("(created_at < @at OR (created_at = @at AND audit_id < @behind))")
    names = ", ".join(field.name for field in fields(Entry))
    sql = (
        f"SELECT {names} FROM {TRAIL} WHERE {' AND '.join(where)} "
        "ORDER BY created_at DESC, audit_id DESC LIMIT @limit"
    )
    rows = central.query(sql, given, org=org, purpose="audit-read").to_pylist()
    return [Entry(**row) for row in rows]


def _place(cursor: str) -> tuple[datetime, str]:
    try:
        found: Any = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        at, audit_id = found
        place = datetime.fromisoformat(at), str(audit_id)
        if place[0].tzinfo is None:
            raise ValueError("a time without a zone")
    except (ValueError, TypeError, binascii.Error) as error:
        raise UsageError(
            "That cursor is none of this list's.", fix="Begin without it.", field="after"
        ) from error
    return place

"""manta org and manta audit: what is asked before, what is said after, and what a removal waits for."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.audit import Audit
from engine.errors import StateError
from engine.export import Exported
from engine.life import Purged, Removal
from engine.tenants import Org
from serve.cli.main import app, run
from tests.unit.serve.doubles import NOW, Table, a_table

UNTIL = datetime(2026, 4, 14, 6, 30, tzinfo=UTC)
REMOVAL = Removal(
    "acme_corp",
    "ACTIVE",
    "acme_corp_local",
    UNTIL,
    keys=2,
    credentials=1,
    tables=("a", "b"),
    runs=("run-1",),
    pending=0,
)
PURGED = Purged("acme_corp", "acme_corp_local", due=True, dropped=True, pending=0)


@dataclass
class FakeLife:
    """Answers what it is given and remembers what it was asked."""

    removal: Removal = REMOVAL
    left: list[tuple[str, ...]] = field(default_factory=list)
    purged: list[Purged] = field(default_factory=list)
    done: list[tuple[str, Any]] = field(default_factory=list)
    audits: list[Audit] = field(default_factory=list)

    def suspend(self, org: str, audit: Audit) -> Org:
        return self._turn("suspend", org, audit)

    def resume(self, org: str, audit: Audit) -> Org:
        return self._turn("resume", org, audit)

    def plan_removal(self, org: str, *, grace_days: int) -> Removal:
        self.done.append(("plan", grace_days))
        return self.removal

    def remove(self, org: str, *, grace_days: int, audit: Audit, cancel: Callable[[str], object]) -> Removal:
        self.done.append(("remove", grace_days))
        self.audits.append(audit)
        for run_id in self.removal.runs:
            cancel(run_id)
        return replace(self.removal, status="REMOVED")

    def active_runs(self, org: str) -> tuple[str, ...]:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0] if self.left else ()

    def export(self, org: str, folder: Path) -> tuple[Exported, ...]:
        self.done.append(("export", folder))
        return (Exported("a", 1200, folder / "a.parquet"),)

    def purge(
        self, *, now: datetime, only: str | None, audit_of: Callable[[str], Audit], dry_run: bool
    ) -> list[Purged]:
        self.done.append(("purge", (now, only, dry_run)))
        self.audits.append(audit_of("acme_corp"))
        return self.purged

    def _turn(self, what: str, org: str, audit: Audit) -> Org:
        self.done.append((what, org))
        self.audits.append(audit)
        return Org(org, "Acme", "a@b.example", f"{org}_local", what.upper(), 2, NOW)


def a_desk(life: FakeLife, *, rows: list[dict[str, Any]] | None = None) -> Table:
    table = a_table(width=120)
    table.work.life = life
    asked: list[dict[str, Any]] = []

    def query(sql: str, parameters: Any, *, org: str, purpose: str) -> Any:
        asked.append({"org": org, **parameters})
        return SimpleNamespace(to_pylist=lambda: rows or [])

    table.work.central = SimpleNamespace(ensure=lambda: None, query=query, asked=asked)
    return table


class TestOrg:
    def test_suspended_and_resumed(self) -> None:
        life = FakeLife()
        table = a_desk(life)
        assert run(["org", "suspend", "acme_corp"], table.desk) == 0
        assert run(["org", "resume", "acme_corp"], table.desk) == 0
        assert life.done == [("suspend", "acme_corp"), ("resume", "acme_corp")]
        assert "suspended: new runs are refused within 15 seconds." in table.out
        assert [(one.action, one.actor, one.resource_type) for one in life.audits] == [
            ("org.suspend", "cli:tess", "organisation"),
            ("org.resume", "cli:tess", "organisation"),
        ]

    def test_a_dry_run_removes_nothing(self) -> None:
        life = FakeLife()
        table = a_desk(life)
        assert run(["org", "remove", "acme_corp", "--dry-run", "--grace-days", "7"], table.desk) == 0
        assert life.done == [("plan", 7)]
        assert table.runs.cancelled == []
        assert "API keys     2 would be revoked" in table.out

    def test_without_a_terminal_removing_needs_yes(self) -> None:
        life = FakeLife()
        table = a_desk(life)
        assert run(["org", "remove", "acme_corp"], table.desk) == 2
        assert life.done == [("plan", 30)]
        assert "--yes" in table.err

    def test_removing_cancels_runs_and_waits_for_them(self, tmp_path: Path) -> None:
        life = FakeLife(left=[("run-1",), ("run-1",), ()])
        table = a_desk(life)
        call = ["org", "remove", "acme_corp", "--yes", "--export", str(tmp_path)]
        assert run(call, table.desk) == 0
        assert table.runs.cancelled == [("acme_corp", "run-1")]
        assert life.done == [("plan", 30), ("remove", 30), ("export", tmp_path)]
        assert life.audits == [Audit("acme_corp", "org.remove", "cli:tess", "organisation")]
        assert "is removed" in table.out
        assert "(1,200 rows)" in table.out
        assert "kept until 2026-04-14 06:30 UTC" in table.out

    def test_a_run_that_does_not_end_is_said_and_nothing_exported(self, tmp_path: Path) -> None:
        life = FakeLife(left=[("run-1",)])
        table = a_desk(life)
        call = ["org", "remove", "acme_corp", "--yes", "--export", str(tmp_path)]
        assert run(call, table.desk) == 2
        assert [what for what, _ in life.done] == ["plan", "remove"]
        assert "run run-1 has not ended yet" in table.err
        assert "nothing was exported" in table.err

    def test_pending_keys_are_said(self) -> None:
        table = a_desk(FakeLife(removal=replace(REMOVAL, runs=(), pending=3)))
        assert run(["org", "remove", "acme_corp", "--yes"], table.desk) == 0
        assert "3 data keys PENDING: manta org purge overwrites them" in table.out

    def test_removal_as_json(self) -> None:
        table = a_desk(FakeLife(removal=replace(REMOVAL, runs=())))
        assert run(["org", "remove", "acme_corp", "--yes", "--json"], table.desk) == 0
        said = json.loads(table.out)
        assert said["removal"]["keys"] == 2
        assert said["removal"]["purge_after"] == UNTIL.isoformat()
        assert (said["dry_run"], said["exported"]) == (False, [])

    @pytest.mark.parametrize(
        ("purged", "code", "says"),
        [
            (PURGED, 0, "acme_corp: acme_corp_local dropped"),
            (replace(PURGED, dropped=False, waits_for="run r to end"), 1, "kept; waits for run r to end"),
            (replace(PURGED, due=False, dropped=False, waits_for="its time"), 0, "kept; waits for its time"),
            (replace(PURGED, pending=2, waits_for="data keys"), 1, "dropped, 2 data keys left; waits for"),
        ],
    )
    def test_purge_says_what_went_and_what_waits(self, purged: Purged, code: int, says: str) -> None:
        life = FakeLife(purged=[purged])
        table = a_desk(life)
        assert run(["org", "purge", "acme_corp"], table.desk) == code
        assert life.done == [("purge", (NOW, "acme_corp", False))]
        assert says in table.out
        assert life.audits[0].action == "org.purge"

    def test_purge_with_nothing_to_do(self) -> None:
        table = a_desk(FakeLife())
        assert run(["org", "purge", "--dry-run"], table.desk) == 0
        assert "No removed organisation is left" in table.out

    def test_a_refusal_is_an_error_line(self) -> None:
        class Refuses(FakeLife):
            def suspend(self, org: str, audit: Audit) -> Org:
                raise StateError(f"{org} was removed: its keys are gone.", fix="Add it again.")

        table = a_desk(Refuses())
        assert run(["org", "suspend", "acme_corp"], table.desk) == 2
        assert "manta: acme_corp was removed" in table.err


class TestAudit:
    ROW: dict[str, Any] = {
        "audit_id": "org_profiles/acme_corp/2",
        "org_slug": "acme_corp",
        "action": "org.suspend",
        "actor": "cli:tess",
        "user_id": None,
        "resource_type": "organisation",
        "resource_id": "acme_corp",
        "status": "OK",
        "detail": None,
        "ip_address": None,
        "user_agent": None,
        "request_id": "req-1",
        "created_at": NOW,
    }

    def test_it_is_shown_newest_first_within_days(self) -> None:
        table = a_desk(FakeLife(), rows=[self.ROW])
        call = ["audit", "acme_corp", "--since", "2026-03-01", "--until", "2026-03-15", "--limit", "5"]
        assert run(call, table.desk) == 0
        assert "2026-03-15 06:30:00  cli:tess  org.suspend" in table.out
        (asked,) = table.work.central.asked
        assert asked["org"] == "acme_corp"
        assert asked["limit"] == 5
        assert asked["since"] == datetime(2026, 3, 1, tzinfo=UTC)
        assert timedelta(0) < datetime(2026, 3, 16, tzinfo=UTC) - asked["until"] <= timedelta(microseconds=1)

    def test_json_holds_every_field(self) -> None:
        table = a_desk(FakeLife(), rows=[self.ROW])
        assert run(["audit", "acme_corp", "--json"], table.desk) == 0
        assert json.loads(table.out) == {**self.ROW, "created_at": NOW.isoformat()}

    def test_requests_of_nobody_known_have_a_dash(self) -> None:
        table = a_desk(FakeLife())
        assert run(["audit", "-"], table.desk) == 0
        assert "Nothing is on record." in table.out
        assert run(["audit", "nobody"], table.desk) == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "asked"), [("n\n", ["plan"]), ("y\n", ["plan", "remove"])])
def test_on_a_terminal_the_answer_decides(answer: str, asked: list[str]) -> None:
    life = FakeLife()
    table = a_desk(life)
    table.desk.stdin = Terminal()
    CliRunner().invoke(app, ["org", "remove", "acme_corp"], obj=table.desk, input=answer)
    assert [what for what, _ in life.done] == asked
    assert "would be removed" in table.out

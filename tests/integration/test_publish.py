"""Publishing on the embedded BigQuery, undisturbed: what is loaded, what is left alone, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from engine.artifacts import Artifacts
from engine.central import Central
from engine.checks import NotNegative
from engine.content_hash import content_hash
from engine.errors import AuditError, ConfigurationError, InternalError, NotFoundError, TransientError
from engine.jobs import JobState
from engine.ledger import Ledger
from engine.publish import SYNC_POINTS, publish
from engine.schemas import Schema
from engine.types import Publication
from engine.warehouse import Warehouse
from tests.integration.conftest import AssertLedgerTrue
from tests.integration.publish_child import SCHEMA, day, table, unit

Publish = Callable[..., tuple[Publication, ...]]
SECOND = Schema.model_validate({**SCHEMA.model_dump(), "table": "second_daily"})


class CountedLedger(Ledger):
    """A ledger that notes what it is asked."""

    def __init__(self, central: Central, calls: list[str]) -> None:
        super().__init__(central)
        self._calls = calls

    def head(self, *given: Any) -> Any:
        self._calls.append("head")
        return super().head(*given)

    def _append(self, *given: Any) -> None:
        self._calls.append("append")
        super()._append(*given)


class CountedWarehouse(Warehouse):
    """A warehouse that notes which jobs are submitted."""

    calls: list[str]

    def load(self, *given: Any, **named: Any) -> JobState:
        self.calls.append("load")
        return super().load(*given, **named)

    def submit(self, *given: Any, **named: Any) -> JobState:
        self.calls.append("swap")
        return super().submit(*given, **named)


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(str(tmp_path / "artifacts"))


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def doit(warehouse: Warehouse, central: Central, artifacts: Artifacts, org: str, calls: list[str]) -> Publish:
    counted = CountedWarehouse(
        warehouse.clients, org=org, dataset=warehouse.dataset, maximum_bytes_billed=10**10
    )
    counted.calls = calls

    def call(
        days: range | tuple[int, ...], rows: pa.Table | None = None, **changes: Any
    ) -> tuple[Publication, ...]:
        calls.clear()
        given: dict[str, Any] = {
            "tables": {SCHEMA.table: table(org, days, 1) if rows is None else rows},
            "schemas": {SCHEMA.table: SCHEMA, SECOND.table: SECOND},
            "checks": {},
            "run_id": "run-1",
            "attempt": 1,
            "provisional": frozenset(),
            "warehouse": counted,
            "ledger": CountedLedger(central, calls),
            "artifacts": artifacts,
            "now": lambda: datetime.now(UTC),
        } | changes
        return publish(unit(org, days), given.pop("tables"), **given)

    return call


def hows(found: tuple[Publication, ...]) -> list[tuple[str, int, int]]:
    return [(one.how, one.table_version, one.rows) for one in found]


def test_fourteen_days_are_one_swap(
    doit: Publish, calls: list[str], assert_ledger_true: AssertLedgerTrue
) -> None:
    points: list[str] = []

    found = doit(range(14), at=points.append)

    assert hows(found) == [("loaded", 1, 3)] * 14
    assert calls == ["head", "append", "load", "swap", "append"]
    assert points == list(SYNC_POINTS)
    assert len(assert_ledger_true(SCHEMA)) == 14


def test_one_day_is_one_load(doit: Publish, calls: list[str], assert_ledger_true: AssertLedgerTrue) -> None:
    points: list[str] = []

    doit((0,), at=points.append)

    assert calls == ["head", "append", "load", "append"]
    assert points == [point for point in SYNC_POINTS if point not in {"staged", "dropped"}]
    assert len(assert_ledger_true(SCHEMA)) == 1


def test_what_stands_is_not_loaded_again(
    doit: Publish, calls: list[str], org: str, assert_ledger_true: AssertLedgerTrue
) -> None:
    first = doit(range(3))
    again = doit(range(3), table(org, range(3), 1, run_id="run-2"), run_id="run-2")

    assert calls == ["head"]
    assert hows(again) == [("unchanged", 1, 3)] * 3
    assert [one.content_hash for one in again] == [one.content_hash for one in first]

    mixed = pa.concat_tables([table(org, [0, 2], 1), table(org, [1], 2), table(org, [3], 2)])
    found = doit(range(4), mixed, run_id="run-3")

    assert hows(found) == [("unchanged", 1, 3), ("loaded", 2, 3), ("unchanged", 1, 3), ("loaded", 2, 3)]
    assert len(assert_ledger_true(SCHEMA)) == 4


@pytest.mark.slow
def test_content_that_returns_is_loaded_again(
    doit: Publish, org: str, assert_ledger_true: AssertLedgerTrue
) -> None:
    """A, B, A: the first A's job is DONE and must not be taken for the third's."""
    for version, salt in ((1, 1), (2, 2), (3, 1)):
        assert hows(doit((0,), table(org, [0], salt))) == [("loaded", version, 3)]
        assert assert_ledger_true(SCHEMA) == {day(0).isoformat(): content_hash(table(org, [0], salt), SCHEMA)}


def test_days_without_rows_are_known_to_be_empty(
    doit: Publish, org: str, calls: list[str], warehouse: Warehouse, assert_ledger_true: AssertLedgerTrue
) -> None:
    doit(range(3))
    assert hows(doit((0,), table(org, [], 1))) == [("loaded", 2, 0)]
    assert hows(doit((1, 2, 3), table(org, [], 1))) == [("loaded", 3, 0)] * 3
    assert hows(doit(range(4), table(org, [], 1))) == [("unchanged", 2, 0), *[("unchanged", 3, 0)] * 3]

    assert calls == ["head"]
    assert len(assert_ledger_true(SCHEMA)) == 4
    assert warehouse.query("SELECT * FROM cost_daily", purpose="test").num_rows == 0


@pytest.mark.slow
def test_a_provisional_day_is_closed_once_and_stays_closed(
    doit: Publish, ledger: Ledger, warehouse: Warehouse, org: str
) -> None:
    def provisional() -> bool:
        view = ledger.view(org, warehouse.dataset, [SCHEMA.table], day(0), day(0))
        return next(iter(view.published.values())).provisional

    assert hows(doit((0,), provisional=frozenset({day(0)}))) == [("loaded", 1, 3)]
    assert provisional()
    assert hows(doit((0,), provisional=frozenset({day(0)}))) == [("unchanged", 1, 3)]
    assert hows(doit((0,))) == [("loaded", 2, 3)]
    assert not provisional()
    assert hows(doit((0,), provisional=frozenset({day(0)}))) == [("unchanged", 2, 3)]


def test_a_failing_check_of_any_table_publishes_none(
    doit: Publish, org: str, calls: list[str], ledger: Ledger, warehouse: Warehouse, artifacts: Artifacts
) -> None:
    both = {SCHEMA.table: table(org, [0], 1), SECOND.table: table(org, [0], -1)}
    checks = {SECOND.table: (NotNegative(kind="not_negative", columns=("tokens",)),)}

    with pytest.raises(AuditError, match="second_daily: check not_negative failed on tokens"):
        doit((0,), tables=both, checks=checks)

    assert calls == []
    assert not ledger.view(org, warehouse.dataset, list(both), day(0), day(0)).published
    assert not Path(artifacts.root).exists()


def test_tables_are_published_in_the_order_given(doit: Publish, org: str) -> None:
    both = {SECOND.table: table(org, [0], 1), SCHEMA.table: table(org, [0], 1)}

    found = doit((0,), tables=both)

    assert [one.partition.table for one in found] == [SECOND.table, SCHEMA.table]
    assert {one.table_version for one in found} == {1}


def test_the_ledger_names_an_artifact_with_the_content(
    doit: Publish, org: str, ledger: Ledger, warehouse: Warehouse, artifacts: Artifacts
) -> None:
    doit(range(2))

    for which, one in ledger.view(org, warehouse.dataset, [SCHEMA.table], day(0), day(1)).published.items():
        assert one.artifact_uri.endswith(f"{which.day}/{one.content_hash.replace(':', '-')}.parquet")
        assert content_hash(artifacts.read(one.artifact_uri), SCHEMA) == one.content_hash
        assert [file.name for file in Path(one.artifact_uri).parent.iterdir()] == [
            Path(one.artifact_uri).name
        ]


def test_a_job_that_bigquery_refuses_is_recorded_and_burns_its_id(
    doit: Publish, org: str, warehouse: Warehouse, ledger: Ledger, assert_ledger_true: AssertLedgerTrue
) -> None:
    """Somebody drops the table: the load fails, the ledger says so, the next attempt has an id of its own."""
    doit((0,))
    warehouse.drop(SCHEMA.table)

    with pytest.raises(ConfigurationError):
        doit((0,), table(org, [0], 2))
    view = ledger.view(org, warehouse.dataset, [SCHEMA.table], day(0), day(0))
    assert {which.day for which in view.failed} == {day(0)}

    warehouse.ensure_table(SCHEMA)
    [found] = doit((0,))  # the content of the last commit: after a failure its hash proves nothing
    assert (found.how, found.table_version) == ("loaded", 2)
    assert str(found.job_id).endswith("-v2-a2")
    assert len(assert_ledger_true(SCHEMA)) == 1


def test_run_ids_that_are_no_label_are_refused(doit: Publish) -> None:
    with pytest.raises(InternalError, match="manta-run"):
        doit((0,), run_id="Run 1")


def test_a_table_without_schema_is_refused(doit: Publish) -> None:
    with pytest.raises(InternalError, match="cost_daily"):
        doit((0,), schemas={})


def test_artifacts_refuse_what_they_cannot_keep(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="s3://bucket"):
        Artifacts("s3://bucket/x")
    kept = Artifacts(str(tmp_path / "kept"))
    with pytest.raises(NotFoundError):
        kept.read(kept.uri("d", "t", date(2025, 12, 1), "v1:0"))
    (tmp_path / "file").write_bytes(b"")
    blocked = Artifacts(str(tmp_path / "file"))
    with pytest.raises(TransientError, match="cannot be written"):
        blocked.store(blocked.uri("d", "t", date(2025, 12, 1), "v1:0"), b"x")


def test_a_disk_without_space_is_named_with_the_fix(tmp_path: Path) -> None:
    kept = Artifacts(str(tmp_path), token=lambda: "t")
    uri = kept.uri("d", "t", date(2025, 12, 1), "v1:0")
    place = Path(uri)
    place.parent.mkdir(parents=True)
    # The kernel itself answers ENOSPC: what is written beside the artifact's place goes to a full device.
    place.with_name(f".{place.name}.t").symlink_to("/dev/full")

    with pytest.raises(TransientError, match="No space left on device") as told:
        kept.store(uri, b"x" * 5000)

    assert str(tmp_path) in told.value.fix
    assert list(place.parent.iterdir()) == []


def test_a_full_disk_says_where_and_leaves_no_litter(tmp_path: Path) -> None:
    # /dev/full cannot stand in for a folder: the process's own file size limit makes the write fail.
    import resource
    import signal

    kept = Artifacts(str(tmp_path))
    uri = kept.uri("d", "t", date(2025, 12, 1), "v1:0")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(TransientError, match="2025-12-01"):
            kept.store(uri, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list(Path(uri).parent.iterdir()) == []

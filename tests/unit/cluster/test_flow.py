"""What a run does, event by event: each test reads as events -> actions."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from cluster.flow import (
    AskSlots,
    Begin,
    CancelRequested,
    CancelUnit,
    EndRun,
    Finished,
    FlowState,
    Granted,
    Note,
    ReleaseSlots,
    RetryDue,
    RetryLater,
    RunState,
    StartUnit,
    UnitState,
    begin,
    step,
)
from engine.errors import (
    AuditError,
    ConfigurationError,
    CredentialError,
    InternalError,
    MantaError,
    TransientError,
)
from engine.types import Outcome, Unit

A, B, C = (Unit("acme", "openai/cost/usage_cost", (date(2025, 12, day),)) for day in (1, 2, 3))
KEY_A, KEY_B, KEY_C = str(A), str(B), str(C)
AWAY = TransientError("The provider is away.")


def published(unit: Unit, attempt: int = 1) -> Outcome:
    return Outcome(unit, attempt, "published")


def failed(unit: Unit, error: MantaError = AWAY, attempt: int = 1) -> Outcome:
    return Outcome(unit, attempt, "failed", error=error)


def started(*units: Unit, window: int = 8, max_attempts: int = 3, grant: bool = True) -> FlowState:
    """A run whose units have all been asked for, and granted unless said otherwise."""
    state = begin(units, window=window, max_attempts=max_attempts)
    step(state, Begin())
    if grant:
        step(state, Granted(tuple(state.live)))
    return state


def ended(actions: list) -> RunState | None:
    """The state of the EndRun, which must come last."""
    ends = [n for n, action in enumerate(actions) if isinstance(action, EndRun)]
    assert ends in ([], [len(actions) - 1])
    return actions[-1].state if ends else None


def test_begin_asks_for_the_window_and_no_more():
    state = begin([A, B, C], window=2, max_attempts=3)
    assert step(state, Begin()) == [AskSlots(((KEY_A, A), (KEY_B, B)))]
    assert state.run is RunState.RUNNING


def test_a_run_without_units_succeeds_at_once():
    assert step(begin([], window=2, max_attempts=3), Begin()) == [EndRun(RunState.SUCCESS)]


def test_a_grant_starts_the_first_attempt():
    state = started(A, grant=False)
    assert step(state, Granted((KEY_A,))) == [
        Note(A, 1, UnitState.ASKED, UnitState.RUNNING),
        StartUnit(KEY_A, A, 1),
    ]


def test_a_published_unit_gives_its_slot_back_and_makes_room():
    state = started(A, B, window=1)
    assert step(state, Finished(KEY_A, published(A))) == [
        ReleaseSlots((KEY_A,)),
        Note(A, 1, UnitState.RUNNING, UnitState.PUBLISHED),
        AskSlots(((KEY_B, B),)),
    ]


def test_the_last_unit_ends_the_run():
    state = started(A)
    assert ended(step(state, Finished(KEY_A, published(A)))) is RunState.SUCCESS


@pytest.mark.parametrize(
    ("error", "after"),
    [
        (ConfigurationError("wrong"), UnitState.FAILED),
        (CredentialError("revoked"), UnitState.FAILED),
        (AuditError("sums differ"), UnitState.FAILED),
        (TransientError("away"), UnitState.WAITING),
        (InternalError("a bug"), UnitState.WAITING),
        (MantaError("of no kind"), UnitState.WAITING),
    ],
)
def test_the_kind_of_error_decides_about_another_attempt(error: MantaError, after: UnitState):
    state = started(A)
    actions = step(state, Finished(KEY_A, failed(A, error)))
    assert Note(A, 1, UnitState.RUNNING, after, error) in actions
    assert any(isinstance(action, RetryLater) for action in actions) == (after is UnitState.WAITING)
    assert ended(actions) is (None if after is UnitState.WAITING else RunState.FAILED)


def test_attempts_are_capped_then_the_unit_is_quarantined():
    state = started(A, max_attempts=2)
    step(state, Finished(KEY_A, failed(A)))
    assert step(state, RetryDue(KEY_A)) == [AskSlots(((KEY_A, A),))]
    assert StartUnit(KEY_A, A, 2) in step(state, Granted((KEY_A,)))
    assert step(state, Finished(KEY_A, failed(A, attempt=2))) == [
        ReleaseSlots((KEY_A,)),
        Note(A, 2, UnitState.RUNNING, UnitState.QUARANTINED, AWAY),
        EndRun(RunState.FAILED),
    ]


@pytest.mark.parametrize(
    ("attempt", "jitter", "retry_after_s", "wait_s"),
    [
        (1, 1.0, None, 2),
        (2, 1.0, None, 4),
        (3, 1.0, None, 8),
        (3, 0.5, None, 4),
        (1, 0.0, None, 0),
        (9, 1.0, None, 120),
        (1, 1.0, 300, 300),
        (3, 1.0, 5, 8),
    ],
)
def test_waits_double_up_to_a_ceiling_and_honour_retry_after(attempt, jitter, retry_after_s, wait_s):
    state = started(A, max_attempts=20)
    for n in range(1, attempt):
        step(state, Finished(KEY_A, failed(A, attempt=n)))
        step(state, RetryDue(KEY_A))
        step(state, Granted((KEY_A,)))
    wanted = timedelta(seconds=retry_after_s) if retry_after_s else None
    outcome = failed(A, TransientError("busy", retry_after=wanted), attempt=attempt)
    actions = step(state, Finished(KEY_A, outcome), jitter=jitter)
    assert RetryLater(KEY_A, timedelta(seconds=wait_s)) in actions


def test_a_waiting_unit_takes_no_place_in_the_window():
    state = started(A, B, window=1)
    assert AskSlots(((KEY_B, B),)) in step(state, Finished(KEY_A, failed(A)))


def test_a_unit_whose_wait_is_over_comes_before_new_ones_but_not_above_the_window():
    state = started(A, B, C, window=1)
    step(state, Finished(KEY_A, failed(A)))
    assert step(state, RetryDue(KEY_A)) == []
    assert step(state, RetryDue(KEY_A)) == []
    step(state, Granted((KEY_B,)))
    assert step(state, Finished(KEY_B, published(B)))[-1] == AskSlots(((KEY_A, A),))


def test_a_poison_unit_never_stops_the_others():
    state = started(A, B, C, window=1, max_attempts=1)
    for unit, outcome in ((A, failed(A)), (B, published(B)), (C, published(C))):
        step(state, Granted((str(unit),)))
        actions = step(state, Finished(str(unit), outcome))
    assert ended(actions) is RunState.PARTIAL
    assert state.counts == {UnitState.QUARANTINED: 1, UnitState.PUBLISHED: 2}


def test_grants_that_nobody_waits_for_are_given_back():
    state = started(A, B)
    step(state, Finished(KEY_A, failed(A)))
    assert step(state, Granted(("nobody", KEY_A))) == [ReleaseSlots(("nobody", KEY_A))]


def test_a_second_grant_of_a_running_unit_takes_nothing_from_it():
    assert step(started(A), Granted((KEY_A, KEY_A))) == []


def test_outcomes_that_do_not_fit_are_ignored():
    state = started(A, B)
    assert step(state, Finished("nobody", published(C))) == []
    assert step(state, Finished(KEY_A, published(A, attempt=2))) == []
    step(state, Finished(KEY_A, published(A)))
    assert step(state, Finished(KEY_A, published(A))) == []
    assert state.counts == {UnitState.PUBLISHED: 1}


def test_a_second_begin_changes_nothing():
    state = started(A)
    assert step(state, Begin()) == []
    step(state, CancelRequested())
    step(state, Begin())
    assert state.run is RunState.CANCELLING


def test_cancel_stops_what_runs_and_forgets_the_rest():
    state = started(A, B, C, window=2, grant=False)
    step(state, Granted((KEY_A,)))
    assert step(state, CancelRequested()) == [
        CancelUnit(KEY_A, A),
        Note(B, 0, UnitState.ASKED, UnitState.CANCELLED),
        ReleaseSlots((KEY_B,)),
    ]
    assert step(state, CancelRequested()) == []
    assert ended(step(state, Finished(KEY_A, Outcome(A, 1, "cancelled")))) is RunState.CANCELLED
    assert state.counts == {UnitState.CANCELLED: 3}


def test_cancel_before_the_start_ends_the_run():
    state = begin([A, B], window=2, max_attempts=3)
    assert step(state, CancelRequested()) == [EndRun(RunState.CANCELLED)]
    assert step(state, Begin()) == []
    assert state.counts == {UnitState.CANCELLED: 2}


def test_cancel_ends_a_unit_that_waits_and_its_alarm_is_ignored():
    state = started(A)
    step(state, Finished(KEY_A, failed(A)))
    assert step(state, CancelRequested()) == [
        Note(A, 1, UnitState.WAITING, UnitState.CANCELLED),
        EndRun(RunState.CANCELLED),
    ]
    assert step(state, RetryDue(KEY_A)) == []


def test_a_grant_that_crosses_a_cancel_is_given_back():
    state = started(A, B, grant=False)
    step(state, Granted((KEY_A,)))
    step(state, CancelRequested())
    assert step(state, Granted((KEY_B,))) == [ReleaseSlots((KEY_B,))]


def test_a_unit_that_wins_against_the_cancel_counts_as_published():
    state = started(A, B)
    step(state, CancelRequested())
    step(state, Finished(KEY_A, published(A)))
    assert ended(step(state, Finished(KEY_B, failed(B)))) is RunState.CANCELLED
    assert state.counts == {UnitState.PUBLISHED: 1, UnitState.CANCELLED: 1}


def test_a_run_whose_units_all_won_against_the_cancel_is_a_success():
    state = started(A)
    step(state, CancelRequested())
    assert ended(step(state, Finished(KEY_A, published(A)))) is RunState.SUCCESS


@pytest.mark.parametrize(("others", "state_of_run"), [([], RunState.FAILED), ([B], RunState.PARTIAL)])
def test_a_unit_that_someone_else_cancelled_is_no_success(others: list[Unit], state_of_run: RunState):
    state = started(A, *others)
    for unit in others:
        step(state, Finished(str(unit), published(unit)))
    assert ended(step(state, Finished(KEY_A, Outcome(A, 1, "cancelled")))) is state_of_run


def test_after_the_end_grants_are_given_back_and_nothing_else_happens():
    state = started(A)
    step(state, Finished(KEY_A, published(A)))
    assert step(state, Granted((KEY_B,))) == [ReleaseSlots((KEY_B,))]
    for event in (Begin(), CancelRequested(), RetryDue(KEY_A), Finished(KEY_A, failed(A))):
        assert step(state, event) == []
    assert state.run is RunState.SUCCESS

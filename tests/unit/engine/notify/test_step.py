"""The rules of notifications, one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, time, timedelta

import pytest

from engine.errors import UsageError
from engine.notify.inputs import Ack, Delivered, Failed, Silence, Tick, Unsilence
from engine.notify.policy import Policies, QuietHours, Route, Rule
from engine.notify.state import State
from engine.notify.types import EventName, Severity, fingerprint
from tests.unit.engine.notify.desk import CHAT, FAILURE, MAIL, START, Desk, everywhere, message, ruled, short


def test_the_first_is_sent_at_once_and_the_next_are_counted_with_the_message_after_the_cooldown() -> None:
    desk = Desk()
    assert short(desk.fail()) == ["send first"]
    assert short(desk.fail(after=100)) == ["suppress cooldown"]
    assert short(desk.fail(after=100)) == ["suppress cooldown"]
    decisions = desk.fail(after=100)
    assert short(decisions) == ["send repeat"]
    assert decisions[0].event_ids == ("e4",)
    assert (message(decisions).suppressed_count, message(decisions).since) == (
        2,
        START + timedelta(seconds=100),
    )
    assert message(desk.fail(after=300)).suppressed_count == 0


def test_another_pipeline_provider_or_cause_is_another_problem() -> None:
    desk = Desk()
    changes = (
        {},
        {"pipeline_id": "openai/cost"},
        {"provider": "azure"},
        {"cause": "data"},
        {"message": "Other."},
    )
    assert [short(desk.fail(**change)) for change in changes] == [
        ["send first"],
        ["send first"],
        ["send new"],
        ["send new"],
        ["suppress cooldown"],
    ]


def test_an_event_that_comes_twice_is_decided_once() -> None:
    desk = Desk()
    desk.give(FAILURE)
    before = desk.state
    assert short(desk.give(FAILURE, after=1000)) == ["suppress duplicate"]
    assert desk.state == before


def test_what_got_worse_does_not_wait_for_the_cooldown() -> None:
    desk = Desk()
    desk.fail(severity=Severity.WARNING)
    assert short(desk.fail(severity=Severity.CRITICAL)) == ["send worse"]
    assert short(desk.fail(severity=Severity.WARNING, after=1)) == ["suppress cooldown"]


def test_the_end_is_told_once_and_to_who_knew() -> None:
    desk = Desk()
    assert short(desk.recover()) == ["suppress untold"]
    desk.fail(after=1)
    told = message(desk.recover(after=60))
    assert (told.resolved, told.severity, told.lines) == (True, Severity.INFO, ("All is well.",))
    assert told.title == "Resolved: Pipeline failed: openai/usage"
    assert short(desk.recover(after=60)) == ["suppress untold"]


def test_an_end_without_a_cause_is_the_end_of_all_of_the_pipelines_problems() -> None:
    desk = Desk()
    desk.fail()
    desk.fail(cause="data")
    desk.fail(pipeline_id="openai/cost")
    (decision,) = desk.recover(cause="", provider=None, after=60)
    assert decision.reason == "all_resolved"
    assert decision.settles == {
        fingerprint(FAILURE): ("e4",),
        fingerprint(replace(FAILURE, cause="data")): ("e4",),
    }


def test_one_of_two_problems_ends() -> None:
    desk = Desk()
    desk.fail()
    desk.fail(cause="data")
    assert short(desk.recover(after=60)) == ["send resolved"]
    assert short(desk.recover(cause="data", after=60)) == ["send all_resolved"]


def test_a_problem_that_comes_and_goes_waits_and_is_dropped_when_it_is_gone_again() -> None:
    desk = Desk()
    desk.fail()
    assert short(desk.recover(after=10)) == ["send all_resolved"]
    (held,) = desk.fail(after=10)
    assert (held.action, held.reason, held.not_before) == ("hold", "cooldown", START + timedelta(seconds=300))
    assert short(desk.fail(after=10)) == ["suppress joined"]
    assert short(desk.recover(after=10)) == ["suppress recovered", "suppress untold"]
    assert desk.give(Tick(), after=1000) == []
    assert message(desk.fail()).suppressed_count == 2


def test_a_problem_that_comes_back_to_stay_is_told_after_the_cooldown() -> None:
    desk = Desk()
    desk.fail()
    desk.recover(after=10)
    desk.fail(after=10)
    assert desk.give(Tick(), after=279) == []
    assert short(desk.give(Tick(), after=1)) == ["send first"]


def test_a_group_waits_for_company_and_keeps_its_distance() -> None:
    desk = Desk(ruled(wait=timedelta(seconds=5), interval=timedelta(seconds=60)))
    assert short(desk.fail()) == ["hold grouping"]
    assert short(desk.fail(cause="data", severity=Severity.CRITICAL, after=3)) == ["hold grouping"]
    (decision,) = desk.give(Tick(), after=2)
    assert len(decision.settles) == 2
    assert decision.message
    assert decision.message.severity is Severity.CRITICAL
    assert decision.message.title == "Pipeline failed: openai/usage, and 1 more"
    (held,) = desk.fail(cause="quota", after=10)
    assert held.not_before == START + timedelta(seconds=65)


def test_a_problem_that_is_gone_before_it_was_told_is_not_told() -> None:
    desk = Desk(ruled(wait=timedelta(seconds=5)))
    desk.fail()
    assert short(desk.recover(after=1)) == ["suppress recovered", "suppress untold"]
    assert desk.give(Tick(), after=60) == []


def test_what_lasts_is_brought_to_mind_again() -> None:
    desk = Desk(ruled(repeat=timedelta(hours=4)))
    desk.fail()
    assert short(desk.fail(after=3600)) == ["suppress cooldown"]
    assert desk.give(Tick(), after=3600) == []
    told = desk.give(Tick(), after=7200)
    assert short(told) == ["send repeat"]
    assert (message(told).title, message(told).suppressed_count) == (
        "Still: Pipeline failed: openai/usage",
        1,
    )
    desk.recover(after=60)
    assert desk.give(Tick(), after=100_000) == []


def test_quiet_hours_hold_what_is_not_critical_until_the_morning() -> None:
    night = QuietHours(time(22), time(6))
    desk = Desk(ruled(routes=(replace(MAIL, quiet=night), CHAT)))
    desk.seconds = timedelta(hours=11).total_seconds()
    mail, chat = desk.fail()
    assert (mail.action, mail.reason, mail.not_before) == ("hold", "quiet_hours", START + timedelta(hours=18))
    assert chat.action == "send"
    assert short(desk.fail(cause="data", severity=Severity.CRITICAL)) == ["send first", "send new"]
    assert short(desk.give(Tick(), after=7 * 3600)) == ["send new"]


def test_quiet_hours_do_not_keep_back_what_turns_critical() -> None:
    desk = Desk(ruled(routes=(replace(MAIL, quiet=QuietHours(time(11), time(13))),)))
    desk.fail()
    (decision,) = desk.fail(severity=Severity.CRITICAL)
    assert (decision.action, decision.event_ids) == ("send", ("e1", "e2"))


def test_an_end_in_quiet_hours_waits_and_is_dropped_when_the_problem_is_back() -> None:
    desk = Desk(ruled(routes=(replace(MAIL, quiet=QuietHours(time(13), time(14))),)))
    desk.fail()
    assert short(desk.recover(after=3700)) == ["hold quiet_hours"]
    assert short(desk.fail(after=60)) == ["suppress refired", "hold quiet_hours"]
    assert short(desk.give(Tick(), after=3600)) == ["send repeat"]


def test_a_silence_mutes_what_it_matches_until_it_ends() -> None:
    desk = Desk()
    desk.give(Silence("s1", {"pipeline_id": "openai/*"}, START + timedelta(hours=1), "ada"))
    assert short(desk.fail()) == ["suppress silenced"]
    assert short(desk.fail(pipeline_id="gcp/billing")) == ["send first"]
    assert message(desk.fail(after=3600)).suppressed_count == 1


def test_an_end_under_a_silence_is_told_when_the_silence_is_over() -> None:
    desk = Desk()
    desk.fail()
    desk.give(Silence("s1", {"org": "acme"}, START + timedelta(hours=1), "ada"))
    assert short(desk.recover(after=60)) == ["hold silenced"]
    assert short(desk.give(Tick(), after=3600)) == ["send all_resolved"]


def test_a_silence_can_be_lifted() -> None:
    desk = Desk()
    desk.give(Silence("s1", {"event": "*"}, START + timedelta(hours=1), "ada"))
    desk.give(Unsilence("s1", "ada"))
    assert short(desk.fail()) == ["send first"]


@pytest.mark.parametrize(
    ("matcher", "until"),
    [({}, START), ({"pipeline": "x"}, START), ({"org": "acme"}, START.replace(tzinfo=None))],
)
def test_a_silence_that_cannot_be_meant_is_refused(matcher: dict[str, str], until: datetime) -> None:
    with pytest.raises(UsageError):
        Silence("s1", matcher, until, "ada")


def test_what_is_acknowledged_is_quiet_until_it_gets_worse_or_ends() -> None:
    desk = Desk(ruled(repeat=timedelta(hours=1)))
    desk.fail()
    desk.give(Ack(fingerprint(FAILURE), "ada"))
    assert desk.give(Tick(), after=7200) == []
    assert short(desk.fail()) == ["suppress acknowledged"]
    assert short(desk.fail(severity=Severity.CRITICAL)) == ["send worse"]
    assert short(desk.recover(after=60)) == ["send all_resolved"]
    assert short(desk.fail(after=7200)) == ["send first"]


def test_an_acknowledgement_of_nothing_changes_nothing() -> None:
    desk = Desk()
    desk.give(Ack("f" * 32, "ada"))
    assert desk.state == State()


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (ruled(enabled=False), "suppress disabled"),
        (ruled(routes=()), "suppress no_channel"),
        (ruled(routes=(replace(MAIL, minimum=Severity.CRITICAL),)), "suppress below_severity"),
    ],
)
def test_what_nobody_wants_has_its_reason(rule: Rule, reason: str) -> None:
    assert short(Desk(rule).fail()) == [reason]


def test_who_does_not_want_to_hear_of_ends_hears_of_the_next_beginning() -> None:
    desk = Desk(ruled(routes=(replace(MAIL, send_resolved=False),)))
    desk.fail()
    assert short(desk.recover(after=60)) == ["suppress not_wanted"]
    assert short(desk.fail(after=600)) == ["send first"]


def test_a_failure_from_before_its_recovery_comes_too_late() -> None:
    desk = Desk()
    desk.fail()
    desk.recover(after=60)
    assert short(desk.give(replace(FAILURE, id="late", at=START + timedelta(seconds=30)))) == [
        "suppress stale"
    ]


def test_a_recovery_from_before_the_failure_ends_nothing() -> None:
    desk = Desk()
    desk.fail(after=60)
    assert short(desk.give(replace(FAILURE, id="late", at=START, resolved=True))) == ["suppress stale"]
    assert short(desk.recover(after=1)) == ["send all_resolved"]


def test_a_message_that_a_channel_did_not_take_is_untold_and_tried_again() -> None:
    desk = Desk()
    desk.slow = True
    desk.fail()
    desk.fail(after=10)
    first = next(iter(desk.state.flights))
    (held,) = desk.give(Failed(first), after=10)
    assert (held.action, held.reason) == ("hold", "channel_failed")
    assert held.not_before == START + timedelta(seconds=320)
    assert short(desk.fail(after=10)) == ["suppress joined"]
    again = desk.give(Tick(), after=290)
    assert short(again) == ["send first"]
    assert (again[0].event_ids, message(again).suppressed_count) == (("e1",), 2)
    desk.give(Delivered(message(again).id))
    assert not desk.state.flights
    assert message(again).id != first


def test_the_end_waits_until_the_beginning_has_arrived() -> None:
    desk = Desk()
    desk.slow = True
    told = message(desk.fail())
    assert short(desk.recover(after=10)) == ["hold in_flight"]
    assert short(desk.give(Tick(), after=15)) == ["hold in_flight"]
    desk.give(Delivered(told.id))
    assert short(desk.give(Tick(), after=15)) == ["send all_resolved"]


def test_nobody_hears_of_the_end_of_what_did_not_arrive() -> None:
    desk = Desk()
    desk.slow = True
    told = message(desk.fail())
    desk.recover(after=10)
    assert short(desk.give(Failed(told.id), after=1)) == ["suppress recovered"]
    assert short(desk.give(Tick(), after=15)) == ["suppress untold"]


def test_an_end_that_did_not_arrive_is_tried_again() -> None:
    desk = Desk()
    desk.fail()
    desk.slow = True
    told = message(desk.recover(after=10))
    assert short(desk.give(Failed(told.id), after=10)) == ["hold channel_failed"]
    assert short(desk.give(Tick(), after=300)) == ["send all_resolved"]


def test_what_waits_for_a_channel_that_is_gone_is_dropped_with_a_reason() -> None:
    desk = Desk(ruled(wait=timedelta(seconds=5)))
    desk.fail()
    desk.policies = Policies(orgs={"acme": everywhere(ruled(routes=(CHAT,)))})
    assert short(desk.give(Tick(), after=5)) == ["suppress no_channel"]


def test_the_end_of_what_was_told_on_a_channel_that_is_gone() -> None:
    desk = Desk()
    desk.fail()
    desk.policies = Policies(orgs={"acme": everywhere(ruled(routes=(CHAT,)))})
    assert sorted(short(desk.recover(after=5))) == ["suppress not_wanted", "suppress untold"]


def test_that_a_channel_fails_is_told_over_another() -> None:
    desk = Desk(operator=everywhere(ruled(routes=(Route("email"), Route("slack")))))
    decisions = desk.fail(org=None, event=EventName.CHANNEL_FAILING, data={"channel_id": "email"})
    assert [decision.channel_id for decision in decisions] == ["slack"]


def test_when_to_look_again() -> None:
    desk = Desk(ruled(wait=timedelta(seconds=5)))
    assert desk.state.due() is None
    desk.fail()
    assert desk.state.due() == START + timedelta(seconds=5)


def test_what_is_dropped_with_the_end_is_counted_in_its_message() -> None:
    desk = Desk(ruled(routes=(replace(MAIL, quiet=QuietHours(time(12, 30), time(13))),)))
    desk.fail(severity=Severity.WARNING)
    assert short(desk.fail(severity=Severity.ERROR, after=1860)) == ["hold quiet_hours"]
    desk.policies = Policies(orgs={"acme": everywhere(ruled())})
    ended = desk.recover(after=60)
    assert short(ended) == ["suppress recovered", "send all_resolved"]
    assert message(ended).suppressed_count == 1


def test_what_waits_for_the_group_goes_with_what_is_due() -> None:
    desk = Desk(ruled(wait=timedelta(seconds=5)))
    desk.fail()
    desk.give(Tick(), after=5)
    desk.recover(after=5)
    desk.give(Tick(), after=5)
    assert short(desk.fail(after=5)) == ["hold cooldown"]
    assert short(desk.fail(cause="data", after=282)) == ["hold grouping"]
    (decision,) = desk.give(Tick(), after=3)
    assert decision.event_ids == ("e3", "e4")

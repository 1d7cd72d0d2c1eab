"""What many organisations have in common is one message to the operator."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from engine.notify.inputs import Tick
from engine.notify.policy import Policies, RollUp, Route
from engine.notify.types import EventName
from tests.unit.engine.notify.desk import Desk, everywhere, message, ruled, short

ORGS = [f"org{n}" for n in range(500)]


def rolled_up(*, shared: bool, few: int = 2) -> Desk:
    operator = everywhere(ruled(routes=(Route("email"),)))
    theirs = everywhere(ruled(routes=(Route("email", shared=True),)))
    own = {org: everywhere(ruled(routes=(Route(f"{org}/email"),))) for org in ORGS}
    roll_up = RollUp(frozenset({EventName.PIPELINE_FAILURE}), few, timedelta(seconds=30))
    desk = Desk()
    desk.policies = Policies(operator, theirs, {} if shared else own, roll_up)
    return desk


@pytest.mark.parametrize("shared", [True, False])
def test_one_outage_of_500_organisations_is_one_message_to_the_operator(shared: bool) -> None:
    desk = rolled_up(shared=shared)
    decisions = [each for org in ORGS for each in desk.fail(org=org, after=0.01)]
    decisions += desk.give(Tick(), after=60)
    sent = [decision for decision in decisions if decision.message]
    to_operator = [decision for decision in sent if decision.org is None]
    assert [decision.message.title for decision in to_operator if decision.message] == [
        "Pipeline failed: openai/usage: 500 organisations"
    ]
    assert {decision.channel_id for decision in sent} - {"email"} == (
        set() if shared else {f"{org}/email" for org in ORGS}
    )
    ends = [each for org in ORGS for each in desk.recover(org=org, cause="", after=0.01)]
    ends += desk.give(Tick(), after=60)
    told = [each.message for each in ends if each.message and each.org is None]
    assert [each.title for each in told] == ["Resolved: Pipeline failed: openai/usage: 500 organisations"]


def test_the_trouble_of_one_organisation_with_channels_is_not_the_operators() -> None:
    desk = rolled_up(shared=False, few=3)
    desk.fail(org="org1")
    assert short(desk.fail(org="org2")) == ["send first", "suppress few_organisations"]
    assert short(desk.fail(org="org3")) == ["send first", "hold grouping"]


def test_a_single_organisation_on_the_operators_channel_is_told_in_full() -> None:
    desk = rolled_up(shared=True)
    desk.policies = replace(desk.policies, run_link="https://manta.example/runs/{run_id}")
    assert short(desk.fail(data={"Rows": "7"})) == ["suppress rolled_up", "hold grouping"]
    told = message(desk.give(Tick(), after=30))
    assert told.title == "acme: Pipeline failed: openai/usage"
    assert told.links[0].url == "https://manta.example/runs/run-1"
    assert dict(told.fields) == {
        "Organisation": "acme",
        "Pipeline": "openai/usage",
        "Provider": "openai",
        "Cause": "transient",
        "Run": "run-1",
        "Since": "2026-11-24T12:00:00+00:00",
        "Rows": "7",
    }


def test_what_is_no_common_trouble_goes_to_the_operators_channel_for_each_organisation() -> None:
    desk = rolled_up(shared=True)
    decisions = [desk.fail(org=org, event=EventName.COST_THRESHOLD) for org in ("acme", "globex")]
    assert [(short(each), each[0].org) for each in decisions] == [
        (["send first"], "acme"),
        (["send first"], "globex"),
    ]


def test_the_operators_own_problem_is_not_taken_for_everybodys() -> None:
    desk = rolled_up(shared=True)
    desk.fail(org="acme")
    assert short(desk.fail(org=None)) == ["send first"]

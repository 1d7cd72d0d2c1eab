"""The rules of notifications with a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from engine.notify.inputs import Delivered, Input
from engine.notify.policy import Policies, Policy, Route, Rule
from engine.notify.state import State
from engine.notify.step import step
from engine.notify.types import Decision, Event, EventName, Message, Severity

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
FAILURE = Event(
    id="e0",
    org="acme",
    event=EventName.PIPELINE_FAILURE,
    severity=Severity.ERROR,
    title="Pipeline failed: openai/usage",
    message="The provider answered 503.",
    cause="transient",
    at=START,
    pipeline_id="openai/usage",
    provider="openai",
    run_id="run-1",
)
MAIL = Route("acme/email")
CHAT = Route("acme/slack")


def ruled(**changes: object) -> Rule:
    return replace(Rule(routes=(MAIL,)), **changes)


def everywhere(rule: Rule) -> Policy:
    return Policy(dict.fromkeys(EventName, rule))


class Desk:
    """The rules with a clock that is set by hand; channels take everything at once unless they are `slow`."""

    def __init__(self, rule: Rule | None = None, **more: object) -> None:
        self.policies = Policies(orgs={"acme": everywhere(rule or ruled())}, **more)
        self.state, self.seconds, self.events, self.slow = State(), 0.0, 0, False

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def give(self, given: Input, *, after: float = 0) -> list[Decision]:
        self.seconds += after
        self.state, decisions = step(self.state, given, self.policies, self.now)
        for arrived in [] if self.slow else list(self.state.flights):
            self.state, _ = step(self.state, Delivered(arrived), self.policies, self.now)
        return list(decisions)

    def fail(self, *, after: float = 0, **changes: object) -> list[Decision]:
        self.seconds += after
        self.events += 1
        return self.give(replace(FAILURE, id=f"e{self.events}", at=self.now, **changes))

    def recover(self, *, after: float = 0, **changes: object) -> list[Decision]:
        return self.fail(after=after, resolved=True, message="All is well.", **changes)


def short(decisions: Iterable[Decision]) -> list[str]:
    return [f"{decision.action} {decision.reason}" for decision in decisions]


def message(decisions: Iterable[Decision]) -> Message:
    (found,) = [decision.message for decision in decisions if decision.message]
    return found

"""Events a second through the rules of notifications, on one core: what the actor does besides sending.

    python -m benchmarks.notify [--events 50000] [--orgs 500]

Three streams: what a night with an outage brings (problems and their ends, of all organisations, four
pipelines and three causes each, with a tick every 100 events and every message delivered), one problem that
is reported over and over, and a digest for every organisation. Also with the steps encoded for the history.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from engine.notify.apply import apply
from engine.notify.codec import encode_entry
from engine.notify.config import EmailConfig, NotificationConfig, SlackConfig
from engine.notify.configured import Around, policies
from engine.notify.inputs import Delivered, Input, Tick
from engine.notify.policy import Policies
from engine.notify.sources import Configs
from engine.notify.state import State
from engine.notify.step import advance
from engine.notify.types import Event, EventName, Severity

START = datetime(2026, 11, 24, 3, tzinfo=UTC)
TICK_EVERY = 100
GOAL_A_SECOND = 1_000


def everybody(orgs: int) -> Policies:
    """The operator with two channels, and every second organisation with a mail of its own."""
    slack = SlackConfig(default_channel="#alerts")
    root = NotificationConfig(email_config=EmailConfig(smtp_host="mail.example"), slack_config=slack)
    own = root.model_copy(update={"email_config": EmailConfig(smtp_host="mail.example", to=("a@x.example",))})
    with_own = [f"org{n}" for n in range(0, orgs, 2)]
    configs = Configs(root, dict.fromkeys(with_own, own), dict.fromkeys(with_own, frozenset({"email"})))
    return policies(configs, Around("admin@example.com", frozenset({"SLACK_WEBHOOK_URL"})))


def event(number: int, org: str, **more: object) -> Event:
    """A failure of a pipeline."""
    given = {
        "event": EventName.PIPELINE_FAILURE,
        "severity": Severity.ERROR,
        "title": "Pipeline failed: openai/cost/usage_cost",
        "message": "The provider answered 503 five times.",
        "cause": "transient",
        "pipeline_id": "openai/cost/usage_cost",
        "provider": "openai",
        "run_id": f"run-{number}",
    }
    return Event(id=f"e{number}", org=org, at=START, **(given | more))  # type: ignore[arg-type]


def night(events: int, orgs: int) -> Iterator[Event]:
    """Problems, and now and then the end of one."""
    rand = random.Random(7)
    for n in range(events):
        pipeline, cause = rand.choice("abcd"), rand.choice(["transient", "data", "credential"])
        over = rand.random() < 0.3
        yield event(n, f"org{rand.randrange(orgs)}", pipeline_id=pipeline, cause=cause, resolved=over)


def flood(events: int, orgs: int) -> Iterator[Event]:
    """One problem of one organisation, again and again."""
    return (event(n, f"org{orgs - 1}") for n in range(events))


def digests(orgs: int) -> Iterator[Event]:
    """A digest for every organisation."""
    more = {"event": EventName.SUMMARY_SCHEDULED, "severity": Severity.INFO, "cause": "daily 2026-11-23"}
    return (event(n, f"org{n}", **more) for n in range(orgs))


def measure(name: str, events: Iterable[Event], everyone: Policies, *, step_s: float) -> None:
    """Run one stream and print what it took; `step_s` is how far the events lie apart."""
    state, now, decided = State(), START, Counter[str]()
    rules_s = encode_s = 0.0
    count = slowest = 0
    for count, happened in enumerate(events, 1):
        now += timedelta(seconds=step_s)
        given: list[Input] = [Event(**{f: getattr(happened, f) for f in happened.__slots__} | {"at": now})]
        given += [Tick()] if count % TICK_EVERY == 0 else []
        while given:
            began = time.perf_counter()
            entry = advance(state, given.pop(), everyone, now)
            state = apply(state, entry)
            took = time.perf_counter() - began
            rules_s, slowest = rules_s + took, max(slowest, took)
            began = time.perf_counter()
            encode_entry(entry)
            encode_s += time.perf_counter() - began
            decided.update(decision.action for decision in entry.decisions)
            given += [Delivered(decision.message.id) for decision in entry.decisions if decision.message]
    print(
        json.dumps(
            {
                "stream": name,
                "events": count,
                "events_a_second": round(count / rules_s),
                "with_history_json": round(count / (rules_s + encode_s)),
                "slowest_step_ms": round(slowest * 1000, 1),
                "groups": len(state.groups),
                "decisions": dict(decided),
                "goal": GOAL_A_SECOND,
            }
        )
    )


def main() -> None:
    """Measure the three streams."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--orgs", type=int, default=500)
    args = parser.parse_args()
    everyone = everybody(args.orgs)
    measure("night", night(args.events, args.orgs), everyone, step_s=0.02)
    measure("flood", flood(args.events, args.orgs), everyone, step_s=0.001)
    measure("digests", digests(args.orgs), everyone, step_s=0.0)


if __name__ == "__main__":
    main()

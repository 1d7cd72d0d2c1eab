"""The words of a message: what lasts, what is over, and for whom, with nothing of a channel's format."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from engine.notify.gate import Now
from engine.notify.state import Alert, Group
from engine.notify.types import Decision, Link, Message, Reason, Severity, identity

#: More problems or organisations than these are told by their number.
MAX_LINES = 20
MAX_NAMES = 20


def compose(
    group: Group,
    alerts: Sequence[Alert],
    decision: Decision,
    *,
    sent: int,
    count: int,
    since: datetime | None,
    now: Now,
) -> Message:
    """One message of these problems, the worst first; `sent` is how many the lane had before it."""
    worst = alerts[0]
    resolved = not any(alert.firing for alert in alerts)
    # A run and its details are one organisation's.
    single = worst if len(alerts) == 1 and len(worst.organisations) <= 1 else None
    event = (worst.recovery or worst.event) if resolved else worst.event
    return Message(
        id=identity(decision.fingerprint, now.at.isoformat(), decision.channel_id, str(sent)),
        org=group.org,
        event=group.event,
        severity=Severity.INFO if resolved else worst.severity,
        title=_title(alerts, decision.reason),
        lines=_lines(alerts),
        at=now.at,
        fields=_fields(group, alerts, single),
        links=_links(single, now.run_link),
        tables=event.tables if single else (),
        resolved=resolved,
        suppressed_count=count,
        since=since,
    )


def _title(alerts: Sequence[Alert], reason: Reason) -> str:
    title = _named(alerts[0])
    if len(alerts) > 1:
        title += f", and {len(alerts) - 1} more"
    prefix = {Reason.REPEAT: "Still: ", Reason.RESOLVED: "Resolved: ", Reason.ALL_RESOLVED: "Resolved: "}
    return prefix.get(reason, "") + title


def _named(alert: Alert) -> str:
    """A problem's title, with the organisations of a roll-up."""
    who = alert.organisations
    if len(who) > 1:
        return f"{alert.event.title}: {len(who)} organisations"
    return f"{who[0]}: {alert.event.title}" if who else alert.event.title


def _lines(alerts: Sequence[Alert]) -> tuple[str, ...]:
    if len(alerts) == 1:
        return (_said(alerts[0]),)
    shown = [f"{'' if a.firing else 'Resolved: '}{_named(a)}: {_said(a)}" for a in alerts[:MAX_LINES]]
    return (*shown, *_rest(len(alerts) - MAX_LINES))


def _said(alert: Alert) -> str:
    event = alert.event if alert.firing else alert.recovery or alert.event
    return event.message or alert.event.message


def _fields(group: Group, alerts: Sequence[Alert], single: Alert | None) -> tuple[tuple[str, str], ...]:
    """What all of the problems share, and a single one's own data."""
    found = {
        "Organisation": [group.org or "".join(single.organisations if single else ())],
        "Organisations": ["" if single else ", ".join(_names(alert.organisations)) for alert in alerts],
        "Pipeline": [alert.event.pipeline_id or "" for alert in alerts],
        "Provider": [alert.event.provider or "" for alert in alerts],
        "Cause": [alert.event.cause for alert in alerts],
        "Run": [(single and single.event.run_id) or ""],
        "Since": [alert.first_at.isoformat(timespec="seconds") for alert in alerts],
    }
    shared = tuple((name, values[0]) for name, values in found.items() if values[0] and len(set(values)) == 1)
    return shared + (tuple(single.event.data.items()) if single else ())


def _names(names: Sequence[str]) -> tuple[str, ...]:
    return (*names[:MAX_NAMES], *_rest(len(names) - MAX_NAMES))


def _rest(count: int) -> tuple[str, ...]:
    return (f"and {count} more",) if count > 0 else ()


def _links(single: Alert | None, run_link: str | None) -> tuple[Link, ...]:
    if single is None:
        return ()
    event = single.event if single.firing else single.recovery or single.event
    if run_link and event.run_id:
        return (Link("Open the run", run_link.replace("{run_id}", event.run_id)), *event.links)
    return event.links

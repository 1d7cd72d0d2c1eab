"""What becomes of a group's changes on one channel: sent, held or suppressed, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from engine.notify.compose import compose
from engine.notify.gate import GO, Now, Verdict, again, may_tell, may_tell_end
from engine.notify.policy import Route, Rule
from engine.notify.register import Change
from engine.notify.state import COUNTED, Alert, Counted, Group, Held, Lane
from engine.notify.types import NOTICES, Action, Decision, Reason


@dataclass(frozen=True, slots=True)
class Candidate:
    """A problem that may be told now as far as it alone is concerned."""

    alert: Alert
    event_ids: tuple[str, ...]
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Desk:
    """One channel of one group at one moment, and the decisions about it."""

    group: Group
    channel_id: str
    lane: Lane
    route: Route
    rule: Rule
    now: Now

    def changed(self, changes: Iterable[Change]) -> list[Decision]:
        """What becomes of problems that an event has just begun, added to or ended."""
        decisions: list[Decision] = []
        candidates: list[Candidate] = []
        for change in changes:
            decided, candidate = self._ended(change) if change.resolved else self._lasts(change)
            decisions += decided
            candidates += [candidate] if candidate else []
        return decisions + self._told(candidates, decisions, earliest=self._pace())

    def due(self) -> list[Decision]:
        """What becomes of what has waited long enough, and of problems to be brought to mind again."""
        decisions: list[Decision] = []
        candidates: list[Candidate] = []
        for mark, held in sorted(self.lane.held.items()):
            if held.not_before <= self.now.at:
                verdict = self._verdict(mark, held)
                if verdict.action == "go":
                    candidates.append(self._candidate(mark, held))
                else:
                    decisions.append(self._kept(mark, held, verdict))
        candidates += [Candidate(a, (), a.first_at, a.last_at) for a in self._reminders()]
        spaced = self.lane.sent_at + self.rule.interval if self.lane.sent_at else self.now.at
        return decisions + self._told(candidates, decisions, earliest=spaced)

    def _lasts(self, change: Change) -> tuple[list[Decision], Candidate | None]:
        mark = change.fingerprint
        alert, held = self.group.alerts[mark], self.lane.held.get(mark)
        decisions = []
        if held and held.resolved:
            decisions.append(self._dropped(mark, held, Reason.REFIRED))
            held = None
        verdict = may_tell(self.group, alert, self.lane, self.route, self.rule, self.now)
        waits = held and (verdict.action == "hold" or self._paced(held))
        if held and waits and verdict.action != "suppress":
            verdict = Verdict("suppress", Reason.JOINED)
        fresh = Held((change.event_id,), verdict.reason, self.now.at, change.at, change.at)
        if verdict.action == "suppress":
            return [*decisions, self._dropped(mark, fresh, verdict.reason)], None
        if verdict.action == "hold":
            return [*decisions, self._kept(mark, fresh, verdict)], None
        return decisions, self._candidate(mark, _both(held, fresh))

    def _ended(self, change: Change) -> tuple[list[Decision], Candidate | None]:
        mark = change.fingerprint
        alert, held = self.group.alerts[mark], self.lane.held.get(mark)
        decisions = [self._dropped(mark, held, Reason.RECOVERED)] if held else []
        verdict = may_tell_end(alert, self.lane, self.route, self.now)
        fresh = Held((change.event_id,), verdict.reason, self.now.at, change.at, change.at, resolved=True)
        if verdict.action == "go":
            return decisions, self._candidate(mark, fresh)
        return [*decisions, self._kept(mark, fresh, verdict)], None

    def _verdict(self, mark: str, held: Held) -> Verdict:
        alert = self.group.alerts[mark]
        if held.resolved:
            return may_tell_end(alert, self.lane, self.route, self.now)
        return may_tell(self.group, alert, self.lane, self.route, self.rule, self.now)

    def _paced(self, held: Held) -> bool:
        """Held by the pace of the group or by a broken channel: not by what this problem is."""
        return held.reason in (Reason.GROUPING, Reason.CHANNEL_FAILED) and held.not_before > self.now.at

    def _pace(self) -> datetime:
        """When the next message of this lane may go."""
        held = self.lane.held.values()
        if waiting := [h.not_before for h in held if h.reason is Reason.GROUPING]:
            return min(waiting)
        wait = self.now.roll_up.wait if self.group.roll_up else self.rule.wait
        first = self.now.at + wait
        return max(first, self.lane.sent_at + self.rule.interval) if self.lane.sent_at else first

    def _reminders(self) -> list[Alert]:
        if not self.rule.repeat or self.group.event in NOTICES:
            return []
        lasting = (a for a in self.group.alerts.values() if a.firing and a.fingerprint not in self.lane.held)
        return [
            alert
            for alert in lasting
            if (told := self.lane.told.get(alert.fingerprint))
            and not told.resolved
            and again(alert, told, self.rule) <= self.now.at
            and may_tell(self.group, alert, self.lane, self.route, self.rule, self.now).action == "go"
        ]

    def _candidate(self, mark: str, held: Held) -> Candidate:
        return Candidate(self.group.alerts[mark], held.event_ids, held.first_at, held.last_at)

    def _told(
        self, candidates: list[Candidate], others: Sequence[Decision], *, earliest: datetime
    ) -> list[Decision]:
        """One message for all candidates, or each of them held until the lane may speak again."""
        if not candidates:
            return []
        if earliest > self.now.at:
            verdict = Verdict("hold", Reason.GROUPING, earliest)
            return [self._kept(c.alert.fingerprint, self._as_held(c), verdict) for c in candidates]
        return [self._message(candidates + self._company(candidates), others)]

    def _company(self, candidates: list[Candidate]) -> list[Candidate]:
        """What waits for the group's next message only, and so goes with this one."""
        taken = {candidate.alert.fingerprint for candidate in candidates}
        waiting = sorted((m, h) for m, h in self.lane.held.items() if m not in taken)
        return [
            self._candidate(mark, held)
            for mark, held in waiting
            if held.reason is Reason.GROUPING and self._verdict(mark, held) == GO
        ]

    def _message(self, candidates: Sequence[Candidate], others: Sequence[Decision]) -> Decision:
        alerts = sorted(
            (candidate.alert for candidate in candidates),
            key=lambda alert: (not alert.firing, -alert.severity.rank, alert.first_at, alert.fingerprint),
        )
        marks = [alert.fingerprint for alert in alerts]
        reason = self._reason(alerts)
        counted = [self.lane.counted[mark] for mark in marks if mark in self.lane.counted]
        # What was dropped a moment ago is told by this message's number already.
        counted += [
            Counted(len(other.event_ids), other.first_at, other.last_at)
            for other in others
            if other.fingerprint in marks and other.action == "suppress" and other.reason in COUNTED
        ]
        settles = {candidate.alert.fingerprint: candidate.event_ids for candidate in candidates}
        count = sum(each.events for each in counted)
        since = min((each.first_at for each in counted), default=None)
        decision = self._decision(
            marks[0],
            "send",
            reason,
            settles={mark: settles[mark] for mark in marks},
            first_at=min(candidate.first_at for candidate in candidates),
            last_at=max(candidate.last_at for candidate in candidates),
        )
        message = compose(
            self.group, alerts, decision, sent=self.lane.sent, count=count, since=since, now=self.now
        )
        return replace(decision, message=message, suppressed_count=count)

    def _reason(self, alerts: Sequence[Alert]) -> Reason:
        """As Alertmanager names them: who knows nothing hears a first message, then only of what is new."""
        told = self.lane.told
        known = {mark for mark, last in told.items() if not last.resolved}
        firing = {alert.fingerprint: alert for alert in alerts if alert.firing}
        if not firing:
            return Reason.RESOLVED if known - {a.fingerprint for a in alerts} else Reason.ALL_RESOLVED
        if not firing.keys() <= known:
            return Reason.NEW if known else Reason.FIRST
        worse = any(alert.severity > told[mark].severity for mark, alert in firing.items())
        return Reason.WORSE if worse else Reason.REPEAT

    def _as_held(self, candidate: Candidate) -> Held:
        return Held(candidate.event_ids, Reason.GROUPING, self.now.at, candidate.first_at, candidate.last_at)

    def _kept(self, mark: str, held: Held, verdict: Verdict) -> Decision:
        """The held events under a verdict that is no `go`."""
        decision = self._dropped(mark, held, verdict.reason)
        if verdict.action == "hold":
            return replace(decision, action="hold", not_before=verdict.until)
        return decision

    def _dropped(self, mark: str, held: Held, reason: Reason) -> Decision:
        settles = {mark: held.event_ids}
        return self._decision(
            mark, "suppress", reason, settles=settles, first_at=held.first_at, last_at=held.last_at
        )

    def _decision(
        self,
        mark: str,
        action: Action,
        reason: Reason,
        *,
        settles: dict[str, tuple[str, ...]],
        first_at: datetime,
        last_at: datetime,
    ) -> Decision:
        org, channel = self.group.org, self.channel_id
        return Decision(self.group.key, mark, org, channel, action, reason, settles, first_at, last_at)


def _both(held: Held | None, fresh: Held) -> Held:
    if held is None:
        return fresh
    first, last = min(held.first_at, fresh.first_at), max(held.last_at, fresh.last_at)
    return replace(fresh, event_ids=held.event_ids + fresh.event_ids, first_at=first, last_at=last)

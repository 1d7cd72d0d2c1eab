from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from engine.log import HIDDEN, JsonLog, redact

NOW = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
KEY = "sk-admin-Ab12Cd34Ef56"
OURS = "acme_corp_api_0123456789ab" + "Zz-_9" * 8 + "abc"


def lines_of(write: list[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in "".join(write).splitlines()]


def test_one_line_an_event_with_bound_fields() -> None:
    written: list[str] = []
    log = JsonLog(written.append, now=lambda: NOW)
    step = log.bind(run_id="r1", org="acme").bind(step="usage", attempt=2)
    step.warning("http.retry", wait_s=0.5, day=date(2026, 11, 1), note="line\nbreak")
    log.info("done")
    assert lines_of(written) == [
        {
            "at": "2026-11-20T08:30:00+00:00",
            "level": "warning",
            "event": "http.retry",
            "run_id": "r1",
            "org": "acme",
            "step": "usage",
            "attempt": 2,
            "wait_s": 0.5,
            "day": "2026-11-01",
            "note": "line\nbreak",
        },
        {"at": "2026-11-20T08:30:00+00:00", "level": "info", "event": "done"},
    ]


class Opaque:
    def __repr__(self) -> str:
        return KEY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("detail", f"Incorrect API key provided: {KEY}."),
        ("error", ValueError(KEY)),
        ("headers", {"note": [f"Bearer {KEY}"]}),
        (f"{KEY}", "as a name"),
        ("path", f"/api/v1/costs/acme?key={OURS}"),
        ("text", f"refused {OURS}."),
        ("where", "https://user:hunter2secret@host/path"),
        ("hook", "https://hooks.slack.com/services/T0/B0/anything"),
        ("thing", Opaque()),
        ("nested", {"deep": ({KEY: KEY},)}),
    ],
)
def test_no_field_carries_a_secret(name: str, value: object) -> None:
    written: list[str] = []
    JsonLog(written.append, now=lambda: NOW).bind(extra=value).error("failed", **{name: value})
    assert KEY not in written[0]
    assert OURS[-40:] not in written[0]
    assert "hunter2secret" not in written[0]
    assert "/services/T0" not in written[0]


def test_named_secrets_are_hidden_and_counters_are_not() -> None:
    written: list[str] = []
    log = JsonLog(written.append, now=lambda: NOW)
    log.info(
        "read",
        token="abc",
        api_key=b"abc",
        headers={"Authorization": "abc"},
        output_token=5,
        cost=Decimal("1.10"),
        took=timedelta(seconds=2),
    )
    (line,) = lines_of(written)
    assert (line["token"], line["api_key"], line["output_token"]) == (HIDDEN, HIDDEN, 5)
    assert line["headers"] == {"Authorization": HIDDEN}
    assert (line["cost"], line["took"]) == ("1.10", 2.0)


def test_redact_leaves_ordinary_words() -> None:
    text = "openai /organization/usage/completions: HTTP 429 (request req_123), ask again"
    assert redact(text) == text

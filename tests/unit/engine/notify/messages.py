"""Messages for tests of channels: one of each look, and any at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from engine.notify.types import EventName, Link, Message, Severity, Table

NOW = datetime(2026, 11, 24, 6, 30, tzinfo=UTC)
FAILURE = Message(
    id="8f3a61d0c2b94e7fa5519d3be0747c12",
    org="acme_corp",
    event=EventName.PIPELINE_FAILURE,
    severity=Severity.ERROR,
    title="Pipeline openai/cost/usage_cost failed",
    lines=("OpenAI refuses the key.\nStore a valid one.",),
    at=NOW,
    fields=(("Run", "run_1"), ("Days", "2026-11-23")),
    links=(Link("Open the run", "https://manta.example/runs/run_1?a=1&b=2"),),
    suppressed_count=12,
    since=NOW - timedelta(minutes=5),
)
SPEND = Table(
    "By provider",
    ("Provider", "USD", "Change"),
    (("openai", "9,412.08", "+17.4 %"), ("gcp", "1,711.38", "−8.6 %"), ("saas", "–", "0 %")),
)
HOSTILE = (
    "<script>alert(1)</script>",
    "</title></h1><img src=x onerror=alert(2)>",
    "a\r\nBcc: x@evil.example\r\n\r\nbody",
    "<!channel> <@U1> <https://evil.example|x>",
    "{{ 7 * 7 }}{% raw %}",
    "```\n*bold* ~x~ _y_ `z`",
    "\u202egnp.exe\u0000\ud800",
)

TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=60), st.text(max_size=3).map(lambda t: t * 1200))
TABLES = st.integers(1, 5).flatmap(
    lambda width: st.builds(
        Table,
        title=TEXTS,
        columns=st.tuples(*[st.text(max_size=8)] * width),
        rows=st.lists(st.tuples(*[st.text(max_size=40)] * width), max_size=70).map(tuple),
    )
)
MESSAGES = st.builds(
    Message,
    id=st.text("0123456789abcdef", min_size=32, max_size=32),
    org=st.none() | TEXTS,
    event=st.sampled_from(EventName),
    severity=st.sampled_from(Severity),
    title=TEXTS,
    lines=st.lists(TEXTS, max_size=5).map(tuple),
    at=st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    fields=st.lists(st.tuples(TEXTS, TEXTS), max_size=25).map(tuple),
    links=st.lists(
        st.builds(
            Link, TEXTS, st.sampled_from(("https://a.example/x|y>?q=1&r=2", "javascript:alert(1)", "\nhttp:"))
        ),
        max_size=4,
    ).map(tuple),
    tables=st.lists(TABLES, max_size=3).map(tuple),
    resolved=st.booleans(),
    suppressed_count=st.integers(0, 10_000),
    since=st.none() | st.just(datetime(2019, 12, 31, tzinfo=UTC)),
)

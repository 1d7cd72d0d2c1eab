"""Each way a provider fails, and what the processors make of it."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from engine.errors import ConfigurationError, CredentialError, DataError, TransientError
from engine.pages import anthropic, openai
from sandbox.server import Sandbox
from tests.wire.test_usage_totals import known, sums

DAYS = tuple(date(2026, 10, 1) + timedelta(n) for n in range(4))
METRICS = {"openai": openai.METRICS, "anthropic": anthropic.METRICS}
PATHS = {"openai": "/organization/usage/completions", "anthropic": "/v1/organizations/usage_report/messages"}
ONLY = {"openai": {"endpoints": ["completions"]}, "anthropic": {}}
both = pytest.mark.parametrize("provider", ["openai", "anthropic"])


def exact(sandbox: Sandbox, provider: str, table: Any) -> None:
    expected = known(sandbox, provider, "acme", DAYS)
    found = sums(table, METRICS[provider])
    assert found
    assert found == {kind: expected[kind] for kind in found}


@both
@pytest.mark.parametrize(
    "fault", ["server_error", "overloaded", "html", "cut", "truncated_json", "rate_limited_bare"]
)
def test_what_passes_is_read_through(read: Any, sandbox: Sandbox, provider: str, fault: str) -> None:
    scripted = sandbox.state.faults.put(fault, count=2, provider=provider)
    exact(sandbox, provider, read(provider, DAYS, **ONLY[provider]))
    assert scripted.hits == len(read.waits) == 2
    assert sum('"http.retry"' in line for line in read.lines) == 2


@both
@pytest.mark.parametrize("fault", ["server_error", "overloaded", "html", "cut", "truncated_json"])
def test_what_stays_is_handed_back(read: Any, sandbox: Sandbox, provider: str, fault: str) -> None:
    sandbox.state.faults.put(fault, count=99, provider=provider)
    with pytest.raises(
        TransientError, match=f"Credential cred_acme: {provider} {PATHS[provider]}: .* 5 attempts"
    ):
        read(provider, DAYS, **ONLY[provider])
    assert read.calls == 5


@both
@pytest.mark.parametrize("fault", ["rate_limited", "rate_limited_reset"])
def test_the_asked_wait_is_honoured(read: Any, sandbox: Sandbox, provider: str, fault: str) -> None:
    sandbox.state.faults.put(fault, seconds=9, provider=provider)
    exact(sandbox, provider, read(provider, DAYS, **ONLY[provider]))
    (wait_s,) = read.waits
    assert 7.5 < wait_s < 9.1  # a reset is whole seconds of a clock that went on


def test_a_long_wait_is_handed_back_at_once(read: Any, sandbox: Sandbox) -> None:
    sandbox.state.faults.put("rate_limited", seconds=600)
    with pytest.raises(TransientError) as caught:
        read("openai", DAYS, **ONLY["openai"])
    assert caught.value.retry_after == timedelta(minutes=10)
    assert (read.calls, read.waits) == (1, [])


@both
def test_a_slow_answer_is_asked_for_again(read: Any, sandbox: Sandbox, provider: str) -> None:
    sandbox.state.faults.put("timeout", seconds=1, provider=provider)
    exact(sandbox, provider, read(provider, DAYS, read_s=0.3, **ONLY[provider]))
    assert any('"code":"ReadTimeout"' in line for line in read.lines)


@both
@pytest.mark.parametrize("fault", ["repeated_cursor", "null_cursor", "bucket_repeated"])
def test_pages_that_shift_are_read_again(read: Any, sandbox: Sandbox, provider: str, fault: str) -> None:
    scripted = sandbox.state.faults.put(fault, provider=provider, page=2)
    exact(sandbox, provider, read(provider, DAYS, page_days=1, **ONLY[provider]))
    assert scripted.hits == 1


@both
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("repeated_cursor", "came twice"),
        ("null_cursor", "has_more is true and next_page is missing"),
        ("bucket_repeated", "came twice"),
    ],
)
def test_pages_that_keep_shifting_are_handed_back(
    read: Any, sandbox: Sandbox, provider: str, fault: str, said: str
) -> None:
    sandbox.state.faults.put(fault, count=99, provider=provider)
    with pytest.raises(TransientError, match=said):
        read(provider, DAYS, page_days=1, **ONLY[provider])
    assert read.calls < 15


@both
def test_a_lost_bucket_is_asked_for_alone(read: Any, sandbox: Sandbox, provider: str) -> None:
    scripted = sandbox.state.faults.put("bucket_skipped", provider=provider)
    exact(sandbox, provider, read(provider, DAYS, page_days=2, **ONLY[provider]))
    assert scripted.hits == 1
    assert ["1"] in [request.values("limit") for request in sandbox.state.seen.all(provider=provider)]


@both
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("negative_count", "Expected `int` >= 0"),
        ("string_count", "Expected `int`, got `str`"),
        ("missing_field", "missing required field"),
    ],
)
def test_a_broken_row_is_named_and_not_asked_for_again(
    read: Any, sandbox: Sandbox, provider: str, fault: str, said: str
) -> None:
    sandbox.state.faults.put(fault, count=99, provider=provider)
    with pytest.raises(DataError) as caught:
        read(provider, DAYS, **ONLY[provider])
    message = caught.value.message
    assert message.startswith(f"Credential cred_acme: {provider} {PATHS[provider]}: ")
    assert said in message
    assert (caught.value.field or "").startswith("$.data[")
    assert read.waits == []


@both
def test_a_revoked_key_ends_it_without_another_call(read: Any, sandbox: Sandbox, provider: str) -> None:
    sandbox.state.faults.put("revoked_key", after=1, provider=provider)
    with pytest.raises(CredentialError, match=r"Credential cred_acme: .*HTTP 401") as caught:
        read(provider, DAYS, page_days=1, **ONLY[provider])
    assert read.waits == []
    assert read.calls == 2
    assert "admin-sandbox" not in str(caught.value) + "".join(read.lines)


def test_after_a_revoked_key_the_other_reports_are_not_asked(read: Any, sandbox: Sandbox) -> None:
    sandbox.state.faults.put("revoked_key", provider="openai")
    with pytest.raises(CredentialError):
        read("openai", DAYS, concurrency=1)
    assert read.calls == 1


@both
def test_a_redirect_is_refused(read: Any, sandbox: Sandbox, provider: str) -> None:
    sandbox.state.faults.put("redirect", provider=provider)
    with pytest.raises(ConfigurationError, match=r"redirects to elsewhere\.invalid"):
        read(provider, DAYS, **ONLY[provider])
    assert read.calls == 1


def test_one_failing_credential_fails_the_unit_and_is_named(read: Any, sandbox: Sandbox) -> None:
    sandbox.state.faults.put("revoked_key", org="globex", provider="anthropic")
    with pytest.raises(CredentialError, match="Credential cred_globex"):
        read("anthropic", DAYS, orgs=["acme", "globex"])

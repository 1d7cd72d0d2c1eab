from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from engine.errors import (
    AuditError,
    ConfigurationError,
    CredentialError,
    InternalError,
    MantaError,
    NotFoundError,
    TransientError,
    UsageError,
)
from serve.cli import output


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("1234.565", "$1,234.56"),
        ("0.000000001", "<$0.01"),
        ("-0.004", "<$0.01"),
        ("0", "$0.00"),
        ("-1234.5", "-$1,234.50"),
        ("99999999999999999999.99", "$99,999,999,999,999,999,999.99"),
    ],
)
def test_money(amount: str, shown: str) -> None:
    assert output.money(Decimal(amount)) == shown


def test_another_currency_is_named() -> None:
    assert output.money(Decimal("12.5"), "EUR") == "12.50 EUR"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("1.500000000"), "1.5"),
        (Decimal("0E-9"), "0"),
        (Decimal("1E+3"), "1000"),
        (Decimal("100.000000000"), "100"),
        (Decimal("0.000000001"), "0.000000001"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00"),
        (b"\x00\xff", "AP8="),
        (float("nan"), "nan"),
        ([Decimal("1.10")], ["1.1"]),
        ({"a": date(2026, 1, 2)}, {"a": "2026-01-02"}),
        (None, None),
        (7, 7),
    ],
)
def test_json_keeps_what_numbers_would_lose(value: Any, text: Any) -> None:
    assert output.jsonable(value) == text


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (61, "1:01"), (3661, "1:01:01")]
)
def test_duration(seconds: float, shown: str) -> None:
    assert output.duration(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (999, "999"), (13_487_635, "13.5M"), (2_100, "2.1k"), (5 * 10**12, "5000.0G")],
)
def test_short(number: int, shown: str) -> None:
    assert output.short(number) == shown


def test_size() -> None:
    assert [output.size(n) for n in (0, 999, 1500, 8_000_000)] == ["0 B", "999 B", "1.5 kB", "8.0 MB"]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (UsageError, 2),
        (NotFoundError, 2),
        (ConfigurationError, 1),
        (CredentialError, 1),
        (AuditError, 1),
        (TransientError, 1),
        (InternalError, 1),
    ],
)
def test_exit_codes(kind: type[MantaError], code: int) -> None:
    assert output.exit_code(kind("x")) == code


def test_an_error_is_two_lines_or_one_object() -> None:
    text = Console(file=io.StringIO(), width=20)
    error = UsageError("No [bold]such[/bold] thing in a rather long line.", fix="Do this.", field="f")
    output.say_error(text, error, as_json=False)
    assert text.file.getvalue() == (  # type: ignore[attr-defined]
        "manta: No [bold]such[/bold] thing in a rather long line.\n  fix: Do this.\n"
    )
    as_json = Console(file=io.StringIO(), width=20)
    output.say_error(as_json, error, as_json=True)
    said = json.loads(as_json.file.getvalue())  # type: ignore[attr-defined]
    assert said == {"code": "usage", "message": error.message, "fix": "Do this.", "field": "f"}

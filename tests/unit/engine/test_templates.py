"""Templates give typed values, in a sandbox, and say what is wrong with them."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from engine.errors import ConfigurationError
from engine.templates import render, sample_variables

VALUES = sample_variables(
    {"n": 3, "rate": Decimal("0.0000000125"), "digits": "007", "names": ["a", "b"], "none": None, "on": True}
)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("plain", "plain"),
        ("{{ date }}", date(2025, 12, 8)),
        ("  {{ start_date }} ", date(2025, 12, 1)),
        ("{{ variables.n }}", 3),
        ("{{ variables.n + 1 }}", 4),
        ("{{ variables.rate }}", Decimal("0.0000000125")),
        ("{{ variables.digits }}", "007"),
        ("{{ variables.names }}", ["a", "b"]),
        ("{{ variables.names | map('upper') | list }}", ["A", "B"]),
        ("{{ variables.none }}", None),
        ("{{ variables.on }}", True),
        ("{{ {'day': date} }}", {"day": date(2025, 12, 8)}),
        ("{{ org_slug }}-{{ date }}", "acme_corp-2025-12-08"),
        ("{{ org_slug }}{{ variables.n }}", "acme_corp3"),
        ("until {{ end_date }}", "until 2025-12-08"),
        ("{% if variables.on %}yes{% endif %}", "yes"),
        ("{{ '}}' }}", "}}"),
        (["{{ variables.n }}", {"k": "{{ date }}"}], [3, {"k": date(2025, 12, 8)}]),
        ({"a": {"b": ("{{ run_id }}",)}}, {"a": {"b": ["run_sample"]}}),
        (7, 7),
        ("{not a template}", "{not a template}"),
    ],
)
def test_render(template: Any, value: Any) -> None:
    rendered = render(template, VALUES)
    assert rendered == value
    assert type(rendered) is type(value)


@pytest.mark.parametrize(
    ("template", "message", "fix"),
    [
        ("{{ start_dat }}", "'start_dat' is undefined", "start_date?"),
        ("{{ x }} and text", "'x' is undefined", "variables.n"),
        ("{{ variables.missing }}", "missing", "variables.n"),
        ("{{ variables.items }}", "items", "variables.n"),
        ("{{ date.__class__ }}", "unsafe", ""),
        ("{{ ''.__class__.__mro__ }}", "unsafe", ""),
        ("{{ variables.names.append('c') }}", "unsafe", "Correct"),
        ("{{ variables.names | map('upper') }}", "gives a generator", "| list"),
        ("{{ date.isoformat }}", "gives a builtin_function_or_method", ""),
        ("{{ range(10 ** 9) | list }}", "OverflowError", "Correct"),
        ("{{ unclosed", "TemplateSyntaxError", "Correct"),
        ("{{ 1 / 0 }}", "ZeroDivisionError", "Correct"),
        ("{{ variables.n + 'a' }}", "TypeError", "Correct"),
    ],
)
def test_refusals(template: str, message: str, fix: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        render(template, VALUES)
    assert repr(template) in refused.value.message
    assert message in refused.value.message
    assert fix in refused.value.fix


def test_a_value_is_never_read_as_a_template() -> None:
    assert render("{{ variables.x }}", sample_variables({"x": "{{ run_id }}"})) == "{{ run_id }}"

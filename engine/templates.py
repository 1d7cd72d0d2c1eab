"""Jinja2 templates in step configs, rendered to typed values: "{{ date }}" alone gives a date, not text."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined, UndefinedError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.errors import ConfigurationError

PLAIN = (str, bool, int, float, Decimal, date, datetime, type(None))
SAMPLE_DAY = date(2025, 12, 8)


class _Sandbox(ImmutableSandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        # `variables.items` means the variable of this name, never the method of the dictionary behind it.
        if isinstance(obj, Mapping):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)


@cache
def _sandbox() -> _Sandbox:
    return _Sandbox(undefined=StrictUndefined)


def sample_variables(variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every name a template may use, with a value of its type: what `manta validate` renders with."""
    return {
        "org_slug": "acme_corp",
        "date": SAMPLE_DAY,
        "start_date": SAMPLE_DAY.replace(day=1),
        "end_date": SAMPLE_DAY,
        "run_id": "run_sample",
        "dataset": "acme_corp_local",
        "variables": dict(variables or {}),
    }


def render(value: Any, variables: Mapping[str, Any]) -> Any:
    """Render every string in a nested value; keys stay as they are.

    A string that is one `{{ expression }}` gives the expression's own value (text, number, Decimal, date,
    list, mapping, None); any other gives text, dates in ISO form. Never use one to build SQL from values:
    pass query parameters. Raises ConfigurationError naming the template.
    """
    if isinstance(value, str):
        return _text(value, variables)
    if isinstance(value, Mapping):
        return {key: render(item, variables) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [render(item, variables) for item in value]
    return value


def _text(template: str, variables: Mapping[str, Any]) -> Any:
    if "{" not in template:
        return template
    sandbox = _sandbox()
    try:
        expression = _lone_expression(template)
        if expression is None:
            return sandbox.from_string(template).render(variables)
        compiled = sandbox.compile_expression(expression, undefined_to_none=False)
        return _plain(template, compiled(**variables))
    except UndefinedError as error:
        raise ConfigurationError(
            f"{template!r}: {error.message}.", fix=_names(template, variables)
        ) from error
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise ConfigurationError(
            f"{template!r}: {type(error).__name__}: {str(error).rstrip('.')}.", fix="Correct the template."
        ) from error


def _lone_expression(template: str) -> str | None:
    """The expression of a string that is nothing but one `{{ ... }}`."""
    tokens = list(_sandbox().lex(template.strip()))
    kinds = [kind for _, kind, _ in tokens]
    alone = kinds[:1] == ["variable_begin"] and kinds[-1:] == ["variable_end"]
    if not alone or kinds.count("variable_begin") > 1:
        return None
    return "".join(text for _, _, text in tokens[1:-1]).strip()


def _plain(template: str, value: Any) -> Any:
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()
    if isinstance(value, list | tuple):
        return [_plain(template, item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(template, item) for key, item in value.items()}
    if not isinstance(value, PLAIN):
        raise ConfigurationError(
            f"{template!r} gives a {type(value).__name__}, which is no config value.",
            fix="Let it give text, a number, a date, a list or a mapping (a generator needs `| list`).",
        )
    return value


def _names(template: str, variables: Mapping[str, Any]) -> str:
    nested = variables.get("variables")
    inner = [f"variables.{name}" for name in nested] if isinstance(nested, Mapping) else []
    known = [name for name in variables if name != "variables"] + inner
    used = meta.find_undeclared_variables(_sandbox().parse(template))
    near = [match for name in sorted(used) for match in difflib.get_close_matches(name, known, n=1)]
    hint = [name for name in near if name not in used]
    return f"Did you mean {hint[0]}?" if hint else f"Known are {', '.join(known)}."

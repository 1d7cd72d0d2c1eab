"""One module per `ps_type`: `openai.usage` is processors/openai/usage.py. Nothing is registered anywhere."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from pathlib import Path

from engine.errors import ConfigurationError, NotFoundError
from engine.types import Processor

PS_TYPE = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")


def resolve(ps_type: str) -> Processor:
    """The processor of a `ps_type`.

    Raises NotFoundError naming the file to create, and ConfigurationError for a module that breaks on import
    or does not keep the contract (`get_engine()` whose result has `async def execute`).
    """
    if not PS_TYPE.fullmatch(ps_type):
        raise ConfigurationError(
            f"ps_type {ps_type!r} is no dot notation.", fix="Write provider.domain, such as openai.usage."
        )
    file = f"processors/{ps_type.replace('.', '/')}.py"
    name = f"processors.{ps_type}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise _broken(file, error) from error
        near = difflib.get_close_matches(ps_type, known(), n=1)
        hint = f"Write {near[0]}, or create" if near else "Create"
        raise NotFoundError(
            f"There is no processor {ps_type!r}.",
            fix=f"{hint} {file} with a class that has `async def execute(self, step_config, context)` and a "
            "function get_engine() that returns an instance.",
        ) from error
    except (ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError) as error:
        raise _broken(file, error) from error
    if not callable(make := getattr(module, "get_engine", None)):
        raise ConfigurationError(
            f"{file} has no get_engine().", fix="Add a function that returns an instance."
        )
    engine: Processor = make()
    if not inspect.iscoroutinefunction(getattr(engine, "execute", None)):
        raise ConfigurationError(
            f"{file}: what get_engine() returns has no `async def execute`.",
            fix="Return an instance of a class with async def execute(self, step_config, context).",
        )
    return engine


def known() -> list[str]:
    """Every `ps_type` that has a file, sorted."""
    here = Path(__file__).parent
    return sorted(
        f"{path.parent.name}.{path.stem}" for path in here.glob("*/*.py") if path.stem != "__init__"
    )


def _broken(file: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"{file} cannot be imported: {type(error).__name__}: {error}.", fix="Correct the module."
    )

"""The reference of every key a config may have, written from the models that read it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAliasType, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from engine import catalog, plans, providers, schemas, settings
from processors import known, resolve

#: Follow from the file's place, from another key of the same entry, or from nothing that is written.
NOT_WRITTEN = {("Pipeline", "path"), ("Provider", "name"), ("Settings", "warnings")}
_ENTRY = re.compile(r"((?:^[ ]+#: .*\n)+)^[ ]+(\w+): ", re.MULTILINE)
_PLAIN = {"str": "text", "int": "number", "bool": "true or false", "Decimal": "decimal", "date": "day"}


def markdown() -> str:
    """The whole page; `docs/config-reference.md` is this, and a test compares."""
    lines = [
        "# Config reference",
        "",
        "Written by `manta reference` from the models that read the files; [configs.md](configs.md) tells",
        "what they are for. Unknown keys are refused everywhere.",
    ]
    shown: set[str] = set()
    for title, roots in (
        ("Settings", [settings.Settings]),
        ("Pipelines", [catalog.Pipeline]),
        ("Providers", [providers.Provider]),
        ("Plans", [plans.Plans]),
        ("Schemas", [schemas.Schema]),
    ):
        lines += ["", f"## {title}", *_sections(roots, shown)]
    lines += ["", "## Steps", "", "`config` of a step, by its `ps_type`."]
    for ps_type in known():
        model = getattr(resolve(ps_type), "config_model", None)
        lines += ["", f"### `{ps_type}`", ""]
        if model is None:
            lines.append("Takes no keys.")
        elif model.__name__ in shown:
            lines.append(f"Takes the keys of {_link(model)}.")
        else:
            lines += [*_table(model), *_sections(_nested(model), shown)]
            shown.add(model.__name__)
    return "\n".join(lines) + "\n"


def _sections(models: Iterable[type], shown: set[str]) -> Iterator[str]:
    """A section for each model and for each that its keys hold, once."""
    for model in models:
        if model.__name__ in shown:
            continue
        shown.add(model.__name__)
        summary = (inspect.getdoc(model) or "").split("\n\n")[0].replace("\n", " ")
        yield from ("", f"### `{model.__name__}`", "", summary, "", *_table(model))
        yield from _sections(_nested(model), shown)


def _table(model: type) -> Iterator[str]:
    meanings = _meanings(model)
    if not (entries := list(_entries(model))):
        yield "Takes no keys."
        return
    yield from ("| key | value | default | meaning |", "|---|---|---|---|")
    for name, kind, default in entries:
        shown = settings.variable(name) if model is settings.Settings else name
        yield f"| `{shown}` | {_kind(kind)} | {default} | {meanings.get(name, '')} |"


def _entries(model: type) -> Iterator[tuple[str, Any, str]]:
    """Key, annotation and default of each key that is written."""
    if is_dataclass(model):
        for field in fields(model):
            yield field.name, field.type, "required" if field.default is MISSING else f"`{field.default}`"
        return
    found: Mapping[str, FieldInfo] = model.model_fields  # type: ignore[attr-defined]
    for name, info in found.items():
        if (model.__name__, name) not in NOT_WRITTEN:
            yield info.alias or name, info.annotation, _default(info)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    if info.default_factory is not None:
        # A factory that reads other keys is told in words.
        return "none" if info.default_factory in (dict, tuple, list) else "see there"
    value = info.default
    if value in (None, (), {}, []):
        return "none"
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def _meanings(model: type) -> dict[str, str]:
    """The `#:` comments above the keys, those of the classes it builds on included."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if owner.__module__.startswith(("engine", "processors")):
            for comment, name in _ENTRY.findall(inspect.getsource(owner)):
                words = " ".join(line.strip().removeprefix("#:").strip() for line in comment.splitlines())
                found[name.rstrip("_")] = words.replace("|", "\\|")
    return found


def _nested(model: type) -> list[type]:
    return [found for _, kind, _ in _entries(model) for found in _models(kind)]


def _models(kind: Any) -> Iterator[type]:
    if isinstance(kind, TypeAliasType):
        kind = kind.__value__
    if isinstance(kind, type) and (issubclass(kind, BaseModel) or is_dataclass(kind)):
        yield kind
    for part in get_args(kind):
        yield from _models(part)


def _link(model: type) -> str:
    return f"[`{model.__name__}`](#{model.__name__.lower()})"


def _kind(kind: Any) -> str:
    """A type in words."""
    if isinstance(kind, TypeAliasType):
        kind = kind.__value__
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _kind(parts[0])
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in parts)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_kind(part) for part in parts if part is not NoneType))
    if origin in (tuple, list, frozenset, set):
        return f"list of {_kind(parts[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return f"mapping to {_kind(parts[1])}"
    if isinstance(kind, type) and (issubclass(kind, BaseModel) or is_dataclass(kind)):
        return _link(kind)
    if kind is SecretStr:
        return "secret text"
    name = getattr(kind, "__name__", str(kind))
    return _PLAIN.get(name, "any" if kind is Any else name.lower())

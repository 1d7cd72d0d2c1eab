"""What `manta validate` says: every config loaded, every processor found, every template rendered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from engine.catalog import NOT_PIPELINES, PRICE_FILE, Pipeline, pipeline_files, read_catalog
from engine.errors import ConfigurationError
from engine.located import At, Document, MisplacedError, Problem, parse, read
from engine.migrations.files import read_migrations
from engine.prices.files import OverrideFile, PriceFile
from engine.procedures.files import read_procedures
from engine.templates import render, sample_variables

__all__ = ["Problem", "slug_problem", "validate"]

SNAKE = re.compile(r"[a-z][a-z0-9_]*")
DOTTED = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
SLUG = re.compile(r"[a-z][a-z0-9_]{2,49}")
SNAKE_FIX = "use snake_case: lowercase letters, digits and _"
#: Words in the run API's own paths, where a pipeline of that name could not be told from them.
NO_PIPELINE, NO_PROVIDER = "plan", "runs"


def validate(root: Path, *, resolve: Callable[[str], object]) -> list[Problem]:
    """Every problem of configs/ under `root`, by file and line; none when all is well.

    `resolve` answers the processor of a `ps_type` or raises ConfigurationError (`processors.resolve`). A
    processor whose engine has a pydantic model `config_model` gets its rendered config checked against it.
    """
    reading = read_catalog(root)
    problems = list(reading.problems)
    for path, pipeline in reading.catalog.pipelines.items():
        document = reading.documents[path]
        problems += _naming(pipeline, document)
        for n, step in enumerate(pipeline.steps):
            at: At = ("steps", n)
            engine: object = None
            try:
                engine = resolve(step.ps_type)
            except ConfigurationError as error:
                problems.append(_problem(document, (*at, "ps_type"), error))
            rendered = list(_rendered(document, (*at, "config"), step.config, pipeline))
            problems += rendered
            if not rendered:
                found = list(_config(engine, step.config, pipeline, document, (*at, "config")))
                problems += found or _beyond(engine, step.config, pipeline, document, (*at, "config"), root)
    problems += [*read_procedures(root).problems, *read_migrations(root).problems]
    return sorted(problems + list(_price_problems(root)))


def slug_problem(slug: str, root: Path) -> str | None:
    """Why an organisation may not have this slug, or None."""
    if not SLUG.fullmatch(slug):
        return f"{slug!r} is no slug: 3 to 50 lowercase letters, digits or _, beginning with a letter"
    folder = root / "configs" / slug
    if slug in NOT_PIPELINES or any(path.is_relative_to(folder) for path in pipeline_files(root)):
        return f"{slug!r} is the name of a folder of configs, configs/{slug}"
    return None


def _price_problems(root: Path) -> Iterator[Problem]:
    configs = root / "configs"
    kinds: dict[Path, type[BaseModel]] = dict.fromkeys(configs.glob(f"*/{PRICE_FILE}"), OverrideFile)
    kinds |= dict.fromkeys((configs / "system" / "prices").glob("*.yml"), PriceFile)
    for path, kind in kinds.items():
        try:
            yield from parse(kind, read(path, root=root))[1]
        except MisplacedError as error:
            yield from error.problems


def _naming(pipeline: Pipeline, document: Document) -> Iterator[Problem]:
    parts = pipeline.path.split("/")
    if len(parts) not in (2, 3):
        fix = "move it to configs/{provider}/{pipeline}.yml or configs/{provider}/{domain}/{pipeline}.yml"
        yield document.problem((), f"lies {len(parts)} levels deep", fix)
    for part in parts:
        if not SNAKE.fullmatch(part):
            yield document.problem((), f"{part!r} in its path is not snake_case", SNAKE_FIX)
    yield from _taken(parts, document)
    for name in pipeline.variables:
        if not SNAKE.fullmatch(name):
            yield document.problem(("variables", name), f"{name!r} is not snake_case", SNAKE_FIX)
    for n, step in enumerate(pipeline.steps):
        if not SNAKE.fullmatch(step.step_id):
            yield document.problem(("steps", n, "step_id"), f"{step.step_id!r} is not snake_case", SNAKE_FIX)
        if not DOTTED.fullmatch(step.ps_type):
            fix = "write provider.domain, such as openai.usage"
            yield document.problem(("steps", n, "ps_type"), f"{step.ps_type!r} is no dot notation", fix)
    for n, output in enumerate(pipeline.outputs):
        if not SNAKE.fullmatch(output.table):
            yield document.problem(("outputs", n, "table"), f"{output.table!r} is not snake_case", SNAKE_FIX)


def _taken(parts: list[str], document: Document) -> Iterator[Problem]:
    """Names that the run API's paths have already."""
    if parts[-1] == NO_PIPELINE:
        yield document.problem((), f"is called {NO_PIPELINE!r}, which is a path of the run API", "rename it")
    if parts[0] == NO_PROVIDER:
        said = f"lies in the folder {NO_PROVIDER!r}, which is a path of the run API"
        yield document.problem((), said, "rename the folder")


def _rendered(document: Document, at: At, value: Any, pipeline: Pipeline) -> Iterator[Problem]:
    """The problems of rendering each template on its own, so that each has its own line."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _rendered(document, (*at, key), item, pipeline)
    elif isinstance(value, list):
        for n, item in enumerate(value):
            yield from _rendered(document, (*at, n), item, pipeline)
    elif isinstance(value, str):
        try:
            render(value, sample_variables(pipeline.variables))
        except ConfigurationError as error:
            yield _problem(document, at, error)


def _config(
    engine: object, config: dict[str, Any], pipeline: Pipeline, document: Document, at: At
) -> Iterator[Problem]:
    model = getattr(engine, "config_model", None)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return
    try:
        model.model_validate(render(config, sample_variables(pipeline.variables)))
    except ValidationError as error:
        yield from document.problems(error, at)


def _beyond(
    engine: object, config: dict[str, Any], pipeline: Pipeline, document: Document, at: At, root: Path
) -> Iterator[Problem]:
    """What a processor itself says of a config: `config_problems(config, root)` yields (at, problem, fix)."""
    ask = getattr(engine, "config_problems", None)
    if callable(ask):
        for place, problem, fix in ask(render(config, sample_variables(pipeline.variables)), root):
            yield document.problem((*at, *place), problem, fix)


def _problem(document: Document, at: At, error: ConfigurationError) -> Problem:
    fix = error.fix.rstrip(".") or "correct it"
    return document.problem(at, error.message.rstrip("."), fix[:1].lower() + fix[1:])

"""Everything under configs/ as frozen models: pipelines, providers, table schemas; problems name the line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.checks import columns_of
from engine.errors import ConfigurationError, NotFoundError
from engine.located import Document, MisplacedError, Problem, parse, read
from engine.pipelines import Output, PartitionRule, Pipeline, Resources, Retry, Step
from engine.plans import Limits, Plans
from engine.providers import Provider
from engine.schemas import Schema

__all__ = [
    "Catalog",
    "Output",
    "PartitionRule",
    "Pipeline",
    "Provider",
    "Reading",
    "Resources",
    "Retry",
    "Step",
    "read_catalog",
]

# Folders of configs/ that hold no pipelines.
NOT_PIPELINES = ("system", "notifications")
PRICE_FILE = "prices.yml"


# Stands in while plans.yml has problems, which are reported: nothing runs on it.
NO_PLANS = Plans(default="NONE", plans={"NONE": Limits(daily=1, monthly=1, concurrent=1)})


@dataclass(frozen=True)
class Catalog:
    """What is configured: pipelines by path, providers by name, schemas by table, plans."""

    pipelines: Mapping[str, Pipeline]
    providers: Mapping[str, Provider]
    schemas: Mapping[str, Schema]
    plans: Plans = NO_PLANS

    @classmethod
    def load(cls, root: Path) -> Catalog:
        """Read configs/ under `root`.

        Raises ConfigurationError with the first problem, as `file:line: field: problem`.
        """
        reading = read_catalog(root)
        if reading.problems:
            first = reading.problems[0]
            more = len(reading.problems) - 1
            raise ConfigurationError(
                f"{first.file}:{first.line}: {first.field or 'file'}: {first.problem}"
                + (f" (and {more} more)." if more else "."),
                fix=f"{first.fix[:1].upper()}{first.fix[1:]}; `manta validate` lists every problem.",
                field=first.field,
            )
        return reading.catalog

    def pipeline(self, path: str) -> Pipeline:
        """The pipeline at a path; NotFoundError with the nearest one otherwise."""
        if path in self.pipelines:
            return self.pipelines[path]
        near = difflib.get_close_matches(path, self.pipelines, n=1)
        raise NotFoundError(
            f"There is no pipeline {path!r}.",
            fix=f"Did you mean {near[0]}?"
            if near
            else f"Known are {', '.join(sorted(self.pipelines)) or 'none'}.",
        )


@dataclass(frozen=True)
class Reading:
    """A catalog of what could be read, the file behind each pipeline, and all that is wrong."""

    catalog: Catalog
    documents: Mapping[str, Document]
    problems: tuple[Problem, ...]


def pipeline_files(root: Path) -> list[Path]:
    """Every YAML file under configs/ that should be a pipeline, sorted."""
    configs = root / "configs"
    found = [path for ending in ("*.yml", "*.yaml") for path in configs.rglob(ending)]
    places = {path: path.relative_to(configs).parts for path in found}
    return sorted(
        path for path, parts in places.items() if parts[0] not in NOT_PIPELINES and not _prices(parts)
    )


def _prices(parts: tuple[str, ...]) -> bool:
    """True for configs/{org_slug}/prices.yml, an organisation's negotiated rates."""
    return parts[1:] == (PRICE_FILE,)


def read_catalog(root: Path) -> Reading:
    """Read every config file and check what can be checked without importing a processor."""
    problems: list[Problem] = []
    schemas = _schemas(root, problems)
    providers = _providers(root, problems)
    plans = _plans(root, problems)
    pipelines: dict[str, Pipeline] = {}
    documents: dict[str, Document] = {}
    for path in pipeline_files(root):
        address = path.relative_to(root / "configs").with_suffix("").as_posix()
        document = _read(path, root, problems)
        if document is None:
            continue
        if path.suffix != ".yml":
            problems.append(document.problem((), "ends in .yaml", "rename it to .yml"))
        pipeline, found = parse(Pipeline, document, given={"path": address})
        problems += found
        if pipeline is not None:
            pipelines[address], documents[address] = pipeline, document
            problems += _references(pipeline, document, providers, schemas)
    problems += _owners(pipelines, documents)
    return Reading(Catalog(pipelines, providers, schemas, plans), documents, tuple(problems))


def _read(path: Path, root: Path, problems: list[Problem]) -> Document | None:
    try:
        return read(path, root=root)
    except MisplacedError as error:
        problems.extend(error.problems)
        return None


def _schemas(root: Path, problems: list[Problem]) -> dict[str, Schema]:
    schemas: dict[str, Schema] = {}
    documents: dict[str, Document] = {}
    for path in sorted((root / "configs" / "system" / "schemas").glob("*.yml")):
        if (document := _read(path, root, problems)) is None:
            continue
        schema, found = parse(Schema, document)
        problems += found
        if schema is not None and schema.table != path.stem:
            problems.append(
                document.problem(("table",), f"is {schema.table!r}", f"name it {path.stem}, as the file")
            )
        elif schema is not None:
            schemas[schema.table], documents[schema.table] = schema, document
    for schema in schemas.values():
        tables = [s.table for s in schemas.values() if s.view is None and s.scope == schema.scope]
        problems += [
            documents[schema.table].problem(
                ("view",), f"{name!r} is no {schema.scope} table", _nearest(name, tables)
            )
            for name in sorted(schema.sources - set(tables))
        ]
    return schemas


def _providers(root: Path, problems: list[Problem]) -> dict[str, Provider]:
    providers: dict[str, Provider] = {}
    path = root / "configs" / "system" / "providers.yml"
    if not path.exists():
        problems.append(
            Problem("configs/system/providers.yml", 1, "", "is missing", "add it; docs/configs.md shows how")
        )
        return providers
    if (document := _read(path, root, problems)) is None:
        return providers
    for name in document.value:
        provider, found = parse(Provider, document, at=(name,), given={"name": name})
        problems += found
        if provider is not None:
            providers[name] = provider
    return providers


def _plans(root: Path, problems: list[Problem]) -> Plans:
    path = root / "configs" / "system" / "plans.yml"
    if not path.exists():
        problems.append(
            Problem("configs/system/plans.yml", 1, "", "is missing", "add it; docs/configs.md shows how")
        )
        return NO_PLANS
    if (document := _read(path, root, problems)) is None:
        return NO_PLANS
    plans, found = parse(Plans, document)
    problems += found
    return plans or NO_PLANS


def _references(
    pipeline: Pipeline, document: Document, providers: Mapping[str, Provider], schemas: Mapping[str, Schema]
) -> Iterator[Problem]:
    """What a pipeline names outside its own file: provider, schemas and their columns."""
    if pipeline.provider not in providers:
        yield document.problem(
            ("provider",),
            f"there is no provider {pipeline.provider!r}",
            _nearest(pipeline.provider, providers),
        )
    for n, output in enumerate(pipeline.outputs):
        schema = schemas.get(output.schema_)
        if schema is None:
            fix = f"add configs/system/schemas/{output.schema_}.yml"
            field = "schema" if ("outputs", n, "schema") in document.lines else "table"
            yield document.problem(("outputs", n, field), f"there is no schema {output.schema_!r}", fix)
            continue
        if schema.scope != "tenant" or schema.partition is None:
            fix = "publish to a tenant table with a partition column"
            yield document.problem(("outputs", n), f"{schema.table} cannot be published by day", fix)
        yield from _check_columns(document, n, output, [column.name for column in schema.columns])


def _check_columns(document: Document, n: int, output: Output, columns: list[str]) -> Iterator[Problem]:
    for m, check in enumerate(output.checks):
        for name in columns_of(check):
            if name not in columns:
                at = document.place(("outputs", n, "checks", m), name)
                yield document.problem(at, f"{output.table} has no column {name!r}", _nearest(name, columns))


def _owners(pipelines: Mapping[str, Pipeline], documents: Mapping[str, Document]) -> Iterator[Problem]:
    """One table, one owner: else a partition could not be replaced whole."""
    owners: dict[str, str] = {}
    for path, pipeline in pipelines.items():
        for n, output in enumerate(pipeline.outputs):
            owner = owners.setdefault(output.table, f"{path} outputs[{n}]")
            if owner != f"{path} outputs[{n}]":
                fix = "let one pipeline write it, and join in a view"
                yield documents[path].problem(
                    ("outputs", n, "table"), f"{output.table} is already written by {owner.split()[0]}", fix
                )


def _nearest(name: str, known: Mapping[str, object] | list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"use one of {', '.join(sorted(known))}"

"""The catalog: what can be run. The same for everybody, and no secret."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request

from engine.catalog import Catalog, Pipeline
from engine.validate import NO_PROVIDER
from serve.answers import PipelineList, PipelineOut
from serve.auth import Visit, org_or_root
from serve.deps import DoorsDep
from serve.openapi import problems
from serve.problems import methods_of
from serve.routers.runs import Part


async def _of_a_provider(request: Request) -> None:
    """Raise HTTPException for the path of a run, which has the form of a pipeline's."""
    if request.path_params.get("provider") == NO_PROVIDER:
        known = request.method in methods_of(request)
        raise HTTPException(HTTPStatus.NOT_FOUND if known else HTTPStatus.METHOD_NOT_ALLOWED)


router = APIRouter(prefix="/api/v1/pipelines", tags=["pipelines"], dependencies=[Depends(_of_a_provider)])
Reader = Annotated[Visit, Depends(org_or_root("read", "pipeline.read", "pipeline"))]


@router.get("", response_model=PipelineList, responses=problems())
async def list_pipelines(visit: Reader, doors: DoorsDep) -> dict[str, Any]:
    """List every pipeline with its steps, outputs and variables."""
    catalog = doors.work.catalog
    return {"pipelines": [facts(catalog.pipelines[path], catalog) for path in sorted(catalog.pipelines)]}


@router.get("/{provider}/{domain}/{pipeline}", response_model=PipelineOut, responses=problems(404))
async def show_domain_pipeline(
    visit: Reader, doors: DoorsDep, provider: Part, domain: Part, pipeline: Part
) -> dict[str, Any]:
    """Show a pipeline."""
    return facts(doors.work.catalog.pipeline(f"{provider}/{domain}/{pipeline}"), doors.work.catalog)


@router.get("/{provider}/{pipeline}", response_model=PipelineOut, responses=problems(404))
async def show_pipeline(visit: Reader, doors: DoorsDep, provider: Part, pipeline: Part) -> dict[str, Any]:
    """Show a pipeline without a domain."""
    return facts(doors.work.catalog.pipeline(f"{provider}/{pipeline}"), doors.work.catalog)


def facts(pipeline: Pipeline, catalog: Catalog) -> dict[str, Any]:
    """A pipeline as JSON."""
    return {
        "pipeline": pipeline.path,
        "name": pipeline.name,
        "description": pipeline.description,
        "provider": pipeline.provider,
        "variables": pipeline.variables,
        "steps": [
            {
                "step_id": step.step_id,
                "ps_type": step.ps_type,
                "depends_on": list(step.depends_on),
                "timeout_seconds": step.timeout_seconds,
            }
            for step in pipeline.ordered_steps()
        ],
        "outputs": [
            {
                "table": output.table,
                "description": catalog.schemas[output.schema_].description,
                "checks": [check.kind for check in output.checks],
            }
            for output in pipeline.outputs
        ],
    }

"""Routes for liveness, readiness, metrics and the served models."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path as PathParameter
from starlette.requests import Request
from starlette.responses import Response

from prunepool.api import examples, schemas
from prunepool.api.context import context_of
from prunepool.api.describe import example_response, problem_responses
from prunepool.api.exposition import Exposition
from prunepool.api.json_documents import json_response, model_json, model_summary_json
from prunepool.api.routes import Router

router = Router()


@router.get(
    "/healthz",
    tags=["health"],
    summary="Alive",
    responses={
        200: example_response(schemas.Health, examples.HEALTH, "Alive."),
        503: example_response(
            schemas.Health, examples.BROKEN, "Only another process can serve; this one ends."
        ),
        **problem_responses(),
    },
)
async def healthz(request: Request) -> Response:
    """Answer whether the process can still come to serve; `/readyz` says whether it can serve now."""
    alive = not context_of(request).drain.broken
    return json_response({"alive": alive}, 200 if alive else 503)


@router.get(
    "/readyz",
    tags=["health"],
    summary="Ready",
    responses={
        200: example_response(schemas.Readiness, examples.READY, "Ready."),
        503: example_response(schemas.Readiness, examples.NOT_READY, "Not now; `missing` says why."),
        **problem_responses(examples.UNEXPECTED),
    },
)
async def readyz(request: Request) -> Response:
    """Answer whether requests can be served, and if not, what is missing."""
    context = context_of(request)
    found = context.service.readiness()
    missing = list(found.missing)
    if context.drain.started and "draining" not in missing:
        missing.append("draining")
    ready = found.ready and not context.drain.started
    return json_response({"ready": ready, "missing": missing}, 200 if ready else 503)


@router.get(
    "/metrics",
    tags=["health"],
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {
            "content": {"text/plain": {"schema": {"type": "string"}, "example": examples.METRICS}},
            "description": "Every series.",
        },
        **problem_responses(examples.UNEXPECTED),
    },
)
async def metrics(request: Request) -> Response:
    """Expose every series in Prometheus' text format or OpenMetrics, as `Accept` asks."""
    exposition: Exposition = request.app.state.exposition
    text, content_type = await exposition.text(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": content_type})


@router.get(
    "/models",
    tags=["models"],
    summary="Served models",
    responses={
        200: example_response(schemas.Models, examples.MODELS, "All of them."),
        **problem_responses(examples.UNEXPECTED),
    },
)
async def models(request: Request) -> Response:
    """List the served models, without labels, plans and profiles, and those that could not be loaded."""
    service = context_of(request).service
    listed = [model_summary_json(info) for info in service.models()]
    failed = [{"name": name, "why": why} for name, why in service.readiness().failures.items()]
    return json_response({"default": service.default_model, "models": listed, "failed": failed})


@router.get(
    "/models/{name}",
    tags=["models"],
    summary="One model",
    responses={
        200: example_response(schemas.Model, examples.MODEL, "The model, its lists shortened."),
        **problem_responses(examples.NOT_FOUND, examples.UNEXPECTED),
    },
)
async def model(
    request: Request, name: Annotated[str, PathParameter(examples=["deit_tiny_imagenet1k"])]
) -> Response:
    """Describe a model in full: labels, input size, largest ratio, plans and profile."""
    return json_response(model_json(context_of(request).service.model(name)))

"""What every route needs: the engine, the settings, the limits. Made once, with the app."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from prunepool.api.body_memory import BodyMemoryBudget
from prunepool.api.drain import Drain
from prunepool.metrics import Metrics
from prunepool.serving.types import ModelControl, Service
from prunepool.settings import Settings


@dataclass(frozen=True, slots=True)
class AppContext:
    """The objects that the routes share; without `control`, callers cannot load or unload models."""

    service: Service
    settings: Settings
    metrics: Metrics
    drain: Drain
    body_memory: BodyMemoryBudget
    control: ModelControl | None = None


def context_of(request: Request) -> AppContext:
    """Return the context of the app that received a request."""
    found = request.app.state.context
    assert isinstance(found, AppContext)
    return found

"""What every route works with, handed over once when the app is made."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from prunepool.api.body_memory import BodyMemoryBudget
from prunepool.api.drain import Drain
from prunepool.metrics import Metrics
from prunepool.serving.types import Engine, ModelControl
from prunepool.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """The parts behind the routes; without `control` no caller may load or unload a model."""

    engine: Engine
    settings: Settings
    metrics: Metrics
    drain: Drain
    room: BodyMemoryBudget
    control: ModelControl | None = None


def services(request: Request) -> Services:
    """The parts behind the app that a request came to."""
    found = request.app.state.services
    assert isinstance(found, Services)
    return found

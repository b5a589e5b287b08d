"""An ingress replica: the routes as everywhere; decodes, validates and admits."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack

import ray
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from prunepool.access import Keyring, KeysFile
from prunepool.api.app import create_app
from prunepool.machine import tune_malloc
from prunepool.ray_app.identity import replica_logging
from prunepool.ray_app.metrics_aggregator import Collected, keep_hearing, keep_telling
from prunepool.server import factory
from prunepool.server.observability import create_metrics, tracing_to
from prunepool.settings import Settings
from prunepool.transport.ray import RayCoreClient

#: What Ray raises where a replica is gone, or was just going.
_LOST = (ray.exceptions.RayActorError, DeploymentUnavailableError)


class IngressReplica:
    """The routes, as everywhere; decodes and admits.

    Args:
        settings: everything about it.
        engines: a handle to :class:`~prunepool.ray_app.engine.EngineReplica`.
        figures: a handle to :class:`~prunepool.ray_app.metrics_aggregator.MetricsAggregator`.
    """

    def __init__(self, settings: Settings, engines: DeploymentHandle, figures: DeploymentHandle) -> None:
        tune_malloc()
        self._settings = settings
        self._engines = engines
        self._figures = figures
        self._stack = ExitStack()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The app; called by Ray in the replica."""
        settings = self._settings
        name = replica_logging(settings, self._stack)
        metrics = create_metrics(CollectorRegistry())
        collected = Collected(name, metrics.registry)
        metrics.exposed.register(collected)
        wait_s = settings.max_queue_ms / 1000 + settings.batch_timeout_s
        client = RayCoreClient(
            self._engines, _LOST, wait_s, factory.frontend_limits(settings), time.monotonic
        )
        engine = factory.create_service(settings, client, metrics)
        tracing = self._stack.enter_context(tracing_to(settings))
        keyring = None
        if settings.api_keys_file is not None:
            keyring = Keyring(KeysFile(settings.api_keys_file), time.monotonic)
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(keep_telling(name, metrics.registry, self._figures)),
            loop.create_task(keep_hearing(collected, self._figures)),
        ]
        traced = engine if tracing is None else tracing.traced(engine)
        return create_app(traced, settings, metrics, keyring=keyring, tracing=tracing)

    def __del__(self) -> None:
        """Ray has waited for the answers already."""
        self._stack.close()

"""An ingress replica: the HTTP routes; decodes, validates and admits, as a front end of one machine does."""

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
from prunepool.ray_app.metrics_aggregator import MergedCollector, fetch_reports, report_metrics
from prunepool.server import factory
from prunepool.server.observability import create_metrics, tracing_to
from prunepool.settings import Settings
from prunepool.transport.ray import RayCoreClient

#: What Ray raises for a call to a replica that has died or is stopping.
_REPLICA_LOST = (ray.exceptions.RayActorError, DeploymentUnavailableError)


class IngressReplica:
    """The HTTP routes, over all engine replicas.

    Args:
        settings: everything about it.
        engines: a handle to :class:`~prunepool.ray_app.engine.EngineReplica`.
        aggregator: a handle to :class:`~prunepool.ray_app.metrics_aggregator.MetricsAggregator`.
    """

    def __init__(self, settings: Settings, engines: DeploymentHandle, aggregator: DeploymentHandle) -> None:
        tune_malloc()
        self._settings = settings
        self._engines = engines
        self._aggregator = aggregator
        self._stack = ExitStack()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Make the app; Ray calls this in the replica."""
        settings = self._settings
        metrics = create_metrics(CollectorRegistry())
        name = replica_logging(settings, metrics, self._stack)
        collector = MergedCollector(name, metrics.registry)
        metrics.exposed.register(collector)
        wait_s = settings.max_queue_ms / 1000 + settings.batch_timeout_s
        client = RayCoreClient(
            self._engines, _REPLICA_LOST, wait_s, factory.frontend_limits(settings), time.monotonic
        )
        engine = factory.create_service(settings, client, metrics)
        tracing = self._stack.enter_context(tracing_to(settings))
        keyring = None
        if settings.api_keys_file is not None:
            keyring = Keyring(KeysFile(settings.api_keys_file), time.monotonic)
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(report_metrics(name, metrics.registry, self._aggregator, metrics.refresh)),
            loop.create_task(fetch_reports(collector, self._aggregator)),
        ]
        traced = engine if tracing is None else tracing.traced(engine)
        return create_app(traced, settings, metrics, keyring=keyring, tracing=tracing)

    def __del__(self) -> None:
        """Stop; Ray has waited for the answers already."""
        self._stack.close()

"""What a front end runs: HTTP, validation and decoding, before the engines in other processes."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import uvloop
import zmq.asyncio

from prunepool.api.app import Tracing
from prunepool.gpu import gpu_collector
from prunepool.imaging import ImageLimits
from prunepool.logs import level_by_signal, logging_to
from prunepool.machine import tune_malloc
from prunepool.metrics import Metrics
from prunepool.server import factory
from prunepool.server.control_pipe import Wire
from prunepool.server.metrics_files import expose, publish, shared_metrics
from prunepool.server.parent_watch import ignore_signals, obey
from prunepool.server.specs import FrontendSpec, devices
from prunepool.serving.decode_pool import decode_threads
from prunepool.serving.remote_engine import RemoteConfig, RemoteEngine
from prunepool.settings import Settings
from prunepool.store import Repository, open_store
from prunepool.transport.zmq.client import Engines
from prunepool.transport.zmq.connection import Link
from prunepool.transport.zmq.server import EVERY_S

#: The exit status says how many requests were left unanswered, up to this.
MOST_COUNTED = 100


def run(spec: FrontendSpec) -> None:
    """Serve until the parent says so; the process ends here."""
    ignore_signals()
    tune_malloc()
    settings = spec.place.settings
    metrics = shared_metrics(spec.place.metrics, spec.place.name)
    with (
        logging_to(sys.stderr, settings.log_format, settings.log_level, spec.place.name),
        level_by_signal(settings.log_level),
        factory.tracing_to(settings) as tracing,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        unanswered = runner.run(_serve(spec, metrics, tracing))
    os._exit(min(unanswered, MOST_COUNTED))


async def _serve(spec: FrontendSpec, metrics: Metrics, tracing: Tracing | None) -> int:
    place, settings = spec.place, spec.place.settings
    context = zmq.asyncio.Context()
    numbers = range(len(devices(settings)))
    links = [
        Link(context, place.address(number), place.number, lambda: engines.changed(), time.monotonic)
        for number in numbers
    ]
    engines = Engines(links, metrics, time.monotonic)
    remote = RemoteEngine(engines, place.arenas[place.number], remote_config(settings), metrics)
    expose(metrics, place.metrics, lambda: engines.offers)
    if (gpus := gpu_collector()) is not None:
        metrics.exposed.register(gpus)

    told: list[asyncio.Task[object]] = []

    async def drain() -> None:
        if not told:
            os._exit(0)  # not serving yet: there is nothing to be answered
        server.stop("SIGTERM")

    async def reload() -> None:
        server.handle_hangup()

    parent = obey(place.parent, {"drain": drain, "look": engines.look, "reload": reload}, place.folder)
    engine = remote if tracing is None else tracing.traced(remote)
    control = ParentControl(parent, Repository(open_store(settings.model_store)))
    server = factory.create_server(settings, engine, metrics, tracing, control, signals=False)
    publishing = asyncio.create_task(publish(metrics, EVERY_S))

    def on_ready() -> None:
        factory.describe_build(metrics, remote.model(remote.default_model))
        told.append(asyncio.create_task(parent.call("ready")))

    try:
        return await server.serve_until_signal(spec.bound, on_ready)
    finally:
        publishing.cancel()
        context.destroy(0)


def remote_config(settings: Settings) -> RemoteConfig:
    """What a front end decides by itself, by the settings."""
    return RemoteConfig(
        default_ratio=settings.default_reduction_ratio,
        max_ratio=settings.max_reduction_ratio,
        decode_threads=decode_threads(settings.decode_threads, settings.frontends),
        image_limits=ImageLimits(settings.max_image_pixels),
        max_requests=settings.max_queue_requests,
        max_queue_s=settings.max_queue_ms / 1000,
    )


class ParentControl:
    """Has the parent change which models all engines serve.

    Args:
        parent: the way to it.
        repository: what can be served.
    """

    def __init__(self, parent: Wire, repository: Repository) -> None:
        self._parent = parent
        self._repository = repository

    def loadable(self) -> tuple[str, ...]:
        """Names of the models of the store."""
        return self._repository.names()

    async def load(self, name: str) -> None:
        """Serve a model, or serve it anew if it has changed; returns when all front ends know."""
        await self._parent.call("load", name)

    async def unload(self, name: str) -> None:
        """Serve a model no longer; returns when all that it had accepted is answered."""
        await self._parent.call("unload", name)

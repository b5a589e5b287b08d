"""What a front end runs: HTTP, validation and decoding, before the engines in other processes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

import structlog
import uvloop
import zmq.asyncio

from prunepool.api.app import Tracing
from prunepool.errors import why_of
from prunepool.gpu import gpu_collector
from prunepool.logs import exit_now, level_by_signal, serving_logs
from prunepool.machine import tune_malloc
from prunepool.metrics import Metrics
from prunepool.server import factory, oom_score
from prunepool.server.control_pipe import ControlPipe, Handler
from prunepool.server.metrics_files import expose, publish, shared_metrics
from prunepool.server.observability import describe_build, tracing_to
from prunepool.server.parent_watch import ignore_signals, outlive_parent_to_clean_up, watch_parent
from prunepool.server.specs import FrontendSpec, devices
from prunepool.store import Repository, open_store
from prunepool.transport.zmq.client import ZmqCoreClient
from prunepool.transport.zmq.connection import EngineConnection
from prunepool.transport.zmq.server import HEARTBEAT_S

#: The exit status says how many requests were left unanswered, up to this.
MOST_COUNTED = 100
_log = structlog.stdlib.get_logger("prunepool.processes")


def run(spec: FrontendSpec) -> None:
    """Serve until the parent says so; the process ends here."""
    ignore_signals()
    tune_malloc()
    outlive_parent_to_clean_up(spec.place.folder)
    oom_score.raise_oom_score(oom_score.FRONTEND)
    settings = spec.place.settings
    unanswered = 1
    with (
        serving_logs(settings.log_format, settings.log_level, spec.place.name) as lines,
        level_by_signal(settings.log_level),
    ):
        metrics = shared_metrics(spec.place.metrics, spec.place.name)
        metrics.follow(metrics.log_lines_dropped, lambda: lines.dropped)
        try:
            with (
                tracing_to(settings) as tracing,
                asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
            ):
                unanswered = runner.run(_serve(spec, metrics, tracing))
        except Exception:  # outside this block, this process would wait for whoever reads it
            _log.exception("unexpected error")
    os._exit(min(unanswered, MOST_COUNTED))


async def _serve(spec: FrontendSpec, metrics: Metrics, tracing: Tracing | None) -> int:
    """Serve until the parent says so; how many requests were left unanswered."""
    handlers: dict[str, Handler] = {"drain": _leave, "ping": _pong}
    parent = watch_parent(spec.place.parent, handlers, spec.place.folder)
    try:
        serve = _prepare(spec, metrics, tracing, parent, handlers)
    except Exception as error:
        await parent.call("failed", why_of(error))
        return 1
    return await serve()


def _prepare(
    spec: FrontendSpec,
    metrics: Metrics,
    tracing: Tracing | None,
    parent: ControlPipe,
    handlers: dict[str, Handler],
) -> Callable[[], Awaitable[int]]:
    """Make all that serves; what is returned serves."""
    place, settings = spec.place, spec.place.settings
    context = zmq.asyncio.Context()
    connections = [
        EngineConnection(
            context,
            place.address(number),
            place.number,
            lambda: client.changed(),
            time.monotonic,
            running=place.running[number],
        )
        for number in range(len(devices(settings)))
    ]
    arena, limits = place.arenas[place.number], factory.frontend_limits(settings)
    client = ZmqCoreClient(connections, arena, limits, metrics, time.monotonic)
    service = factory.create_service(settings, client, metrics)
    expose(metrics, place.metrics, lambda: {*client.offers(), *client.failures()})
    if (gpus := gpu_collector()) is not None:
        metrics.exposed.register(gpus)

    ready: list[asyncio.Task[object]] = []

    async def drain() -> None:
        if not ready:
            await _leave()
        server.stop("SIGTERM")

    async def reload() -> None:
        server.handle_hangup()

    handlers.update(drain=drain, refresh=client.refresh, reload=reload)
    traced = service if tracing is None else tracing.traced(service)
    models = ParentModelControl(parent, Repository(open_store(settings.model_store)))
    server = factory.create_server(settings, traced, metrics, tracing, models, signals=False)

    def on_ready() -> None:
        describe_build(metrics, service.models()[0])
        ready.append(asyncio.create_task(parent.call("ready")))

    async def serve() -> int:
        publishing = asyncio.create_task(publish(metrics, HEARTBEAT_S))
        try:
            return await server.serve_until_signal(spec.sockets, on_ready)
        finally:
            publishing.cancel()
            context.destroy(0)

    return serve


async def _leave() -> None:
    """Nothing is served yet, so nothing is left to be answered."""
    exit_now(0)


async def _pong() -> None:
    """The event loop of this process runs."""


class ParentModelControl:
    """The `ModelControl` of a front end: has the parent change which models all engines serve.

    Args:
        parent: the way to it.
        repository: what can be served.
    """

    def __init__(self, parent: ControlPipe, repository: Repository) -> None:
        self._parent = parent
        self._repository = repository

    def loadable(self) -> tuple[str, ...]:
        """Names of the models of the store."""
        return self._repository.names()

    async def load(self, name: str) -> None:
        """Serve a model, or replace it if its files have changed; returns when all front ends know."""
        await self._parent.call("load", name)

    async def unload(self, name: str) -> None:
        """Serve a model no longer; returns when all that it had accepted is answered."""
        await self._parent.call("unload", name)

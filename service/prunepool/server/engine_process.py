"""What an engine process runs: the core of one device, for all front ends."""

from __future__ import annotations

import asyncio
import os
import warnings

import structlog
import uvloop
import zmq.asyncio

from prunepool.backends.registry import device_type
from prunepool.core.core import Core
from prunepool.core.profiles import from_json, to_json
from prunepool.errors import why_of
from prunepool.logs import exit_now, level_by_signal, serving_logs
from prunepool.machine import trim_heap
from prunepool.metrics import Metrics
from prunepool.server import factory, oom_score
from prunepool.server.control_pipe import Handler
from prunepool.server.core_models import CoreModels
from prunepool.server.decisions import DecisionFolder
from prunepool.server.metrics_files import publish, shared_metrics
from prunepool.server.parent_watch import die_with_parent, ignore_signals, watch_parent
from prunepool.server.specs import EngineReady, EngineSpec
from prunepool.transport.inproc import InprocCoreClient
from prunepool.transport.zmq.server import HEARTBEAT_S, EngineServer

#: Nothing is left to be answered when an engine is told to stop.
_STOP_S = 5.0
#: A core that is down for longer is not helped by another thread in the same process: its device hangs.
_MOST_DOWN_S = 15.0
_log = structlog.stdlib.get_logger("prunepool.processes")


def run(spec: EngineSpec) -> None:
    """Serve until the parent says so; the process ends here."""
    ignore_signals()
    die_with_parent()
    oom_score.raise_oom_score(oom_score.ENGINE)
    settings = spec.place.settings
    with (
        serving_logs(settings.log_format, settings.log_level, spec.place.name) as lines,
        level_by_signal(settings.log_level),
    ):
        metrics = shared_metrics(spec.place.metrics, spec.place.name)
        metrics.follow(metrics.log_lines_dropped, lambda: lines.dropped)
        # A file of series keeps what it once had; what is served no longer is left out when it is read.
        warnings.filterwarnings("ignore", "Removal of labels", UserWarning)
        status = 1
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                status = runner.run(_serve(spec, metrics))
        except Exception:  # outside this block, this process would wait for whoever reads it
            _log.exception("unexpected error")
    os._exit(status)


async def _serve(spec: EngineSpec, metrics: Metrics) -> int:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def stop() -> None:
        stopped.set()

    handlers: dict[str, Handler] = {"stop": _leave, "ping": _pong}
    models = spec.place.models
    parent = watch_parent(spec.place.parent, handlers, spec.place.folder)
    settings = spec.place.settings
    try:
        decisions = DecisionFolder(spec.place.folder / "decisions", device_type(settings.device))
        profiles = from_json(await parent.call("profiles"))
        core = factory.create_core(settings, metrics, profiles, decisions.of, models)
        core.when_hopeless(_give_up)
        handlers.update(_handlers(factory.create_core_models(settings, core, decisions.of, models), started))
        # At the very first start, somebody is there to be told. Later, what can be served is.
        await core.start(needs_default=spec.incarnation == 0)
    except Exception as error:
        await parent.call("failed", why_of(error))
        return 1
    if spec.incarnation:
        for entry in core.entries:
            metrics.engine_restarts.labels(entry.model.name).inc()
    context = zmq.asyncio.Context()
    client = InprocCoreClient(core)
    place = spec.place
    running = place.running[place.number]
    server = EngineServer(context, place.address(place.number), client, place.arenas, running)
    handlers["stop"] = stop
    started.set()
    info = core.entries[0].model.info()
    # A successor gets the models that are wanted now before any front end can ask it.
    ready = EngineReady(info.device, info.dtype, to_json(core.entries), _names(core))
    await parent.call("ready", *ready)
    server.open()
    trim_heap()  # of what it took to load the model, which is as much again as it keeps
    tasks = [asyncio.create_task(publish(metrics, HEARTBEAT_S)), asyncio.create_task(_watch(client))]
    await stopped.wait()
    for task in tasks:
        task.cancel()
    await core.close(_STOP_S)
    await server.close()
    context.term()
    return 0


def _names(core: Core) -> str:
    return ",".join(entry.model.name for entry in core.entries)


async def _leave() -> None:
    """Nothing has been asked yet, so nothing is left to be answered."""
    exit_now(0)


async def _pong() -> None:
    """The event loop of this process runs."""


async def _watch(client: InprocCoreClient) -> None:
    """End a process whose core is neither ready nor failing: its device hangs."""
    loop = asyncio.get_running_loop()
    ready = loop.time()
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        missing = [load.missing for load in client.loads().values() if load.missing]
        if not missing:
            ready = loop.time()
        elif loop.time() - ready > _MOST_DOWN_S:
            _give_up(", ".join(missing))


def _give_up(why: str) -> None:
    """End this process; the parent starts another, and front ends ask other engines meanwhile."""
    _log.error("the engine does not recover in this process", why=why)
    exit_now(1)


def _handlers(models: CoreModels, started: asyncio.Event) -> dict[str, Handler]:
    """What the parent may call, once the core has started."""

    def once_started(handler: Handler) -> Handler:
        async def call(*arguments: str) -> object:
            await started.wait()
            return await handler(*arguments)

        return call

    return {
        "served": once_started(models.served),
        "prepare": once_started(models.prepare),
        "commit": once_started(models.commit),
        "abort": once_started(models.abort),
        "unload": once_started(models.unload),
        "set_default": once_started(models.set_default),
        "note_failure": once_started(models.note_failure),
    }

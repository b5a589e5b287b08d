"""What an engine process runs: the engine of one device, for all front ends."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import Mapping, Sequence

import structlog
import uvloop
import zmq.asyncio

from prunepool.errors import PrunepoolError
from prunepool.logs import level_by_signal, logging_to
from prunepool.metrics import Metrics
from prunepool.server import factory
from prunepool.server.control_pipe import Handler
from prunepool.server.metrics_files import publish, shared_metrics
from prunepool.server.model_control import Models
from prunepool.server.parent_watch import ignore_signals, obey
from prunepool.server.specs import EngineSpec
from prunepool.serving import LocalEngine
from prunepool.serving.profiles import from_json, to_json
from prunepool.transport.messages import Load, Offer
from prunepool.transport.zmq.server import EVERY_S, Host

#: Nothing is left to be answered when an engine is told to stop.
_STOP_S = 5.0
#: An engine that is down for longer is not helped by another thread in the same process: its device hangs.
_MOST_DOWN_S = 15.0
_log = structlog.stdlib.get_logger("prunepool.transport")


def run(spec: EngineSpec) -> None:
    """Serve until the parent says so; the process ends here."""
    ignore_signals()
    settings = spec.place.settings
    metrics = shared_metrics(spec.place.metrics, spec.place.name)
    with (
        logging_to(sys.stderr, settings.log_format, settings.log_level, spec.place.name),
        level_by_signal(settings.log_level),
    ):
        # A file of series keeps what it once had; what is served no longer is left out when it is read.
        warnings.filterwarnings("ignore", "Removal of labels", UserWarning)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status = runner.run(_serve(spec, metrics))
    os._exit(status)


async def _serve(spec: EngineSpec, metrics: Metrics) -> int:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def stop() -> None:
        stopped.set()

    handlers: dict[str, Handler] = {"stop": _leave}
    parent = obey(spec.place.parent, handlers, spec.place.folder)
    try:
        engine = factory.build_engine(spec.place.settings, metrics, from_json(spec.warm_up_profiles))
        assert isinstance(engine, LocalEngine)
        engine.when_hopeless(_give_up)
        models = factory.create_models(spec.place.settings, engine)
        assert models is not None
        handlers.update(_handlers(models, started))
        await engine.start()
    except Exception as error:
        detail = error.detail if isinstance(error, PrunepoolError) else f"{type(error).__name__}: {error}"
        await parent.call("failed", detail)
        return 1
    if spec.generation:
        for info in engine.models():
            metrics.engine_restarts.labels(info.name).inc()
    context = zmq.asyncio.Context()
    host = Host(context, spec.place.address(spec.place.number), Hosted(engine), spec.place.arenas)
    host.open()
    tasks = [asyncio.create_task(publish(metrics, EVERY_S)), asyncio.create_task(_watch(engine))]
    handlers["stop"] = stop
    started.set()
    info = engine.model(engine.default_model)
    await parent.call("ready", info.device, info.dtype, to_json(engine.lines))
    await stopped.wait()
    for task in tasks:
        task.cancel()
    await engine.close(_STOP_S)
    await host.close()
    context.term()
    return 0


async def _leave() -> None:
    """Nothing has been asked yet, so nothing is left to be answered."""
    os._exit(0)


async def _watch(engine: LocalEngine) -> None:
    """End a process whose engine is neither ready nor failing: its device hangs."""
    loop = asyncio.get_running_loop()
    ready = loop.time()
    while True:
        await asyncio.sleep(EVERY_S)
        found = engine.readiness()
        if found.ready:
            ready = loop.time()
        elif loop.time() - ready > _MOST_DOWN_S:
            _give_up(", ".join(found.missing))


def _give_up(why: str) -> None:
    """End this process; the parent starts another, and front ends ask other engines meanwhile."""
    _log.error("the engine does not recover in this process", why=why)
    os._exit(1)


def _handlers(models: Models, started: asyncio.Event) -> dict[str, Handler]:
    """What the parent may call."""

    async def load(reference: str) -> bool:
        await started.wait()
        return await models.load(reference)

    async def unload(name: str) -> None:
        await started.wait()
        await models.unload(name)

    async def prefer(name: str) -> None:
        await started.wait()
        await models.prefer(name)

    return {"load": load, "unload": unload, "prefer": prefer}


class Hosted:
    """A local engine as a host serves it."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self.infer_decoded = engine.infer_decoded

    @property
    def default_model(self) -> str:
        """Name of the model that answers when a request names none."""
        return self._engine.default_model

    def offers(self) -> Sequence[Offer]:
        """What is served."""
        return [Offer(line.model.info(), line.model.preprocess) for line in self._engine.lines]

    def loads(self) -> Mapping[str, Load]:
        """How each model is doing."""
        return {
            line.model.name: Load(
                line.scheduler.missing, line.scheduler.drain_s, line.scheduler.dense_image_s
            )
            for line in self._engine.lines
        }

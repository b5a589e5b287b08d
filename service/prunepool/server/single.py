"""The whole service in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

import uvloop

from prunepool.api.server import Server
from prunepool.logs import level_by_signal, serving_logs
from prunepool.machine import trim_heap
from prunepool.metrics import Metrics
from prunepool.server import factory
from prunepool.server.bound import Bound, bound
from prunepool.server.observability import announcement, create_metrics, describe_build, tracing_to
from prunepool.server.reload import follow_settings
from prunepool.server.settings_check import check
from prunepool.serving.types import Service
from prunepool.settings import Settings
from prunepool.transport.inproc import InprocCoreClient


def serve(
    settings: Settings,
    announce: Callable[[str], None],
    make_service: Callable[[Settings, Metrics], Service] | None = None,
    reread: Callable[[], Settings] | None = None,
) -> int:
    """Serve until a signal.

    Args:
        settings: everything about it.
        announce: told in one line what is served and where, once it is.
        make_service: makes what answers, for tests; its models cannot be changed.
        reread: the settings as they are at a SIGHUP.

    Returns:
        How many accepted requests the drain left unanswered.

    Raises:
        InvalidParameter: a setting that this version cannot honour.
        CannotListen: the address cannot be listened on.
        PrunepoolError: the model cannot be served.
        EngineLost: the engine did not recover, and only another process can serve.
    """
    check(settings)
    with (
        serving_logs(settings.log_format, settings.log_level) as lines,
        level_by_signal(settings.log_level),
    ):
        start = time.monotonic()
        with bound(settings) as listening, tracing_to(settings) as tracing:
            settings = listening.settings
            metrics = create_metrics()
            metrics.follow(metrics.log_lines_dropped, lambda: lines.dropped)
            core, models, follow, keep = None, None, None, None
            if make_service is not None:
                engine = make_service(settings, metrics)
            else:
                kept = factory.kept_decisions(settings)
                decisions = None if kept is None else kept.of
                core = factory.create_core(settings, metrics, decisions=decisions, kept=kept)
                engine = factory.create_service(settings, InprocCoreClient(core), metrics)
                control = factory.create_core_models(settings, core, decisions)
                models = factory.create_desired_models(settings, [control])
                keep = None if kept is None else partial(kept.keep, core.entries)
                follow = partial(follow_settings, models, reread or (lambda: settings))
            if tracing is not None:
                engine = tracing.traced(engine)
            server = factory.create_server(settings, engine, metrics, tracing, models, follow)
            if core is not None:
                core.when_hopeless(server.give_up)
            return _run(server, listening, engine, metrics, announce, start, keep)


def _run(
    server: Server,
    listening: Bound,
    engine: Service,
    metrics: Metrics,
    announce: Callable[[str], None],
    start: float,
    keep: Callable[[], None] | None,
) -> int:
    def on_ready() -> None:
        if keep is not None:
            keep()
        info = engine.model(engine.default_model)
        describe_build(metrics, info)
        trim_heap()  # of what it took to load the model, which is as much again as it keeps
        announce(announcement(info.name, info.device, info.dtype, listening.shown, time.monotonic() - start))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(server.serve_until_signal(listening.http.sockets, on_ready))

"""The composition root: settings become metrics, an engine, an app and a server."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import uvloop
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from prunepool.api.app import create_app
from prunepool.api.drain import Drain
from prunepool.api.server import Server, bind, url_of
from prunepool.engine import Engine
from prunepool.errors import InvalidParameter
from prunepool.logs import logging_to
from prunepool.metrics import Metrics
from prunepool.settings import Settings


def create_metrics() -> Metrics:
    """The service's series on a registry of their own, beside those of the process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return Metrics(registry)


def build_engine(settings: Settings, metrics: Metrics) -> Engine:
    """The engine that the settings describe; weights are loaded when it starts.

    Torch is imported here and not above, so that what needs no model starts fast.

    Raises:
        ModelNotFound: no such model in the store.
        ManifestInvalid: its model.json does not say what it must.
        ArchitectureUnsupported: its tokens cannot be reduced.
        InvalidParameter: a device that is not there, or a default ratio that the model cannot do.
    """
    from prunepool.batching.supervisor import Resilience
    from prunepool.batching.types import Limits
    from prunepool.hosting import HostedModel
    from prunepool.imaging import ImageLimits
    from prunepool.local_engine import EngineConfig, LocalEngine
    from prunepool.models.loader import resolve_device
    from prunepool.store import ModelStore

    hosted = HostedModel(
        ModelStore(settings.model_store).open(settings.model),
        device=str(resolve_device(settings.device)),
        dtype=settings.dtype,
        max_batch_size=settings.max_batch_size,
    )
    config = EngineConfig(
        default_ratio=settings.default_reduction_ratio,
        max_ratio=settings.max_reduction_ratio,
        decode_threads=settings.decode_threads,
        image_limits=ImageLimits(settings.max_image_pixels),
        limits=Limits(
            max_batch_size=settings.max_batch_size,
            max_wait_s=settings.max_wait_ms / 1000,
            max_queue_requests=settings.max_queue_requests,
        ),
        resilience=Resilience(batch_timeout_s=settings.batch_timeout_s),
    )
    return LocalEngine([hosted.served()], config=config, metrics=metrics)


def create_server(settings: Settings, engine: Engine, metrics: Metrics) -> Server:
    """A server of the app over an engine."""
    drain = Drain(settings.drain_timeout_s, time.monotonic)
    return Server(create_app(engine, settings, metrics, drain), engine, drain)


def serve(
    settings: Settings,
    announce: Callable[[str], None],
    make_engine: Callable[[Settings, Metrics], Engine] = build_engine,
) -> int:
    """Serve until a signal.

    Args:
        settings: everything about it.
        announce: told in one line what is served and where, once it is.
        make_engine: makes the engine.

    Returns:
        How many accepted requests the drain left unanswered.

    Raises:
        InvalidParameter: a setting that this version cannot honour.
        CannotListen: the address cannot be listened on.
        PrunepoolError: the model cannot be served.
    """
    _refuse_unserved(settings)
    start = time.monotonic()
    bound = bind(settings.host, settings.port)
    metrics = create_metrics()
    engine = make_engine(settings, metrics)
    server = create_server(settings, engine, metrics)

    def on_ready() -> None:
        info = engine.model(engine.default_model)
        ours = version("prunepool")
        metrics.build.info(
            {"version": ours, "torch": version("torch"), "device": info.device, "dtype": info.dtype}
        )
        announce(
            f"prunepool {ours} serves {info.name} on {info.device} in {info.dtype} "
            f"at {url_of(bound)} (ready in {time.monotonic() - start:.1f} s)"
        )

    with (
        logging_to(sys.stderr, settings.log_format, settings.log_level),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(server.serve_until_signal(bound, on_ready))


def _refuse_unserved(settings: Settings) -> None:
    """A setting that would be passed over in silence is refused instead."""
    if settings.frontends != 1:
        raise InvalidParameter("frontends", settings.frontends, "1 in this version")
    if settings.api_keys_file is not None:
        raise InvalidParameter("api_keys_file", str(settings.api_keys_file), "unset in this version")

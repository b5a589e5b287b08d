"""The composition root: settings become metrics, an engine, an app and a server."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from importlib.metadata import version

import structlog
import uvloop
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from prunepool.access import Keyring, KeysFile
from prunepool.api.app import Tracing, create_app
from prunepool.api.drain import Drain
from prunepool.api.server import Server, bind, url_of
from prunepool.engine import Engine
from prunepool.errors import InvalidParameter
from prunepool.logs import level_by_signal, logging_to
from prunepool.metrics import Metrics
from prunepool.settings import Settings

_log = structlog.stdlib.get_logger("prunepool.server")
#: Of the target: whoever comes while one batch runs and another is ready still is answered in time.
_BATCH_SHARE = 0.25


def create_metrics() -> Metrics:
    """The service's series on a registry of their own, beside those of the process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return Metrics(registry)


def share_cores(environment: MutableMapping[str, str]) -> None:
    """Let the model's threads sleep rather than spin while they wait for each other.

    They share the cores with decoding and with the event loop. A spinning thread holds a core that the one it
    waits for may need, and on a busy machine a server that spins answers several times fewer images. OpenMP
    reads this once, when torch is imported. Whoever has set it keeps what they set.
    """
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def build_engine(settings: Settings, metrics: Metrics) -> Engine:
    """The engine that the settings describe; weights are loaded when it starts.

    Torch is imported here and not above, so that what needs no model starts fast.

    Raises:
        ModelNotFound: no such model in the store.
        ManifestInvalid: its model.json does not say what it must.
        ArchitectureUnsupported: its tokens cannot be reduced.
        InvalidParameter: a device that is not there, or a default ratio that the model cannot do.
    """
    share_cores(os.environ)
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
            max_batch_s=settings.target_latency_ms / 1000 * _BATCH_SHARE,
            max_wait_s=settings.max_wait_ms / 1000,
            max_queue_requests=settings.max_queue_requests,
            max_queue_s=settings.max_queue_ms / 1000,
            target_s=settings.target_latency_ms / 1000,
        ),
        resilience=Resilience(batch_timeout_s=settings.batch_timeout_s),
        escalate_below=settings.escalate_below,
        shadow_sample=settings.shadow_sample,
    )
    return LocalEngine([hosted.served()], config=config, metrics=metrics)


def create_server(
    settings: Settings, engine: Engine, metrics: Metrics, tracing: Tracing | None = None
) -> Server:
    """A server of the app over an engine.

    Raises:
        InvalidParameter: the API keys cannot be read.
    """
    drain = Drain(settings.drain_timeout_s, time.monotonic)
    keyring = None
    if settings.api_keys_file is not None:
        keyring = Keyring(KeysFile(settings.api_keys_file), time.monotonic)
    app = create_app(engine, settings, metrics, drain, keyring=keyring, tracing=tracing)
    return Server(app, engine, drain, settings, on_hangup=None if keyring is None else keyring.reload)


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
    with logging_to(sys.stderr, settings.log_format, settings.log_level), level_by_signal(settings.log_level):
        start = time.monotonic()
        with bind(settings.host, settings.port) as bound, _tracing(settings) as tracing:
            metrics = create_metrics()
            engine = make_engine(settings, metrics)
            if tracing is not None:
                engine = tracing.traced(engine)
            server = create_server(settings, engine, metrics, tracing)
            return _run(server, bound, engine, metrics, announce, start)


def _run(
    server: Server,
    bound: socket.socket,
    engine: Engine,
    metrics: Metrics,
    announce: Callable[[str], None],
    start: float,
) -> int:
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

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(server.serve_until_signal(bound, on_ready))


@contextmanager
def _tracing(settings: Settings) -> Iterator[Tracing | None]:
    """Traces on their way to a collector, if they are asked for; what is left of them is sent at the end."""
    from prunepool.tracing.wanted import wanted

    if not wanted(settings.otel_endpoint, os.environ):
        yield None
        return
    try:
        from prunepool.tracing.export import finish, provider_to
        from prunepool.tracing.spans import TracedEngine, log_fields
    except ModuleNotFoundError as error:
        missing = f"left out where prunepool[otel] is not installed ({error.name} is missing)"
        if settings.otel_endpoint is not None:
            raise InvalidParameter("otel_endpoint", settings.otel_endpoint, missing) from error
        # These variables are often set for all programs of a machine, whether they trace or not.
        _log.warning("nothing is traced, though OTEL_… names a collector", must_be=missing)
        yield None
        return
    provider = provider_to(settings.otel_endpoint, version("prunepool"))
    try:
        yield Tracing(provider, log_fields, lambda engine: TracedEngine(engine, provider))
    finally:
        finish(provider)


def _refuse_unserved(settings: Settings) -> None:
    """A setting that would be passed over in silence is refused instead."""
    if settings.frontends != 1:
        raise InvalidParameter("frontends", settings.frontends, "1 in this version")

"""The composition root: settings become metrics, an engine, an app and a server."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import structlog
import uvloop
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from prunepool.access import Keyring, KeysFile
from prunepool.api.app import Tracing, create_app
from prunepool.api.drain import Drain
from prunepool.api.server import Server, bind, url_of
from prunepool.errors import InvalidParameter
from prunepool.gpu import gpu_collector
from prunepool.logs import level_by_signal, logging_to
from prunepool.machine import set_openmp_wait_policy, tune_malloc
from prunepool.metrics import Metrics
from prunepool.server.model_control import Control, Models
from prunepool.serving.types import Engine, ModelControl, ModelInfo
from prunepool.settings import Settings
from prunepool.store import Repository, open_store

if TYPE_CHECKING:
    from prunepool.core.cost_model import TimedBatch
    from prunepool.server.model_factory import ModelFactory

_log = structlog.stdlib.get_logger("prunepool.server")
#: Of the target: whoever comes while one batch runs and another is ready still is answered in time.
BATCH_SHARE = 0.25


def create_metrics(exposed: CollectorRegistry | None = None) -> Metrics:
    """The service's series on a registry of their own, beside those of the process.

    Args:
        exposed: what a scrape shows, if that is more.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    if (gpus := gpu_collector()) is not None:
        registry.register(gpus)
    return Metrics(registry, exposed)


def build_engine(
    settings: Settings, metrics: Metrics, warm_up_profiles: Mapping[str, Sequence[TimedBatch]] | None = None
) -> Engine:
    """The engine that the settings describe; weights are loaded when it starts.

    Torch is imported here and not above, so that what needs no model starts fast.

    Args:
        settings: everything about it.
        metrics: the service's series.
        warm_up_profiles: what an engine before it was timed with on the same devices, by model.

    Raises:
        ModelNotFound: no such model in the store.
        ManifestInvalid: its model.json does not say what it must.
        ArchitectureUnsupported: its tokens cannot be reduced.
        InvalidParameter: a device that is not there, or a default ratio that the model cannot do.
    """
    set_openmp_wait_policy(os.environ)
    tune_malloc()
    from prunepool.core.resilience import Resilience
    from prunepool.core.types import Limits
    from prunepool.imaging import ImageLimits
    from prunepool.models.loader import set_compute_threads
    from prunepool.serving import EngineConfig, LocalEngine

    host = _create_host(settings)
    config = EngineConfig(
        default_ratio=settings.default_reduction_ratio,
        max_ratio=settings.max_reduction_ratio,
        decode_threads=settings.decode_threads,
        image_limits=ImageLimits(settings.max_image_pixels),
        limits=Limits(
            max_batch_size=settings.max_batch_size,
            max_batch_s=settings.target_latency_ms / 1000 * BATCH_SHARE,
            max_wait_s=settings.max_wait_ms / 1000,
            max_queue_requests=settings.max_queue_requests,
            max_queue_s=settings.max_queue_ms / 1000,
            target_s=settings.target_latency_ms / 1000,
        ),
        resilience=Resilience(batch_timeout_s=settings.batch_timeout_s),
        escalate_below=settings.escalate_below,
        shadow_sample=settings.shadow_sample,
        unload_timeout_s=settings.drain_timeout_s,
    )
    if settings.compute_threads is not None:
        set_compute_threads(settings.compute_threads)
    models = {model.name: model for model in map(host.model, references(settings))}
    return LocalEngine(models.values(), config=config, metrics=metrics, warm_up_profiles=warm_up_profiles)


def create_models(settings: Settings, engine: Engine) -> Models | None:
    """The models of an engine, to be changed while it serves; None for one whose models cannot be changed."""
    from prunepool.serving import LocalEngine

    if not isinstance(engine, LocalEngine):
        return None  # and torch, which takes seconds to import, is not needed
    from prunepool.server.model_factory import LocalModels

    return LocalModels(engine, _create_host(settings))


def hopeless_hook(engine: Engine) -> Callable[[Callable[[str], object]], None]:
    """What has a callback called when the engine does not recover in this process."""
    from prunepool.serving import LocalEngine

    return engine.when_hopeless if isinstance(engine, LocalEngine) else lambda callback: None


def create_control(settings: Settings, models: Models) -> Control:
    """What changes which models are served.

    Raises:
        ModelNotFound: no such model.
        ManifestInvalid: its model.json does not say what it must.
    """
    return Control(models, Repository(open_store(settings.model_store)), references(settings))


def _create_host(settings: Settings) -> ModelFactory:
    from prunepool.models.loader import resolve_device
    from prunepool.server.model_factory import ModelFactory, RunOptions

    return ModelFactory(
        open_store(settings.model_store),
        RunOptions(
            device=str(resolve_device(settings.device)),
            dtype=settings.dtype,
            max_batch_size=settings.max_batch_size,
            cuda_graphs=settings.cuda_graphs,
            cuda_compile=settings.cuda_compile,
            cpu_openvino=settings.cpu_openvino,
            cpu_openvino_folder=settings.cpu_openvino_folder,
        ),
    )


def references(settings: Settings) -> tuple[str, ...]:
    """The models that the settings ask for, the default first: names in the store, or folders."""
    return tuple(dict.fromkeys((settings.model, *(settings.models or ()))))


def create_server(
    settings: Settings,
    engine: Engine,
    metrics: Metrics,
    tracing: Tracing | None = None,
    control: ModelControl | None = None,
    follow: Callable[[], Coroutine[Any, Any, None]] | None = None,
    *,
    signals: bool = True,
) -> Server:
    """A server of the app over an engine.

    Args:
        settings: everything about it.
        engine: what classifies.
        metrics: what `/metrics` shows.
        tracing: where the spans of requests go, if anywhere.
        control: changes the engine's models, for callers if the settings let them.
        follow: has the models follow the settings, at a SIGHUP.
        signals: whether signals are this process's to act upon.

    Raises:
        InvalidParameter: the API keys cannot be read.
    """
    drain = Drain(settings.drain_timeout_s, time.monotonic)
    keyring = None
    if settings.api_keys_file is not None:
        keyring = Keyring(KeysFile(settings.api_keys_file), time.monotonic)
    for_callers = control if settings.model_control == "explicit" else None
    app = create_app(engine, settings, metrics, drain, keyring=keyring, tracing=tracing, control=for_callers)
    hangup = Hangup(keyring, follow) if keyring or follow else None
    return Server(app, engine, drain, settings, on_hangup=hangup, signals=signals)


class Hangup:
    """What SIGHUP does: keys, settings and models are read again.

    Args:
        keyring: the keys, if any are asked for.
        follow: has the models follow the settings, if they can be changed.
    """

    def __init__(
        self, keyring: Keyring | None, follow: Callable[[], Coroutine[Any, Any, None]] | None
    ) -> None:
        self._keyring = keyring
        self._follow = follow
        self._following: set[asyncio.Task[None]] = set()

    def __call__(self) -> None:
        """Begin; on the event loop."""
        if self._keyring is not None:
            self._keyring.reload()
        if self._follow is not None:
            task = asyncio.get_running_loop().create_task(self._follow())
            self._following.add(task)
            task.add_done_callback(self._following.discard)


async def follow_settings(control: Control, reread: Callable[[], Settings]) -> None:
    """Read the settings again, and serve the models that they ask for now."""
    try:
        settings = reread()
    except Exception as error:  # of whoever reads the settings; what was read before is good still
        _log.error("settings stay as they were", why=str(error))
        return
    await control.follow(references(settings))


def serve(
    settings: Settings,
    announce: Callable[[str], None],
    make_engine: Callable[[Settings, Metrics], Engine] = build_engine,
    reread: Callable[[], Settings] | None = None,
) -> int:
    """Serve until a signal.

    Args:
        settings: everything about it.
        announce: told in one line what is served and where, once it is.
        make_engine: makes the engine.
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
    with logging_to(sys.stderr, settings.log_format, settings.log_level), level_by_signal(settings.log_level):
        start = time.monotonic()
        with bind(settings.host, settings.port) as bound, tracing_to(settings) as tracing:
            metrics = create_metrics()
            engine = make_engine(settings, metrics)
            models = create_models(settings, engine)
            when_hopeless = hopeless_hook(engine)
            control = None if models is None else create_control(settings, models)
            follow = None
            if control is not None:
                follow = partial(follow_settings, control, reread or (lambda: settings))
            if tracing is not None:
                engine = tracing.traced(engine)
            server = create_server(settings, engine, metrics, tracing, control, follow)
            when_hopeless(server.give_up)
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
        describe_build(metrics, info)
        announce(announcement(info.name, info.device, info.dtype, url_of(bound), time.monotonic() - start))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(server.serve_until_signal(bound, on_ready))


def describe_build(metrics: Metrics, info: ModelInfo) -> None:
    """Have `/metrics` say what runs where."""
    ours, torch = version("prunepool"), version("torch")
    metrics.build.info({"version": ours, "torch": torch, "device": info.device, "dtype": info.dtype})


def announcement(model: str, device: str, dtype: str, url: str, seconds: float) -> str:
    """The line that says that requests can be sent, and where to."""
    ours = version("prunepool")
    return f"prunepool {ours} serves {model} on {device} in {dtype} at {url} (ready in {seconds:.1f} s)"


@contextmanager
def tracing_to(settings: Settings) -> Iterator[Tracing | None]:
    """Traces on their way to a collector, if they are asked for; what is left of them is sent at the end."""
    from prunepool.tracing.enabled import tracing_enabled

    if not tracing_enabled(settings.otel_endpoint, os.environ):
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


def check(settings: Settings) -> None:
    """See that settings go together.

    Raises:
        InvalidParameter: names the one that cannot be what it is.
    """
    anybody = settings.api_keys_file is None and not is_loopback(settings.host)
    if settings.model_control == "explicit" and anybody:
        limit = f"none where {settings.host} can be reached by others and api_keys_file is unset"
        raise InvalidParameter("model_control", settings.model_control, limit)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

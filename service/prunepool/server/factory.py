"""The composition root: settings become a core, a façade over a transport, an app and a server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from platformdirs import user_cache_path

from prunepool.access import Keyring, KeysFile
from prunepool.api.app import Tracing, create_app
from prunepool.api.drain import Drain
from prunepool.api.server import Server
from prunepool.backends.devices import resolve_device
from prunepool.backends.registry import BackendOptions
from prunepool.core.core import Core, CoreConfig
from prunepool.core.cost_model import TimedBatch
from prunepool.core.model_info import ModelInfo
from prunepool.core.resilience import Resilience
from prunepool.core.types import Limits
from prunepool.errors import InvalidParameter
from prunepool.extras import has_torch
from prunepool.imaging import ImageLimits
from prunepool.machine import compute_threads, set_openmp_wait_policy, tune_malloc
from prunepool.metrics import Metrics
from prunepool.server.core_models import CoreModels
from prunepool.server.desired_models import DesiredModels, EngineControl
from prunepool.server.kept_decisions import KeptDecisions
from prunepool.server.pinned_models import NoPins, PinnedModels, open_pinned
from prunepool.server.reload import Hangup
from prunepool.serving.decode_pool import decode_threads
from prunepool.serving.options import check_default_ratio
from prunepool.serving.service import InferenceService, ServiceConfig
from prunepool.serving.types import ModelControl, Service
from prunepool.settings import Settings
from prunepool.store import Repository, open_store
from prunepool.transport.client import CoreClient
from prunepool.transport.early_refusal import FrontendLimits
from prunepool.transport.inproc import InprocCoreClient

if TYPE_CHECKING:
    from prunepool.server.model_factory import DecisionsOf, ModelFactory
from prunepool.server.open_files import within_open_files

_log = structlog.stdlib.get_logger("prunepool.models")

#: Of the target: a request that comes while one batch runs and another is ready is still answered in time.
BATCH_SHARE = 0.25


def create_core(
    settings: Settings,
    metrics: Metrics,
    profiles: Mapping[str, Sequence[TimedBatch]] | None = None,
    decisions: DecisionsOf | None = None,
    pinned: Path | None = None,
    kept: KeptDecisions | None = None,
) -> Core:
    """The core that the settings describe; weights are loaded when it starts.

    Torch is imported here and not above, so that a process without a model does without it.

    Args:
        settings: everything about it.
        metrics: the service's series.
        profiles: warm-up profiles of an earlier process on the same devices, by model.
        decisions: as for :func:`create_model_factory`.
        pinned: as for :func:`create_model_factory`.
        kept: what earlier starts have measured.

    Raises:
        ModelNotFound: no such model in the store.
        ManifestInvalid: its model.json does not say what it must.
        ArchitectureUnsupported: its tokens cannot be reduced.
        InvalidParameter: a device that is not there, or a default ratio that the model cannot do.
    """
    set_openmp_wait_policy(os.environ)
    tune_malloc(layers=has_torch())
    models = create_model_factory(settings, decisions, pinned)
    served = {model.name: model for model in map(models.model, settings.model_references)}
    for model in served.values():
        _model_check(settings)(model.info())
    if kept is not None:
        profiles = {**kept.profiles(served.values()), **(profiles or {})}
    return Core(served.values(), config=_core_config(settings), metrics=metrics, profiles=profiles)


def create_core_models(
    settings: Settings, core: Core, decisions: DecisionsOf | None = None, pinned: Path | None = None
) -> CoreModels:
    """The models of a core, to be changed while it serves."""
    return CoreModels(core, create_model_factory(settings, decisions, pinned).model, _model_check(settings))


def create_model_factory(
    settings: Settings, decisions: DecisionsOf | None = None, pinned: Path | None = None
) -> ModelFactory:
    """What makes a served model of a folder in the store, as the settings want it run.

    Args:
        settings: everything about it.
        decisions: where backends keep what they decided by measuring, for each generation of a model; in this
            process, if not given.
        pinned: the folder of models that the parent of this process has pinned, if it has one.
    """
    from prunepool.server.model_factory import ModelFactory

    store = open_store(settings.model_store)
    return ModelFactory(
        store.open if pinned is None else partial(open_pinned, pinned, store),
        BackendOptions(
            device=resolve_device(settings.device),
            dtype=settings.dtype,
            max_batch_size=settings.max_batch_size,
            cuda_graphs=settings.cuda_graphs,
            cuda_compile=settings.cuda_compile,
            cpu_openvino=settings.cpu_openvino,
            cpu_openvino_folder=openvino_folder(settings),
            threads=settings.compute_threads or compute_threads(),
        ),
        decisions,
    )


def kept_decisions(settings: Settings) -> KeptDecisions | None:
    """What earlier starts have measured on this machine; nothing is kept of a GPU."""
    if resolve_device(settings.device) != "cpu":
        return None
    conditions = (
        settings.dtype,
        settings.cpu_openvino,
        settings.compute_threads or compute_threads(),
        settings.max_batch_size,
    )
    return KeptDecisions(openvino_folder(settings), conditions)


def openvino_folder(settings: Settings) -> Path:
    """Where what is converted, prepared and measured for OpenVINO is kept.

    Raises:
        InvalidParameter: the setting is unset, and this user has no folder of caches.
    """
    if settings.cpu_openvino_folder is not None:
        return settings.cpu_openvino_folder
    try:
        return user_cache_path("prunepool") / "converted"
    except RuntimeError as error:
        limit = "a folder where the user has no home folder, which HOME or XDG_CACHE_HOME would name"
        raise InvalidParameter("cpu_openvino_folder", None, limit) from error


def create_service(settings: Settings, client: CoreClient, metrics: Metrics) -> InferenceService:
    """The façade over a transport.

    Args:
        settings: everything about it.
        client: the way to what computes.
        metrics: the service's series.
    """
    config = ServiceConfig(
        default_ratio=settings.default_reduction_ratio,
        max_ratio=settings.max_reduction_ratio,
        decode_threads=decode_threads(settings.decode_threads, settings.frontends),
        image_limits=ImageLimits(settings.max_image_pixels),
    )
    return InferenceService(client, config, metrics)


def create_local_service(settings: Settings, metrics: Metrics) -> InferenceService:
    """The façade over a core in this process; raises what :func:`create_core` raises."""
    kept = kept_decisions(settings)
    core = create_core(settings, metrics, decisions=None if kept is None else kept.of, kept=kept)
    return create_service(settings, InprocCoreClient(core), metrics)


def frontend_limits(settings: Settings) -> FrontendLimits:
    """The bounds of a front end whose cores are elsewhere."""
    return FrontendLimits(settings.max_queue_requests, settings.max_queue_ms / 1000)


def create_desired_models(
    settings: Settings,
    engines: Sequence[EngineControl],
    pinned: Path | None = None,
    **hooks: Callable[[], Coroutine[Any, Any, None]],
) -> DesiredModels:
    """The models that are to be served, for callers and for SIGHUP to change.

    Args:
        settings: everything about the server.
        engines: what serves them.
        pinned: the folder to pin them in, for engines in other processes.
        hooks: of :class:`DesiredModels`.

    Raises:
        ModelNotFound: no such model.
        ManifestInvalid: its model.json does not say what it must.
    """
    store = open_store(settings.model_store)
    pins = NoPins() if pinned is None else PinnedModels(pinned, store)
    return DesiredModels(engines, Repository(store), settings.model_references, pins=pins, **hooks)


def create_server(
    settings: Settings,
    engine: Service,
    metrics: Metrics,
    tracing: Tracing | None = None,
    control: ModelControl | None = None,
    follow: Callable[[], Coroutine[Any, Any, None]] | None = None,
    *,
    signals: bool = True,
) -> Server:
    """A server of the app over an engine, with no more connections than this process can have open.

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
    settings = within_open_files(settings)
    drain = Drain(settings.drain_timeout_s, time.monotonic)
    keyring = None
    if settings.api_keys_file is not None:
        keyring = Keyring(KeysFile(settings.api_keys_file), time.monotonic)
    for_callers = control if settings.model_control == "explicit" else None
    app = create_app(engine, settings, metrics, drain, keyring=keyring, tracing=tracing, control=for_callers)
    hangup = Hangup(keyring, follow) if keyring or follow else None
    return Server(app, engine, drain, settings, on_hangup=hangup, signals=signals)


def _core_config(settings: Settings) -> CoreConfig:
    return CoreConfig(
        max_ratio=settings.max_reduction_ratio,
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


def _model_check(settings: Settings) -> Callable[[ModelInfo], None]:
    """Refuses a model that cannot do the server's default ratio, and says of one that `auto` leaves it dense."""
    default, most = settings.default_reduction_ratio, settings.max_reduction_ratio

    def check(info: ModelInfo) -> None:
        check_default_ratio(info, default_ratio=default, max_ratio=most)
        if info.auto_limit(most) == 0 < info.max_reduction_ratio and most is None:
            _log.info(
                "auto keeps all tokens of a model without a measured profile",
                model=info.name,
                change_it="prunepool calibrate measures one; max_reduction_ratio lets auto go without",
            )

    return check

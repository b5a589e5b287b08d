"""What a process of the server shows of itself: series, traces, and the line that says that it is ready."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import structlog
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from prunepool.api.app import Tracing
from prunepool.core.model_info import ModelInfo
from prunepool.errors import InvalidParameter
from prunepool.extras import has_torch
from prunepool.gpu import gpu_collector
from prunepool.metrics import Metrics
from prunepool.settings import Settings

_log = structlog.stdlib.get_logger("prunepool.server")


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


def describe_build(metrics: Metrics, info: ModelInfo) -> None:
    """Have `/metrics` say what runs where."""
    ours, torch = version("prunepool"), version("torch") if has_torch() else "none"
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
        from prunepool.tracing.spans import TracedService, log_fields
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
        yield Tracing(provider, log_fields, lambda engine: TracedService(engine, provider))
    finally:
        finish(provider)

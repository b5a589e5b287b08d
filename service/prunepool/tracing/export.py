"""Exports spans to a collector by OTLP over HTTP, in batches. Needs `prunepool[otel]`."""

from __future__ import annotations

import threading

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

#: How long the last export may take at shutdown, if the collector does not answer.
_SHUTDOWN_TIMEOUT_S = 5.0
_log = structlog.stdlib.get_logger("prunepool.tracing")


def provider_to(endpoint: str | None, version: str) -> TracerProvider:
    """Make a provider whose spans go to a collector; `OTEL_…` variables set sampling, service name and so on.

    Args:
        endpoint: URL of the collector without a path; None takes it from the variables too.
        version: version of this service.
    """
    resource = Resource.create({"service.version": version})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "prunepool"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    address = None if endpoint is None else f"{endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address)))
    return provider


def finish(provider: TracerProvider) -> None:
    """Export the remaining spans, with a timeout."""
    last = threading.Thread(target=provider.shutdown, name="prunepool-last-traces", daemon=True)
    last.start()
    last.join(_SHUTDOWN_TIMEOUT_S)
    if last.is_alive():
        _log.warning("the collector did not take the last traces in time", waited_s=_SHUTDOWN_TIMEOUT_S)

"""The way to a collector: OTLP over HTTP, in batches, from a thread of its own. Needs `prunepool[otel]`."""

from __future__ import annotations

import threading

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

#: At the end, for a collector that does not answer.
_LAST_EXPORT_S = 5.0
_log = structlog.stdlib.get_logger("prunepool.tracing")


def provider_to(endpoint: str | None, version: str) -> TracerProvider:
    """Spans that go to a collector; sampling, service name and the like come from `OTEL_…` variables.

    Args:
        endpoint: the collector's address without a path, or None to take that from the variables too.
        version: ours.
    """
    resource = Resource.create({"service.version": version})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "prunepool"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    address = None if endpoint is None else f"{endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address)))
    return provider


def finish(provider: TracerProvider) -> None:
    """Send what is left, but not for longer than anybody would wait."""
    last = threading.Thread(target=provider.shutdown, name="prunepool-last-traces", daemon=True)
    last.start()
    last.join(_LAST_EXPORT_S)
    if last.is_alive():
        _log.warning("the collector did not take the last traces in time", waited_s=_LAST_EXPORT_S)

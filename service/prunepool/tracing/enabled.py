"""Whether tracing is enabled, by our setting or by OpenTelemetry's environment variables."""

from __future__ import annotations

from collections.abc import Mapping

from prunepool.errors import InvalidParameter

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


def tracing_enabled(endpoint: str | None, environment: Mapping[str, str]) -> bool:
    """Return whether spans are made and exported.

    Args:
        endpoint: the setting `otel_endpoint`.
        environment: environment variables of the process.

    Raises:
        InvalidParameter: the variables select an exporter or a protocol that is not supported.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if not endpoint and not any(environment.get(name) for name in _ENDPOINTS):
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER") or "otlp"
    if exporter == "none":
        return False
    if exporter != "otlp":
        raise InvalidParameter("OTEL_TRACES_EXPORTER", exporter, "otlp or none")
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        raise InvalidParameter("OTEL_EXPORTER_OTLP_PROTOCOL", protocol, _PROTOCOL)
    return True

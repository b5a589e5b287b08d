"""Chooses the format of `/metrics` by what a client accepts."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

#: Versions of Prometheus' text format and of OpenMetrics that prometheus_client knows.
_VERSIONS = frozenset({"0.0.1", "0.0.4", "1.0.0"})
_PARAMETERS = ("version", "escaping")


def encoder_for(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """Return what writes the series, and its Content-Type.

    prometheus_client reads versions as they are in the header, and fails at quotes and letters.

    Args:
        accept: the header; formats in it that are not known are passed over, and without one that is, the text
            format of Prometheus 0.0.4 is taken.
    """
    known = (_readable(media_range) for media_range in accept.split(","))
    return choose_encoder(",".join(filter(None, known)))


def _readable(media_range: str) -> str | None:
    """Return a media range as prometheus_client can read it; None if it asks for a version that nobody knows."""
    kind, *rest = (part.strip() for part in media_range.split(";"))
    parameters = {}
    for parameter in rest:
        name, _, value = parameter.partition("=")
        parameters[name.strip().lower()] = value.strip().strip('"')
    if parameters.get("version", "1.0.0") not in _VERSIONS:
        return None
    kept = [f"{name}={parameters[name]}" for name in _PARAMETERS if name in parameters]
    return ";".join([kind.lower(), *kept])

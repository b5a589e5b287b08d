"""Writes `/metrics`, in the format that a client accepts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from prunepool.metrics import Metrics

#: Versions of Prometheus' text format and of OpenMetrics that prometheus_client knows.
_VERSIONS = frozenset({"0.0.1", "0.0.4", "1.0.0"})
_PARAMETERS = ("version", "escaping")


class Exposition:
    """Writes every series once for all clients that ask at the same time.

    It takes the event loop milliseconds, with several processes tens of them: a flood of scrapes would otherwise
    keep everybody else waiting.

    Args:
        metrics: what is written.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._next: dict[str, asyncio.Task[bytes]] = {}

    async def text(self, accept: str) -> tuple[bytes, str]:
        """Return every series as it is from now on, and the Content-Type.

        Args:
            accept: the header.
        """
        encode, content_type = encoder_for(accept)
        if content_type not in self._next:
            self._next[content_type] = asyncio.create_task(self._write(encode, content_type))
        return await asyncio.shield(self._next[content_type]), content_type

    async def _write(self, encode: Callable[[Collector], bytes], content_type: str) -> bytes:
        del self._next[content_type]  # who asks from now on may have done something that must be seen
        self._metrics.refresh()
        return encode(self._metrics.exposed)


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

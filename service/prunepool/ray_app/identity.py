"""The name of this replica, in log lines and metrics."""

from __future__ import annotations

from contextlib import ExitStack

from ray import serve

from prunepool.logs import serving_logs
from prunepool.metrics import Metrics
from prunepool.settings import Settings


def replica_logging(settings: Settings, metrics: Metrics, stack: ExitStack) -> str:
    """Log as everywhere, with the name of this replica in each line; returns the name.

    Args:
        settings: the form of the lines, and which are logged.
        metrics: counts those that are dropped.
        stack: logging ends with it.
    """
    name: str = serve.get_replica_context().replica_id.unique_id
    lines = stack.enter_context(serving_logs(settings.log_format, settings.log_level, name))
    metrics.follow(metrics.log_lines_dropped, lambda: lines.dropped)
    return name

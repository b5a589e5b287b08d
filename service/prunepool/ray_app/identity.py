"""The name of this replica, in log lines and metrics."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from ray import serve

from prunepool.logs import logging_to
from prunepool.settings import Settings


def replica_logging(settings: Settings, stack: ExitStack) -> str:
    """Log as everywhere, with the name of this replica in each line; returns the name."""
    name: str = serve.get_replica_context().replica_id.unique_id
    stack.enter_context(logging_to(sys.stderr, settings.log_format, settings.log_level, name))
    return name

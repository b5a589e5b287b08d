"""Imported once, in the process that engines are forked from, so that a new engine need not import torch again.

It starts no thread and touches no device. That process ends with the parent and by nothing else: a signal to all
processes of a terminal or a service is the parent's to act upon.
"""

from __future__ import annotations

import prunepool.backends.cuda_graphs
import prunepool.backends.openvino
import prunepool.server.engine_process
import prunepool.server.model_factory  # noqa: F401
from prunepool.machine import tune_malloc
from prunepool.server.parent_watch import ignore_signals

ignore_signals()
tune_malloc()

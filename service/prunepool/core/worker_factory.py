"""Makes the workers of one model: the first, and each that takes over from another."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from prunepool.core.device_share import FairLock
from prunepool.core.profiling import profile_batches
from prunepool.core.served_model import ServedModel
from prunepool.core.types import Limits
from prunepool.core.worker import Post, Worker

#: How long warm-up profiling may take, so that the first predictions are good.
_PROFILE_BUDGET_S = 2.0


class MakeWorker(Protocol):
    """Makes a worker, not yet started."""

    def __call__(self, *, post: Post, profiles: bool = False) -> Worker:
        """One that posts its events to `post`.

        Args:
            post: takes them.
            profiles: whether it times batches even if earlier workers have.
        """


class WorkerFactory:
    """Implements :class:`MakeWorker`: the first worker times batches, unless nothing depends on their times.

    Those that take the place of a dead one keep the cost model, corrected in service.

    Args:
        model: what is served; its backend is made in the thread of the worker.
        limits: bounds of queue and batches; without any in seconds, batches are not timed.
        profiled: whether batches have been timed already.
        device_lock: shared by the models on the device.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        model: ServedModel,
        limits: Limits,
        *,
        profiled: Callable[[], bool],
        device_lock: FairLock,
        clock: Callable[[], float],
    ) -> None:
        self._model = model
        self._limits = limits
        self._profiled = profiled
        self._device_lock = device_lock
        self._clock = clock

    def __call__(self, *, post: Post, profiles: bool = False) -> Worker:
        """Make a worker; see :class:`MakeWorker`."""
        limits, costs = self._limits, self._model.costs
        matters = min(limits.max_batch_s, limits.max_queue_s, limits.target_s) < math.inf
        profiles = matters and (profiles or not self._profiled())
        return Worker(
            f"prunepool-engine-{self._model.name}",
            self._model.make_backend,
            costs=costs,
            input_size=self._model.preprocess.size,
            clock=self._clock,
            post=post,
            profile_batches=profile_batches(costs.max_ratio, limits.max_batch_size) if profiles else (),
            profile_budget_s=_PROFILE_BUDGET_S,
            device_lock=self._device_lock,
        )

"""Runs batches on one backend: drops expired requests, times each batch, knows which one to blame."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from prunepool.core.backend import AsynchronousBackend, Backend, OutOfMemory
from prunepool.core.batcher import expired, trim
from prunepool.core.cost_model import IDLE_S
from prunepool.core.device_share import FairLock
from prunepool.core.events import BatchReport, RunningBatch
from prunepool.core.types import Batch, Costs, Output

log = logging.getLogger(__name__)


class LaunchedBatch(NamedTuple):
    """A batch on an asynchronous device.

    Attributes:
        batch: as given.
        ran: the part of it that was launched.
        started: when it was launched.
        handle: what the backend returned for it.
    """

    batch: Batch
    ran: Batch
    started: float
    handle: object


class BatchRunner:
    """Runs one batch after the other; for the thread that owns the backend.

    Args:
        name: of the worker, for log lines.
        costs: of each ratio.
        clock: seconds, monotonic; deadlines are on it.
        device_lock: knows when the device last finished a batch of any model.

    Attributes:
        running: the batch that the device computes now.
        failed: the batch whose launch or computation raised, after one has.
    """

    def __init__(self, name: str, *, costs: Costs, clock: Callable[[], float], device_lock: FairLock) -> None:
        self._name = name
        self._costs = costs
        self._clock = clock
        self._device_lock = device_lock
        self._finished = 0.0
        self.running: RunningBatch | None = None
        self.failed: Batch | None = None

    def run(self, backend: Backend, batch: Batch) -> BatchReport:
        """Compute a batch and wait for it.

        Raises:
            Exception: of the backend, other than :class:`OutOfMemory`.
        """
        started = self._clock()
        running = self.running = RunningBatch(started, started - self._device_lock.ended >= IDLE_S)
        ran = self._without_expired(batch, started)
        outputs: Sequence[Output] | None = ()
        self.failed = batch
        if ran.items:
            _set_marks(ran)
            try:
                outputs = backend.run(ran, backend.prepare(ran))
            except OutOfMemory as error:
                self._warn(ran, error)
                outputs = None
        report = self._report(batch, ran, outputs, running, self._clock())
        self.failed = self.running = None
        return report

    def begin(self) -> None:
        """Say once that the device is idle, before the first :meth:`launch`."""
        self._finished = self._clock()

    def launch(
        self, backend: AsynchronousBackend, batch: Batch, wake: Callable[[], object]
    ) -> LaunchedBatch | BatchReport:
        """Have the device compute a batch.

        Args:
            backend: of the device.
            batch: to compute.
            wake: may be called when it is time to ask whether the batch is done.

        Returns:
            The launched batch; or its report, where there is nothing to compute or no memory for it.

        Raises:
            Exception: of the backend, other than :class:`OutOfMemory`.
        """
        started = self._clock()
        ran = self._without_expired(batch, started)
        if not ran.items:
            return BatchReport(batch, ran, (), started, started, idle_before=False)
        _set_marks(ran)
        try:
            return LaunchedBatch(batch, ran, started, backend.launch(ran, backend.prepare(ran), wake))
        except OutOfMemory as error:
            self._warn(ran, error)
            _clear_marks(ran)
            return BatchReport(batch, ran, None, started, self._clock(), idle_before=False)

    def computes(self, launched: LaunchedBatch | None) -> None:
        """Note which batch the device computes, once the one launched before it is collected."""
        self.running = None
        if launched is not None:
            # A batch that waited for the one before it has run only since that one was done.
            since = max(launched.started, self._finished)
            idle_before = launched.started - self._device_lock.ended >= IDLE_S
            self.running = RunningBatch(since, idle_before)

    def collect(self, backend: AsynchronousBackend, launched: LaunchedBatch) -> BatchReport:
        """Wait for the batch that the device computes.

        Raises:
            Exception: of the backend.
        """
        assert self.running is not None
        self.failed = launched.batch
        outputs = backend.collect(launched.ran, launched.handle)
        self._finished = self._clock()
        self._device_lock.record_end(self._finished)
        report = self._report(launched.batch, launched.ran, outputs, self.running, self._finished)
        self.failed = None
        return report

    def _without_expired(self, batch: Batch, now: float) -> Batch:
        return trim(batch, lambda request: not expired(request, now), self._costs)

    def _warn(self, batch: Batch, error: OutOfMemory) -> None:
        log.warning("%s: no memory for a batch of %d: %s", self._name, len(batch.items), error)

    @staticmethod
    def _report(
        batch: Batch,
        ran: Batch,
        outputs: Sequence[Output] | None,
        running: RunningBatch,
        finished: float,
    ) -> BatchReport:
        if outputs is not None and len(outputs) != len(ran.items):
            raise RuntimeError(f"the backend gave {len(outputs)} outputs for {len(ran.items)} images")
        _clear_marks(ran)
        return BatchReport(batch, ran, outputs, running.since, finished, running.idle_before)


def _set_marks(batch: Batch) -> None:
    for item in batch.items:
        if (mark := item.request.mark) is not None:
            mark.set()


def _clear_marks(batch: Batch) -> None:
    for item in batch.items:
        if (mark := item.request.mark) is not None:
            mark.clear()

"""One thread that owns a backend: batches in, events out.

The thread makes the backend, warms it up, times some batches and reports `Ready`; after that it answers each
batch with a `BatchReport`. However it ends, told to or by any exception, it closes the backend and reports
`Ended`. Events arrive on the event loop as calls of `post`. A thread that hangs cannot report it; the
supervisor's timers see that.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Literal, TypeAlias

from prunepool.core.backend import AsynchronousBackend, Backend
from prunepool.core.batch_runner import BatchRunner, LaunchedBatch
from prunepool.core.cost_model import TimedBatch
from prunepool.core.device_share import FairLock
from prunepool.core.events import BatchReport, Ended, Event, Ready, RunningBatch
from prunepool.core.profiling import Ratios, profile, warm_up_batch
from prunepool.core.threads import name_thread
from prunepool.core.types import Batch, Costs

#: The name of computing threads, as the operating system shows it.
COMPUTES = "model"
#: In the queue of batches: the device may be done.
_WAKE: Literal["wake"] = "wake"

log = logging.getLogger(__name__)

Post: TypeAlias = "Callable[[Worker, Event], None]"


class Worker:
    """A daemon thread with a backend of its own.

    Args:
        name: of the thread.
        make_backend: makes the backend; called in the thread.
        costs: of each ratio.
        input_size: input resolution of the images that are timed, in pixels a side.
        profile_batches: ratios of the batches to time after a single dense image, smallest first.
        profile_budget_s: seconds for timing them.
        clock: seconds, monotonic; deadlines are on it.
        post: takes each event, on the loop that runs when the worker is made; dropped once that is closed.
        device_lock: shared by the models on the device; without it the worker has the device to itself.
    """

    def __init__(
        self,
        name: str,
        make_backend: Callable[[], Backend],
        *,
        costs: Costs,
        input_size: int,
        clock: Callable[[], float],
        post: Post,
        profile_batches: Sequence[Ratios] = (),
        profile_budget_s: float = 0.0,
        device_lock: FairLock | None = None,
    ) -> None:
        self._make_backend = make_backend
        self._costs = costs
        self._input_size = input_size
        self._profile_batches = profile_batches
        self._profile_budget_s = profile_budget_s
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._post = post
        self._batches: SimpleQueue[Batch | Literal["wake"] | None] = SimpleQueue()
        self._stopped = False
        self._device_lock = device_lock or FairLock()
        self._runner = BatchRunner(name, costs=costs, clock=clock, device_lock=self._device_lock)
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    @property
    def running(self) -> RunningBatch | None:
        """The batch that the device computes now."""
        return self._runner.running

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def give(self, batch: Batch) -> None:
        """Run a batch after those given before."""
        self._batches.put(batch)

    def stop(self) -> None:
        """Start no further batch, and end once the running one is done."""
        self._stopped = True
        self._batches.put(None)

    def abandon(self) -> None:
        """Stop waiting for this worker, and let other models have the device."""
        self.stop()
        self._device_lock.release(self, self._clock())

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; whether it is over."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _main(self) -> None:
        name_thread(COMPUTES)  # inherited by the OpenMP threads that it starts
        error: BaseException | None = None
        try:
            self._own_backend()
        except BaseException as caught:  # not even SystemExit may end the thread unseen
            error = caught
        self._report(Ended(error, self._runner.failed))

    def _own_backend(self) -> None:
        backend = self._make_backend()
        try:
            backend.warm_up()
            self._report(Ready(self._profile(backend)))
            if isinstance(backend, AsynchronousBackend):
                self._run_overlapped(backend)
            else:
                self._run_in_turn(backend)
        finally:
            try:
                backend.close()
            except Exception:
                # The batch or the error is reported, which is what matters; a half-closed device cannot be helped.
                log.exception("closing the backend of %s failed", self._thread.name)

    def _run_in_turn(self, backend: Backend) -> None:
        """Run each batch while holding the device, until told to stop."""
        while (batch := self._next()) is not None and not self._stopped:
            if not self._device_lock.acquire(self):
                return
            try:
                report = self._runner.run(backend, batch)
            finally:
                self._device_lock.release(self, self._clock())
            self._report(report)

    def _run_overlapped(self, backend: AsynchronousBackend) -> None:
        """Launch each batch while the device computes the one before, until told to stop.

        A batch with a request that was in a failed batch before runs with nothing else on the device, so that a
        second failure can be blamed on it and on no other. Nor is a batch launched early while another model waits
        for a device that does not order models itself.
        """
        self._runner.begin()
        lock = None if backend.orders_models else self._device_lock
        head: LaunchedBatch | None = None
        batch: Batch | None = None
        try:
            while head is not None or not self._stopped:
                if batch is None:
                    batch = self._next() if head is None else self._next_while(backend, head)
                following: LaunchedBatch | BatchReport | None = None
                launch_error: BaseException | None = None
                launched = None
                if batch is not None and not self._stopped and self._may_launch(batch, head, lock):
                    if head is None and lock is not None and not lock.acquire(self):
                        return
                    launched, batch = batch, None
                    try:
                        following = self._runner.launch(backend, launched, self._wake)
                    except BaseException as error:  # raised below: the batch that runs comes first
                        launch_error = error
                if head is not None:
                    # If this raises as well, the batch that ran was first to fail: a device reports late.
                    self._report(self._runner.collect(backend, head))
                if launch_error is not None:
                    self._runner.failed = launched
                    raise launch_error
                if isinstance(following, BatchReport):
                    self._report(following)
                    following = None
                head = following
                self._runner.computes(head)
                if head is None and lock is not None:
                    lock.release(self, self._clock())
        finally:
            if lock is not None:
                lock.release(self, self._clock())

    def _may_launch(self, batch: Batch, head: LaunchedBatch | None, lock: FairLock | None) -> bool:
        """Whether to launch a batch now, or only when the one that runs is collected."""
        return head is None or not (_suspect(batch) or (lock is not None and lock.contended))

    def _next(self) -> Batch | None:
        """The next batch; None when told to stop."""
        while (batch := self._batches.get()) == _WAKE:
            pass
        return batch

    def _next_while(self, backend: AsynchronousBackend, head: LaunchedBatch) -> Batch | None:
        """The next batch, if one comes while the device computes `head` and may run beside it."""
        if _suspect(head.batch):
            return None
        while not backend.done(head.handle):
            with suppress(Empty):
                batch = self._batches.get(timeout=backend.poll_s)
                if batch != _WAKE:
                    return batch
        return None

    def _wake(self) -> None:
        self._batches.put(_WAKE)

    def _profile(self, backend: Backend) -> tuple[TimedBatch, ...]:
        """The times that the first predictions are made from; they also show that batches run at all."""

        def run_s(ratios: Ratios) -> float | None:
            batch = warm_up_batch(ratios, self._input_size, self._costs, self._clock())
            # Others may compute on the device: the worker that this one is to replace, and other models.
            self._device_lock.acquire(self)
            try:
                report = self._runner.run(backend, batch)
            finally:
                self._device_lock.release(self, self._clock())
            return None if report.outputs is None else report.finished - report.started

        return profile(
            run_s,
            self._profile_batches,
            costs=self._costs,
            budget_s=self._profile_budget_s,
            clock=self._clock,
            stopped=lambda: self._stopped,
        )

    def _report(self, event: Event) -> None:
        # RuntimeError: the loop is closed, so nobody waits for this any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._post, self, event)


def _suspect(batch: Batch) -> bool:
    """Whether a request of the batch was in a failed batch before."""
    return any(item.request.attempts for item in batch.items)

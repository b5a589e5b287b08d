"""One thread that owns a backend: batches in, events out, and no death goes unreported.

The thread makes the backend, warms it up, times some batches and says `Ready`; then it answers each batch
with a `BatchReport`. However it ends, by order or by any exception, it closes the backend and says `Ended`. Events
arrive on the event loop as calls of `post`. What the thread cannot say itself, that it hangs, others see.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import NamedTuple, TypeAlias

import numpy as np

from prunepool.core.backend import AsynchronousBackend, Backend, OutOfMemory
from prunepool.core.batcher import expired, trim
from prunepool.core.cost_model import IDLE_S, TimedBatch, effort
from prunepool.core.device_share import FairLock
from prunepool.core.profiling import ROUNDS
from prunepool.core.threads import name_thread
from prunepool.core.types import Batch, BatchItem, Costs, Output, RatioSpec, Request

#: The reason of an item that nobody asked for, run to see that a new backend works and how fast.
WARM_UP = "warm-up"
#: What the system calls the threads that compute.
COMPUTES = "model"
#: How often a device that computes is asked whether it is done, while another batch may come.
_LOOK_S = 0.0002

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """The backend is warm.

    Attributes:
        profile: batches that were timed, at least a single dense image.
    """

    profile: tuple[TimedBatch, ...]


@dataclass(frozen=True, slots=True)
class BatchReport:
    """A batch was run.

    Attributes:
        batch: as it was given.
        ran: what of it reached the device; deadlines that had passed by then are left out.
        outputs: one for each of `ran`; None where the device had no room.
        started: when it reached the device.
        finished: when the outputs were there.
        idle_before: whether the device had nothing to do for a while before.
    """

    batch: Batch
    ran: Batch
    outputs: Sequence[Output] | None
    started: float
    finished: float
    idle_before: bool


class RunningBatch(NamedTuple):
    """The batch that is on the device now.

    Attributes:
        since: when it began.
        idle_before: whether the device had nothing to do for a while before.
    """

    since: float
    idle_before: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """The thread is over and its backend closed.

    Attributes:
        error: what killed it; None if it was told to stop.
    """

    error: BaseException | None


#: The ratio of each image of a batch.
Ratios: TypeAlias = tuple[float, ...]
Event = Ready | BatchReport | Ended


class _UnderWay(NamedTuple):
    """A batch that the device computes: as given, what of it, since when, and the backend's own."""

    batch: Batch
    ran: Batch
    started: float
    launched: object


Post: TypeAlias = "Callable[[Worker, Event], None]"


class Worker:
    """A daemon thread with a backend of its own.

    Args:
        name: of the thread.
        factory: makes the backend, in the thread.
        costs: what a ratio costs.
        image_size: pixels a side of the images that are timed.
        profile_batches: the ratios of the batches to time after a single dense image, the smallest first.
        profile_budget_s: how long that may take.
        clock: seconds, monotonic; the one that deadlines are given in.
        post: takes each event, on the loop that runs when the worker is made; dropped once that is closed.
        device_lock: shared by the models on the device; it has the device to itself, if not given.

    Attributes:
        running: what is on the device now.
    """

    def __init__(
        self,
        name: str,
        factory: Callable[[], Backend],
        *,
        costs: Costs,
        image_size: int,
        clock: Callable[[], float],
        post: Post,
        profile_batches: Sequence[Ratios] = (),
        profile_budget_s: float = 0.0,
        device_lock: FairLock | None = None,
    ) -> None:
        self._factory = factory
        self._costs = costs
        self._image_size = image_size
        self._profile_batches = profile_batches
        self._profile_budget_s = profile_budget_s
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._post = post
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._stopped = False
        self._device_lock = device_lock or FairLock()
        self.running: RunningBatch | None = None
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def give(self, batch: Batch) -> None:
        """Run a batch after those given before."""
        self._batches.put(batch)

    def stop(self) -> None:
        """Start nothing more, and end as soon as what runs is done, should it ever be."""
        self._stopped = True
        self._batches.put(None)

    def abandon(self) -> None:
        """Expect nothing more of it, and let others have the device."""
        self.stop()
        self._device_lock.release(self, self._clock())

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; whether it is over."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _main(self) -> None:
        name_thread(COMPUTES)  # those of OpenMP, which it starts, are called so too
        error: BaseException | None = None
        try:
            self._own_backend()
        except BaseException as caught:  # not even SystemExit may end the thread unseen
            error = caught
        self._say(Ended(error))

    def _own_backend(self) -> None:
        backend = self._factory()
        try:
            backend.warm_up()
            self._say(Ready(self._profile(backend)))
            if isinstance(backend, AsynchronousBackend):
                self._overlap(backend)
                return
            while (batch := self._batches.get()) is not None and not self._stopped:
                if not self._device_lock.acquire(self):
                    return
                try:
                    report = self._run(backend, batch)
                finally:
                    self.running = None
                    self._device_lock.release(self, self._clock())
                self._say(report)
        finally:
            try:
                backend.close()
            except Exception:
                # What matters, the batch or the death, is reported; a device half closed cannot be helped.
                log.exception("closing the backend of %s failed", self._thread.name)

    def _overlap(self, backend: AsynchronousBackend) -> None:
        """Launch a batch while the one before it is computed, until told to stop."""
        head: _UnderWay | None = None
        finished = self._clock()
        while head is not None or not self._stopped:
            batch = self._batches.get() if head is None else self._meanwhile(backend, head)
            following = None if batch is None or self._stopped else self._launch(backend, batch)
            if head is not None:
                assert self.running is not None
                outputs = backend.collect(head.ran, head.launched)
                finished = self._clock()
                self._device_lock.record_end(finished)
                self._say(self._report(head.batch, head.ran, outputs, self.running, finished))
            if isinstance(following, BatchReport):
                self._say(following)
                following = None
            head, self.running = following, None
            if head is not None:
                # A batch that waited for the one before has run only since that one was done.
                self.running = RunningBatch(max(head.started, finished), head.started - finished >= IDLE_S)

    def _meanwhile(self, backend: AsynchronousBackend, running: _UnderWay) -> Batch | None:
        """The batch that comes while another is computed; None if that is done first, or the end has come."""
        while not backend.done(running.launched):
            with suppress(Empty):
                return self._batches.get(timeout=_LOOK_S)
        return None

    def _launch(self, backend: AsynchronousBackend, batch: Batch) -> _UnderWay | BatchReport:
        """Have a batch computed; its report, where there is nothing to compute or no room."""
        started = self._clock()
        ran = self._fresh(batch, started)
        if not ran.items:
            return BatchReport(batch, ran, (), started, started, idle_before=False)
        try:
            return _UnderWay(batch, ran, started, backend.launch(ran, backend.prepare(ran)))
        except OutOfMemory as error:
            self._warn(ran, error)
            return BatchReport(batch, ran, None, started, self._clock(), idle_before=False)

    def _profile(self, backend: Backend) -> tuple[TimedBatch, ...]:
        """The first predictions of speed, and proof that a batch goes through."""
        dense_image = self._time(backend, (0.0,))
        if dense_image is None:
            raise OutOfMemory("the device has no room for a single image")
        best: dict[Ratios, float] = {(0.0,): dense_image}
        over = self._clock() + self._profile_budget_s
        for ratios in [ratios for _ in range(ROUNDS) for ratios in self._profile_batches]:
            pace = min(seconds / self._gmacs(one) for one, seconds in best.items())
            if self._stopped or self._clock() + pace * self._gmacs(ratios) > over:
                continue
            seconds = self._time(backend, ratios)
            if seconds is None:
                break
            best[ratios] = min(seconds, best.get(ratios, seconds))
        return tuple(
            TimedBatch(effort(Counter(ratios), self._costs.gmacs), seconds)
            for ratios, seconds in best.items()
        )

    def _gmacs(self, ratios: Ratios) -> float:
        return sum(map(self._costs.gmacs, ratios))

    def _time(self, backend: Backend, ratios: Ratios) -> float | None:
        """Seconds that a batch of black images takes; None where the device has no room for it."""
        pixels = np.zeros((self._image_size, self._image_size, 3), np.uint8)
        now = self._clock()
        items = tuple(
            BatchItem(Request(pixels, RatioSpec(ratio, ratio), now), ratio, WARM_UP) for ratio in ratios
        )
        report = self._run(backend, Batch(items, self._gmacs(ratios)))
        self.running = None
        return None if report.outputs is None else report.finished - report.started

    def _run(self, backend: Backend, batch: Batch) -> BatchReport:
        started = self._clock()
        self.running = RunningBatch(started, idle_before=started - self._device_lock.ended >= IDLE_S)
        ran = self._fresh(batch, started)
        outputs: Sequence[Output] | None = ()
        if ran.items:
            try:
                outputs = backend.run(ran, backend.prepare(ran))
            except OutOfMemory as error:
                self._warn(ran, error)
                outputs = None
        return self._report(batch, ran, outputs, self.running, self._clock())

    def _fresh(self, batch: Batch, now: float) -> Batch:
        return trim(batch, lambda request: not expired(request, now), self._costs)

    def _warn(self, batch: Batch, error: OutOfMemory) -> None:
        log.warning("%s: no room for a batch of %d: %s", self._thread.name, len(batch.items), error)

    def _report(
        self,
        batch: Batch,
        ran: Batch,
        outputs: Sequence[Output] | None,
        running: RunningBatch,
        finished: float,
    ) -> BatchReport:
        if outputs is not None and len(outputs) != len(ran.items):
            raise RuntimeError(f"the backend gave {len(outputs)} outputs for {len(ran.items)} images")
        return BatchReport(batch, ran, outputs, running.since, finished, running.idle_before)

    def _say(self, event: Event) -> None:
        # RuntimeError: the loop is closed, so nobody waits for this any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._post, self, event)

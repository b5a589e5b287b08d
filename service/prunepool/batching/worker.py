"""One thread that owns a runner: batches in, events out, and no death goes unreported.

The thread makes the runner, warms it up, times one image and says `Ready`; then it answers each batch with a
`Report`. However it ends, by order or by any exception, it closes the runner and says `Ended`. Events arrive
on the event loop as calls of `post`. What the thread cannot say itself, that it hangs, is for others to see.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeAlias

import numpy as np

from prunepool.batching.batcher import expired, trim
from prunepool.batching.types import Batch, Costs, Dial, Outcome, OutOfMemory, Request, Runner, Work

#: The reason of a work that nobody asked for, run to see that a new runner works and how fast.
WARM_UP = "warm-up"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """The runner is warm.

    Attributes:
        gmacs: predicted cost of the image that was timed.
        seconds: how long it took.
    """

    gmacs: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """A batch was run.

    Attributes:
        batch: as it was given.
        ran: what of it reached the device; deadlines that had passed by then are left out.
        outcomes: one for each of `ran`; None where the device had no room.
        started: when it reached the device.
        finished: when the outcomes were there.
    """

    batch: Batch
    ran: Batch
    outcomes: Sequence[Outcome] | None
    started: float
    finished: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The thread is over and its runner closed.

    Attributes:
        error: what killed it; None if it was told to stop.
    """

    error: BaseException | None


Event = Ready | Report | Ended
Post: TypeAlias = "Callable[[Worker, Event], None]"


class Worker:
    """A daemon thread with a runner of its own.

    Args:
        name: of the thread.
        factory: makes the runner, in the thread.
        costs: what a ratio costs.
        image_size: pixels a side of the image that is timed.
        clock: seconds, monotonic; the one that deadlines are given in.
        post: takes each event, on the loop that runs when the worker is made; dropped once that is closed.
    """

    def __init__(
        self,
        name: str,
        factory: Callable[[], Runner],
        *,
        costs: Costs,
        image_size: int,
        clock: Callable[[], float],
        post: Post,
    ) -> None:
        self._factory = factory
        self._costs = costs
        self._image_size = image_size
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._post = post
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._stopped = False
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

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; whether it is over."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _main(self) -> None:
        error: BaseException | None = None
        try:
            self._own_a_runner()
        except BaseException as caught:  # not even SystemExit may end the thread unseen
            error = caught
        self._say(Ended(error))

    def _own_a_runner(self) -> None:
        runner = self._factory()
        try:
            runner.warm_up()
            self._say(self._time_one_image(runner))
            while (batch := self._batches.get()) is not None and not self._stopped:
                self._say(self._run(runner, batch))
        finally:
            try:
                runner.close()
            except Exception:
                # What matters, the batch or the death, is reported; a device half closed cannot be helped.
                log.exception("closing the runner of %s failed", self._thread.name)

    def _time_one_image(self, runner: Runner) -> Ready:
        """The first prediction of speed, and proof that a batch goes through."""
        pixels = np.zeros((self._image_size, self._image_size, 3), np.uint8)
        request = Request(pixels, Dial(0.0, 0.0), self._clock())
        gmacs = self._costs.gmacs(0.0)
        report = self._run(runner, Batch((Work(request, 0.0, WARM_UP),), gmacs))
        if report.outcomes is None:
            raise OutOfMemory("the device has no room for a single image")
        return Ready(gmacs, report.finished - report.started)

    def _run(self, runner: Runner, batch: Batch) -> Report:
        started = self._clock()
        ran = trim(batch, lambda request: not expired(request, started), self._costs)
        outcomes: Sequence[Outcome] | None = ()
        if ran.works:
            try:
                outcomes = runner.run(ran, runner.prepare(ran))
            except OutOfMemory as error:
                log.warning("%s: no room for a batch of %d: %s", self._thread.name, len(ran.works), error)
                outcomes = None
        if outcomes is not None and len(outcomes) != len(ran.works):
            raise RuntimeError(f"the runner gave {len(outcomes)} outcomes for {len(ran.works)} images")
        return Report(batch, ran, outcomes, started, self._clock())

    def _say(self, event: Event) -> None:
        # RuntimeError: the loop is closed, so nobody waits for this any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._post, self, event)

"""A device shared by several models: whose batch runs next, and how much work the others have for it.

On a CPU batches of different models run one after the other, under a fair lock. Two at once would share the
cores and each take about twice as long, which no prediction could know; in turn they end no later. A worker that
launches ahead keeps the lock over several batches, until another model waits. A GPU orders the batches of several
streams itself, so its workers take no lock, but its models see each other's backlog too.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

#: A holder that keeps the lock longer is passed over: a model that hangs must not stop the others.
_HOLD_TIMEOUT_S = 2.0
#: Time constant of the average over the device time that other models have taken.
_MEMORY_S = 3.0


class ModelBacklog(NamedTuple):
    """The work that a model has for a device, in predicted seconds.

    Attributes:
        seconds: all of it.
        run_s: one batch of it.
    """

    seconds: float
    run_s: float


class FairLock:
    """A first-come-first-served lock: a busy model gets every other turn at most while another waits.

    Called from worker threads; :meth:`release` also from the event loop, for a worker that hangs.

    Args:
        hold_timeout_s: a holder that keeps the lock longer is passed over.
    """

    def __init__(self, hold_timeout_s: float = _HOLD_TIMEOUT_S) -> None:
        self._hold_timeout_s = hold_timeout_s
        self._change = threading.Condition()
        #: The holder, then those who wait.
        self._queue: deque[object] = deque()
        #: Holders that were passed over and have not released.
        self._overdue: set[object] = set()
        self._ended = -math.inf

    @property
    def ended(self) -> float:
        """When the device last finished a batch."""
        return self._ended

    @property
    def contended(self) -> bool:
        """Whether anybody waits for the lock."""
        return len(self._queue) > 1

    def acquire(self, owner: object) -> bool:
        """Wait for the lock.

        Returns:
            Whether the owner has it; not if :meth:`release` was called for it meanwhile.
        """
        with self._change:
            self._queue.append(owner)
            while owner in self._queue and (holder := self._queue[0]) is not owner:
                if not self._change.wait_for(lambda: self._moved(owner, holder), self._hold_timeout_s):
                    # Passed over for all who come later as well.
                    self._queue.remove(holder)
                    self._overdue.add(holder)
                    self._change.notify_all()
            return owner in self._queue

    def record_end(self, now: float) -> None:
        """Note the end of a batch that ran without the lock."""
        self._ended = now

    def release(self, owner: object, now: float) -> None:
        """Give the lock to the next in the queue. A second release, of an owner released before, does nothing."""
        with self._change:
            if owner in self._overdue:
                self._overdue.remove(owner)
                self._ended = now
            elif owner in self._queue:
                if self._queue[0] is owner and not self._overdue:
                    self._ended = now
                self._queue.remove(owner)
                self._change.notify_all()

    def _moved(self, owner: object, holder: object) -> bool:
        """Whether the lock has another holder, or the owner waits no longer."""
        return owner not in self._queue or self._queue[0] is not holder


class SharedDevice:
    """The models on one device; all calls come from the event loop.

    Attributes:
        lock: held for each batch on a device that cannot order batches itself.
    """

    def __init__(self) -> None:
        self.lock = FairLock()
        self._backlogs: dict[object, Callable[[], ModelBacklog]] = {}
        self._used: dict[object, float] = {}
        self._used_at = 0.0

    def join(self, model: object, backlog: Callable[[], ModelBacklog]) -> None:
        """Add a model.

        Args:
            model: its scheduler.
            backlog: its work for the device now.
        """
        self._backlogs[model] = backlog

    def leave(self, model: object) -> None:
        """Remove a model; idempotent."""
        self._backlogs.pop(model, None)
        self._used.pop(model, None)

    def others(self, model: object) -> tuple[ModelBacklog, ...]:
        """The work that the other models have for the device."""
        return tuple(backlog() for other, backlog in self._backlogs.items() if other != model)

    def used(self, model: object, seconds: float, now: float) -> None:
        """Note that a model's batch has run."""
        decay = self._decay(now)
        self._used = {other: share * decay for other, share in self._used.items()}
        self._used_at = now
        if model in self._backlogs:
            self._used[model] = self._used.get(model, 0.0) + seconds / _MEMORY_S

    def taken(self, model: object, now: float) -> float:
        """The share of the device's time that the other models have taken recently, from 0 to 1."""
        share = sum(share for other, share in self._used.items() if other != model)
        return min(1.0, share * self._decay(now))

    def _decay(self, now: float) -> float:
        return math.exp(-max(0.0, now - self._used_at) / _MEMORY_S)

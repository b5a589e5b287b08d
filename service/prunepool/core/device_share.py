"""One device and the models on it: their batches take turns, and each model knows what the others have for it.

Two batches that ran at once would share the cores, each take about twice as long, and neither could know. One
after the other they end no later, and each takes as long as was predicted.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

#: A turn that lasts longer is not waited for: what hangs in one model must not stop the others.
_HOLD_TIMEOUT_S = 2.0
#: Seconds that count for how much of a device others have taken of late.
_MEMORY_S = 3.0


class ModelBacklog(NamedTuple):
    """What a model has for a device.

    Attributes:
        seconds: all of it.
        run_s: one run of it.
    """

    seconds: float
    run_s: float


class FairLock:
    """Who may run: first come, first served, so that a model with much to do takes every other turn at most.

    Called from the threads that run batches, but for the return of somebody else's turn.

    Args:
        hold_timeout_s: a turn that lasts longer is not waited for.
    """

    def __init__(self, hold_timeout_s: float = _HOLD_TIMEOUT_S) -> None:
        self._hold_timeout_s = hold_timeout_s
        self._change = threading.Condition()
        self._queue: deque[object] = deque()
        self._overdue: set[object] = set()
        self._ended = -math.inf

    @property
    def ended(self) -> float:
        """When the last batch ended."""
        return self._ended

    def acquire(self, who: object) -> bool:
        """Wait for a turn; whether to run, for it may also be given back in another's name meanwhile."""
        with self._change:
            self._queue.append(who)
            while who in self._queue and (first := self._queue[0]) is not who:
                if not self._change.wait_for(lambda: self._moved(who, first), self._hold_timeout_s):
                    # Nor do those wait for it who come later.
                    self._queue.remove(first)
                    self._overdue.add(first)
                    self._change.notify_all()
            return who in self._queue

    def record_end(self, now: float) -> None:
        """A batch has ended that took no turn."""
        self._ended = now

    def release(self, who: object, now: float) -> None:
        """Let the next one run. Of one that hangs, others give back the turn; its own return is then none."""
        with self._change:
            if who in self._overdue:
                self._overdue.remove(who)
                self._ended = now
            elif who in self._queue:
                if self._queue[0] is who and not self._overdue:
                    self._ended = now
                self._queue.remove(who)
                self._change.notify_all()

    def _moved(self, who: object, first: object) -> bool:
        """Whether the line has, for one who waits in it, since `first` was its head."""
        return who not in self._queue or self._queue[0] is not first


class SharedDevice:
    """What the models on a device know of each other; all calls come from the event loop.

    Attributes:
        lock: acquired for each batch.
    """

    def __init__(self) -> None:
        self.lock = FairLock()
        self._backlogs: dict[object, Callable[[], ModelBacklog]] = {}
        self._used: dict[object, float] = {}
        self._used_at = 0.0

    def join(self, who: object, backlog: Callable[[], ModelBacklog]) -> None:
        """Be one of the models on it.

        Args:
            who: the model.
            backlog: what it has for the device now.
        """
        self._backlogs[who] = backlog

    def leave(self, who: object) -> None:
        """Be none of them any more; idempotent."""
        self._backlogs.pop(who, None)
        self._used.pop(who, None)

    def others(self, who: object) -> tuple[ModelBacklog, ...]:
        """What the other models have for the device."""
        return tuple(backlog() for other, backlog in self._backlogs.items() if other != who)

    def used(self, who: object, seconds: float, now: float) -> None:
        """A batch has run."""
        fading = self._fading(now)
        self._used = {other: share * fading for other, share in self._used.items()}
        self._used_at = now
        if who in self._backlogs:
            self._used[who] = self._used.get(who, 0.0) + seconds / _MEMORY_S

    def taken(self, who: object, now: float) -> float:
        """The share of the device's time that the other models have taken of late."""
        share = sum(share for other, share in self._used.items() if other != who)
        return min(1.0, share * self._fading(now))

    def _fading(self, now: float) -> float:
        return math.exp(-max(0.0, now - self._used_at) / _MEMORY_S)

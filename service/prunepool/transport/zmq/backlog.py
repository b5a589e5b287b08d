"""What an engine still has to do for one model, as a front end knows it. No clock, no I/O."""

from __future__ import annotations

from collections import deque


class EngineBacklog:
    """The last load that an engine reported, and the requests sent to it that this load does not count yet."""

    def __init__(self) -> None:
        self._drain_s = 0.0
        self._at = 0.0
        self._uncounted: deque[int] = deque()

    def send(self, number: int) -> None:
        """A request is on its way; each has a higher number than the one before."""
        self._uncounted.append(number)

    def update(self, drain_s: float, last_sequence: int, at: float) -> None:
        """The engine reports its load.

        Args:
            drain_s: predicted seconds for everything it has.
            last_sequence: the last request that this counts; those sent after it are still on their way.
            at: seconds, when the report came.
        """
        self._drain_s, self._at = drain_s, at
        while self._uncounted and self._uncounted[0] <= last_sequence:
            self._uncounted.popleft()

    def predicted_s(self, now: float, image_s: float) -> float:
        """Seconds until it has done all that it was sent.

        Args:
            now: seconds, of the clock of :meth:`update`; it has worked since.
            image_s: seconds that one image takes by itself.
        """
        return max(0.0, self._drain_s - (now - self._at)) + len(self._uncounted) * image_s

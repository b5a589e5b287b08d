"""What an engine still has to do for one model, as a front end knows it. No clock, no I/O."""

from __future__ import annotations

from collections import deque


class Backlog:
    """What the engine said last, and what was sent to it that it had not heard of then."""

    def __init__(self) -> None:
        self._drain_s = 0.0
        self._at = 0.0
        self._unheard: deque[int] = deque()

    def send(self, number: int) -> None:
        """A question is on its way; each has a higher number than the one before."""
        self._unheard.append(number)

    def say(self, drain_s: float, heard: int, at: float) -> None:
        """The engine says how it is.

        Args:
            drain_s: seconds that all it has will take it.
            heard: the last question that this counts; what was sent after it is still on its way.
            at: seconds, when this was said.
        """
        self._drain_s, self._at = drain_s, at
        while self._unheard and self._unheard[0] <= heard:
            self._unheard.popleft()

    def predicted_s(self, now: float, image_s: float) -> float:
        """Seconds until it has done all that it was sent.

        Args:
            now: seconds, of the clock of :meth:`say`; it has worked since.
            image_s: seconds that one image takes by itself.
        """
        return max(0.0, self._drain_s - (now - self._at)) + len(self._unheard) * image_s

"""When a worker that died is replaced: pauses that double, and when to stop hoping."""

from __future__ import annotations

#: After so many failed restarts in a row the error is taken to last as long as the process: a CUDA error does.
HOPELESS_AFTER = 2


class RestartBackoff:
    """Counts the deaths and failed restarts of one model's workers.

    Args:
        first_delay_s: pause before the first restart; it doubles until a batch succeeds.
        max_delay_s: longest pause.
    """

    def __init__(self, first_delay_s: float, max_delay_s: float) -> None:
        self._first_delay_s = first_delay_s
        self._max_delay_s = max_delay_s
        #: Since a batch last succeeded.
        self._deaths = 0
        #: Since a restart last succeeded.
        self._failed_restarts = 0

    @property
    def restarting(self) -> bool:
        """Whether the next start replaces a worker that died."""
        return self._deaths > 0

    @property
    def delay_s(self) -> float:
        """The pause before the next restart."""
        return min(self._first_delay_s * 2.0 ** min(self._deaths - 1, 60), self._max_delay_s)

    def died(self, *, starting: bool) -> bool:
        """Count a death.

        Args:
            starting: whether the worker had not been ready yet.

        Returns:
            Whether restarts became hopeless by it.
        """
        self._deaths += 1
        self._failed_restarts += starting
        return starting and self._failed_restarts == HOPELESS_AFTER

    def started(self) -> None:
        """A restart succeeded."""
        self._failed_restarts = 0

    def batch_succeeded(self) -> None:
        """A batch succeeded: the next pause is the first again."""
        self._deaths = 0

"""The restart grace period: how long accepted requests wait for a backend that died."""

from __future__ import annotations

from collections.abc import Callable

from prunepool.core.timer import Timer


class RestartGrace:
    """Calls back a fixed time after a death, unless a batch has succeeded since; a restart is not enough.

    Args:
        grace_period_s: from the first death after the last successful batch.
        clock: seconds, monotonic.
        run_out: called when the period is over, and again for every death after that.
    """

    def __init__(
        self, grace_period_s: float, clock: Callable[[], float], run_out: Callable[[], None]
    ) -> None:
        self._grace_period_s = grace_period_s
        self._clock = clock
        self._run_out = run_out
        self._since: float | None = None
        self._timer = Timer()

    def engine_died(self) -> None:
        """The backend died, or a restart failed."""
        now = self._clock()
        if self._since is None:
            self._since = now
        self._timer.start(max(self._since + self._grace_period_s - now, 0.0), self._run_out)

    def batch_succeeded(self) -> None:
        """A batch succeeded: the next death starts a new period."""
        self._since = None
        self.cancel()

    def cancel(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

"""How long those who wait bear with an engine that died."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class RestartGrace:
    """Runs out a fixed time after a death, unless a batch has succeeded since; being restarted is not enough.

    Args:
        grace_period_s: how long.
        clock: seconds, monotonic.
        run_out: called when it is used up, again for every death after that.
    """

    def __init__(
        self, grace_period_s: float, clock: Callable[[], float], run_out: Callable[[], None]
    ) -> None:
        self._grace_period_s = grace_period_s
        self._clock = clock
        self._run_out = run_out
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def engine_died(self) -> None:
        """The engine died, or failed to come back."""
        self.cancel()
        now = self._clock()
        if self._since is None:
            self._since = now
        left = max(self._since + self._grace_period_s - now, 0.0)
        self._timer = asyncio.get_running_loop().call_later(left, self._run_out)

    def batch_succeeded(self) -> None:
        """A batch succeeded."""
        self._since = None
        self.cancel()

    def cancel(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

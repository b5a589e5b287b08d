"""One pending call on the running event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: A time limit is waited for in so many parts: a process that stood still (SIGSTOP, a suspended machine) loses
#: one of them, and what it watches has the others to come to an end.
_PARTS = 4


class Timer:
    """Calls back once; starting it again replaces the pending call."""

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None

    def start(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call back after a pause."""
        self.cancel()
        self._handle = asyncio.get_running_loop().call_later(delay_s, callback)

    def start_limit(self, limit_s: float, callback: Callable[[], None], parts: int = _PARTS) -> None:
        """Call back when a time limit is over; time in which this process stood still hardly counts."""

        def passed() -> None:
            if parts > 1:
                self.start_limit(limit_s, callback, parts - 1)
            else:
                callback()

        self.start(limit_s / _PARTS, passed)

    def cancel(self) -> None:
        """Drop the pending call; idempotent."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

"""How long the core waits for a backend before it gives up on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resilience:
    """Time limits and pauses of recovery, in seconds.

    Attributes:
        batch_timeout_s: a batch that runs longer means that the backend hangs.
        start_timeout_s: loading and warming up may take this long.
        first_delay_s: pause before the first restart; it doubles until a batch succeeds.
        max_delay_s: longest pause.
        grace_period_s: how long after a death accepted requests wait for a batch to succeed again.
        stop_timeout_s: how long a stopped worker may take to free its device.
    """

    batch_timeout_s: float = 60.0
    start_timeout_s: float = 600.0
    first_delay_s: float = 0.1
    max_delay_s: float = 30.0
    grace_period_s: float = 5.0
    stop_timeout_s: float = 5.0

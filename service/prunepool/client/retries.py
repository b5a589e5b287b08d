"""When a client tries again, and after how long."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tenacity

from prunepool.errors import RateLimited, Unavailable


@dataclass(frozen=True, slots=True)
class Retries:
    """How patient a client is with a service that says "later".

    Attributes:
        attempts: how often a request is sent at most; 1 never tries again.
        longest_wait_s: a service that asks for a longer wait than this is not asked again.
        jitter: share added to each wait at random, so that refused callers do not come back together.
        random: draws numbers from 0 to 1.
    """

    attempts: int = 5
    longest_wait_s: float = 30.0
    jitter: float = 0.2
    random: Callable[[], float] = random.random

    def policy(self) -> dict[str, Any]:
        """The same as arguments of tenacity's retrying classes."""
        return {
            "retry": tenacity.retry_if_exception(self._may_pass),
            "wait": self._wait_s,
            "stop": tenacity.stop_after_attempt(self.attempts),
            "reraise": True,
        }

    def _may_pass(self, error: BaseException) -> bool:
        return isinstance(error, Unavailable | RateLimited) and error.retry_after <= self.longest_wait_s

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        assert state.outcome is not None
        error = state.outcome.exception()
        assert isinstance(error, Unavailable | RateLimited)
        return error.retry_after * (1 + self.jitter * self.random())

"""The retry policy of the clients."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tenacity

from prunepool.errors import RateLimited, Unavailable


@dataclass(frozen=True, slots=True)
class Retries:
    """When to retry a request that the service refused for now (503 or 429).

    Attributes:
        attempts: largest number of attempts; 1 never retries.
        longest_wait_s: a request is not retried if the service asks for a longer wait, in seconds.
        jitter: largest share added to each wait at random, so that refused callers do not return together.
        random: returns numbers from 0 to 1.
    """

    attempts: int = 5
    longest_wait_s: float = 30.0
    jitter: float = 0.2
    random: Callable[[], float] = random.random

    def policy(self) -> dict[str, Any]:
        """Return the policy as arguments of tenacity's retrying classes."""
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


DEFAULT_RETRIES = Retries()

"""Memory for request bodies: bounds the bytes that all requests hold together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prunepool.errors import Overloaded

#: Weight of the newest body in the moving average of how long bodies are held.
_NEWEST = 0.1


class BodyMemoryBudget:
    """Counts the bytes of request bodies in memory. Call it from the event loop only.

    Only bytes that have arrived count, so a client cannot block others by declaring a length. A request that
    holds everything there is may go on: one body always fits, whatever the limit.

    Args:
        size: limit in bytes, of all requests together.
        clock: monotonic clock, in seconds.
    """

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        self._size = size
        self._clock = clock
        self._held = 0
        self._mean_s = 0.0

    @property
    def held(self) -> int:
        """Bytes in memory now."""
        return self._held

    @contextmanager
    def reserve(self) -> Iterator[BodyReservation]:
        """Open a request's reservation, empty at first; release it when the request has been answered."""
        start = self._clock()
        reservation = BodyReservation(self)
        try:
            yield reservation
        finally:
            self._held -= reservation.held
            if reservation.held:
                self._mean_s += _NEWEST * (self._clock() - start - self._mean_s)

    def check(self, held: int, more: int) -> None:
        """Check that a request can take more bytes.

        Args:
            held: bytes that the request holds already.
            more: bytes that it asks for.

        Raises:
            Overloaded: the bytes do not fit; `retry_after` is the average time for which bodies are held.
        """
        if self._held > held and self._held + more > self._size:
            raise Overloaded(
                f"requests that are not answered yet hold {self._held} bytes, {more} more do not fit,"
                f" and {self._size} is the limit",
                retry_after=self._mean_s,
            )

    def add(self, count: int) -> None:
        """Count bytes that have arrived."""
        self._held += count


class BodyReservation:
    """The bytes that one request holds.

    Args:
        budget: the budget of all requests.
    """

    def __init__(self, budget: BodyMemoryBudget) -> None:
        self._budget = budget
        self.held = 0

    def check(self, count: int) -> None:
        """Check that a declared length would fit, before its bytes are read.

        Raises:
            Overloaded: the bytes do not fit.
        """
        self._budget.check(self.held, count)

    def add(self, count: int) -> None:
        """Reserve bytes that have arrived.

        Raises:
            Overloaded: the bytes do not fit.
        """
        self._budget.check(self.held, count)
        self._budget.add(count)
        self.held += count

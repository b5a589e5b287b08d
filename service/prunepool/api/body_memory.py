"""Memory for the bodies of requests: how many bytes of them are held at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prunepool.errors import Overloaded

#: Weight of the newest body in the mean of how long they are held.
_NEWEST = 0.1


class BodyMemoryBudget:
    """Counts the bytes that requests hold; all calls come from the event loop.

    Only what has arrived is counted: a length that is merely declared keeps nobody out. Whoever holds
    everything there is may go on, so that one body always gets through, whatever its limit.

    Args:
        size: most bytes of all requests together.
        clock: seconds of a monotonic clock.
    """

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        self._size = size
        self._clock = clock
        self._held = 0
        self._mean_s = 0.0

    @property
    def held(self) -> int:
        """Bytes held now."""
        return self._held

    @contextmanager
    def place(self) -> Iterator[BodyReservation]:
        """A request's share of the room, from its first byte until it is answered."""
        start = self._clock()
        place = BodyReservation(self)
        try:
            yield place
        finally:
            self._held -= place.held
            if place.held:
                self._mean_s += _NEWEST * (self._clock() - start - self._mean_s)

    def check(self, mine: int, more: int) -> None:
        """See that so many bytes more would fit.

        Args:
            mine: what the one who asks holds already.
            more: what would come to it.

        Raises:
            Overloaded: they would not; by the time it says, what is held now should be answered.
        """
        if self._held > mine and self._held + more > self._size:
            raise Overloaded(
                f"requests that are not answered yet hold {self._held} bytes, {more} more do not fit,"
                f" and {self._size} is the limit",
                retry_after=self._mean_s,
            )

    def take(self, count: int) -> None:
        """Count bytes."""
        self._held += count


class BodyReservation:
    """What one request holds.

    Args:
        room: of all of them.
    """

    def __init__(self, room: BodyMemoryBudget) -> None:
        self._room = room
        self.held = 0

    def expect(self, count: int) -> None:
        """Look ahead, before bytes are waited for.

        Raises:
            Overloaded: there is no room for so many.
        """
        self._room.check(self.held, count)

    def take(self, count: int) -> None:
        """Hold so many bytes more.

        Raises:
            Overloaded: there is no room for them.
        """
        self._room.check(self.held, count)
        self._room.take(count)
        self.held += count

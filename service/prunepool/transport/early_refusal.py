"""What a front end refuses before it decodes: what a core elsewhere would refuse after."""

from __future__ import annotations

from dataclasses import dataclass

from prunepool.errors import Overloaded

_LEAST_RETRY_S = 0.1


@dataclass(frozen=True, slots=True)
class FrontendLimits:
    """The bounds of one front end.

    Attributes:
        max_requests: images in flight.
        max_queue_s: longest predicted time that an image may have before it.
    """

    max_requests: int
    max_queue_s: float

    def check(self, in_flight: int, drain_s: float) -> None:
        """Refuse a request that would exceed them.

        Args:
            in_flight: images in flight, this one included.
            drain_s: predicted seconds until the core that would be asked has done all that it has.

        Raises:
            Overloaded: with the time after which it is worth trying again.
        """
        if in_flight > self.max_requests or drain_s > self.max_queue_s:
            accepted = f"{in_flight - 1} images are accepted here"
            detail = f"{accepted}, and all that waits for the model takes {drain_s:.2f} s"
            raise Overloaded(detail, retry_after=max(_LEAST_RETRY_S, drain_s))

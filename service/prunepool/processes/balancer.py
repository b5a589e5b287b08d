"""Which engine gets the next image. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine that could answer.

    Attributes:
        number: which one.
        drain_s: what it said last of the seconds that all it has will take.
        image_s: what one image takes by itself.
        sent: images that were sent to it since it said so.
    """

    number: int
    drain_s: float
    image_s: float
    sent: int

    @property
    def predicted_s(self) -> float:
        """Seconds until it has done all that it was sent."""
        return self.drain_s + self.sent * self.image_s


def best(choices: Iterable[Choice], turn: int) -> Choice | None:
    """The one that is predicted to be free first; among equals they take turns.

    Args:
        choices: what there is.
        turn: counts up from one question to the next.
    """
    listed = list(choices)
    if not listed:
        return None
    least = min(choice.predicted_s for choice in listed)
    equal = [choice for choice in listed if choice.predicted_s <= least + 1e-9]
    return equal[turn % len(equal)]

"""Which engine gets the next image. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine that could answer.

    Attributes:
        number: which one.
        predicted_s: seconds until it has done all that it was sent.
    """

    number: int
    predicted_s: float


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

"""Which engine gets the next request. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine that takes requests for a model.

    Attributes:
        number: which one.
        predicted_s: seconds until it has done all that it was sent.
    """

    number: int
    predicted_s: float


def least_loaded(candidates: Iterable[Candidate], turn: int) -> Candidate | None:
    """The engine that is predicted to be free first; equal ones take turns.

    Args:
        candidates: what there is.
        turn: counts up from one request to the next.
    """
    listed = list(candidates)
    if not listed:
        return None
    least = min(one.predicted_s for one in listed)
    equal = [one for one in listed if one.predicted_s <= least + 1e-9]
    return equal[turn % len(equal)]

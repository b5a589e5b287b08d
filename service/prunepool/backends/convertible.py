"""Which networks and methods OpenVINO does not take over; PyTorch serves them. It needs no torch."""

from __future__ import annotations

from collections.abc import Iterable

from prunepool.reduction.methods import METHODS
from prunepool.store import Geometry


def why_not(geometry: Geometry, methods: Iterable[str]) -> str | None:
    """Why a network is not converted; None if it can be.

    Where a token is during a pass with dynamic shapes is not followed, so that rotary angles and relative distances
    would be another token's.

    Args:
        geometry: of the network.
        methods: the reduction methods of its plans.
    """
    if geometry.positions != "input":
        return f"a converted pass does not follow its {geometry.positions} positions inside attention"
    for method in methods:
        if not METHODS[method].converts:
            return f"no pass is converted with the reduction method {method!r}"
    return None

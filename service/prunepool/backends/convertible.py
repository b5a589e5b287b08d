"""Which networks OpenVINO does not take over; PyTorch serves them. It needs no torch."""

from __future__ import annotations

from prunepool.store import Geometry


def why_not(geometry: Geometry) -> str | None:
    """Why a network is not converted; None if it can be.

    Where a token is during a pass with dynamic shapes is not followed, so that rotary angles and relative distances
    would be another token's.
    """
    if geometry.positions == "input":
        return None
    return f"a converted pass does not follow its {geometry.positions} positions inside attention"

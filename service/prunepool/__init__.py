"""prunepool: Vision Transformer inference where every request chooses how many tokens to spend."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunepool.models.loader import load_model
    from prunepool.reduction.plan import ReductionPlan

__version__ = version("prunepool")
__all__ = ["ReductionPlan", "__version__", "load_model"]


def __getattr__(name: str) -> object:
    """Import torch only when a model is asked for, so that the command line and the client start fast."""
    if name == "load_model":
        from prunepool.extras import needs_torch

        needs_torch("load_model")
        from prunepool.models.loader import load_model

        return load_model
    if name == "ReductionPlan":
        from prunepool.reduction.plan import ReductionPlan

        return ReductionPlan
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

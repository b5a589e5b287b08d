"""What fake models say of themselves: description, costs and token maps."""

from __future__ import annotations

from dataclasses import replace

from prunepool.core.model_info import ModelInfo
from prunepool.core.types import StageMap, TokenMap

PATCHES = 196


def fake_model(name: str = "fake", *, classes: int = 10, **changes: object) -> ModelInfo:
    """A model's description for tests; `changes` are further fields of `ModelInfo`."""
    info = ModelInfo(
        name=name,
        architecture="deit_tiny_patch16_224",
        input_size=224,
        labels=tuple(f"class {i}" for i in range(classes)),
        max_reduction_ratio=171 / PATCHES,
        default_reduction_ratio=0.5,
        gmacs=fake_gmacs(0.0),
        parameters=5_700_000,
        device="cpu",
        dtype="float32",
        ready=True,
        licence="Apache-2.0",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        crop_pct=0.9,
    )
    return replace(info, **changes)  # type: ignore[arg-type]


def fake_gmacs(ratio: float) -> float:
    """What a fake model's image costs: falls from 1 GMAC as the ratio rises."""
    return 1.0 - 0.5 * ratio


class FakeCosts:
    """The `Costs` of fake models."""

    max_ratio = 171 / PATCHES

    def gmacs(self, ratio: float) -> float:
        """Billions of multiply-accumulates for one image at this ratio."""
        return fake_gmacs(ratio)


def fake_token_map(kept: int) -> TokenMap:
    """The first `kept` patches stay, each for itself; the others are pruned at once."""
    tokens = tuple((patch,) for patch in range(kept))
    stage = StageMap(
        block=3, action="prune", variance=1e-4, pruned=tuple(range(kept, PATCHES)), groups=tokens
    )
    return TokenMap(grid=(14, 14), tokens=tokens, stages=(stage,))

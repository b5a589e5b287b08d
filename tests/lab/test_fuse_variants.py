"""The variants are measured against what is served, so without changes they must be it."""

from __future__ import annotations

import pytest
import torch

from prunepool.lab.fuse_variants import FUSE_VARIANTS, Fuse
from prunepool.lab.variants import PPT_VARIANTS
from prunepool.reduction import fuse
from prunepool.reduction.step import Step, StepInputs


def inputs() -> StepInputs:
    generator = torch.Generator().manual_seed(4)
    heads = torch.randn(3, 2, 2, 41, 8, generator=generator)
    return StepInputs(
        x=torch.randn(2, 41, 16, generator=generator),
        size=torch.rand(2, 41, generator=generator) + 1,
        query=heads[0],
        key=heads[1],
        value=heads[2],
        scale=0.3,
        removed=13,
        threshold=7e-5,
        prefix=1,
    )


def test_the_variant_without_changes_is_what_is_served() -> None:
    ours, served = Fuse()(inputs()), fuse.step(inputs())
    assert torch.equal(ours.indices.keep, served.indices.keep)
    assert torch.equal(ours.indices.target, served.indices.target)
    torch.testing.assert_close(ours.tokens, served.tokens)
    torch.testing.assert_close(ours.size, served.size)


@pytest.mark.parametrize("variant", [*PPT_VARIANTS.values(), *FUSE_VARIANTS.values()])
def test_every_variant_leaves_as_many_tokens(variant: Step) -> None:
    reduced = variant(inputs())
    assert reduced.tokens.shape == (2, 28, 16)
    assert torch.isfinite(reduced.tokens).all()
    assert reduced.indices.keep[:, 0].tolist() == [0, 0]

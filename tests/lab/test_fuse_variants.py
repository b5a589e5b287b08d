"""The variants are measured against what is served, so without changes they must be it."""

from __future__ import annotations

import pytest
import torch

from prunepool.lab.fuse_variants import FUSE_VARIANTS, Fuse
from prunepool.lab.variants import PPT_VARIANTS, Variant, step_of
from prunepool.reduction.reduction import reduce_tokens


def inputs() -> dict[str, object]:
    generator = torch.Generator().manual_seed(4)
    heads = torch.randn(3, 2, 2, 41, 8, generator=generator)
    return {
        "x": torch.randn(2, 41, 16, generator=generator),
        "size": torch.rand(2, 41, generator=generator) + 1,
        "query": heads[0],
        "key": heads[1],
        "value": heads[2],
        "scale": 0.3,
        "removed": 13,
        "threshold": 7e-5,
        "prefix": 1,
    }


def test_the_variant_without_changes_is_what_is_served() -> None:
    ours, served = step_of(Fuse())(**inputs(), method="fuse"), reduce_tokens(**inputs(), method="fuse")  # type: ignore[arg-type]
    assert torch.equal(ours.departure.keep, served.departure.keep)
    assert torch.equal(ours.departure.target, served.departure.target)
    torch.testing.assert_close(ours.tokens, served.tokens)
    torch.testing.assert_close(ours.size, served.size)


@pytest.mark.parametrize("variant", [*PPT_VARIANTS.values(), *FUSE_VARIANTS.values()])
def test_every_variant_leaves_as_many_tokens(variant: Variant) -> None:
    reduced = step_of(variant)(**inputs(), method="ppt")
    assert reduced.tokens.shape == (2, 28, 16)
    assert torch.isfinite(reduced.tokens).all()
    assert reduced.departure.keep[:, 0].tolist() == [0, 0]

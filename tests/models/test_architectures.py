"""Every architecture of timm's modules that a family has: a small network of it, beside timm's own answer."""

from __future__ import annotations

import re

import pytest
import timm

from prunepool.errors import ArchitectureUnsupported
from prunepool.lab.model_families import same_as_timm
from prunepool.models.families import timm_modules

#: Parts that nothing here computes; a refusal names one.
KNOWN = r"made of (ParallelScaling|DiffParallelScaling|ParallelThings|ResPost)Block|made of DiffAttention|by 'prr'"


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.nightly)], ids=["some", "all"])
@pytest.mark.parametrize("module", timm_modules())
def test_dense_is_timm_to_the_bit_and_reduced_is_near(module: str, step: int) -> None:
    done: set[str] = set()
    refused: list[str] = []
    for name in timm.list_models(module=module)[::step]:
        try:
            same_as_timm(name, done)
        except ArchitectureUnsupported as error:
            refused.append(error.detail)
    assert done
    assert [why for why in refused if not re.search(KNOWN, why)] == []

"""A family of models is one entry of a registry: how its networks are checked and wrapped."""

from __future__ import annotations

import pytest
from torch import nn

from prunepool.errors import ArchitectureUnsupported
from prunepool.models import families
from prunepool.models.families import FAMILIES, family_of, make_network
from prunepool.models.family import Family
from prunepool.models.plain_vit import PLAIN_VIT
from prunepool.models.vit import ReducingViT


class Other(ReducingViT):
    """The network of another family."""


def accept(vit: nn.Module, name: str) -> None:
    """A family that refuses nothing."""


def test_an_architecture_is_made_by_its_family(monkeypatch: pytest.MonkeyPatch) -> None:
    mixers = Family("MLP-Mixer", ("mlp_mixer",), accept, Other)
    deits = Family("DeiT", ("deit",), accept, Other)
    monkeypatch.setattr(families, "FAMILIES", (mixers, deits, *FAMILIES))
    assert family_of("mixer_s32_224") is mixers
    assert type(make_network("deit_tiny_patch16_224", depth=4)) is Other
    assert type(make_network("vit_tiny_patch16_224", depth=4)) is ReducingViT


def test_an_architecture_of_no_family_is_refused_and_told_what_there_is() -> None:
    assert family_of("deit_tiny_distilled_patch16_224") is PLAIN_VIT
    with pytest.raises(ArchitectureUnsupported, match=r"mixer_s32_224 .*\(plain Vision Transformer: timm's"):
        make_network("mixer_s32_224")

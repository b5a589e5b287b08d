"""The registry of model families, and the networks that they make."""

from __future__ import annotations

from typing import Any

import timm
from timm.models import is_model_in_modules

from prunepool.errors import ArchitectureUnsupported
from prunepool.models.beit import BEIT
from prunepool.models.family import Family
from prunepool.models.plain_vit import PLAIN_VIT
from prunepool.models.rotary_vit import ROTARY_VIT
from prunepool.models.vit import ReducingViT

#: Every family; an architecture belongs to the first that has its module.
FAMILIES: tuple[Family, ...] = (PLAIN_VIT, ROTARY_VIT, BEIT)


def timm_modules() -> list[str]:
    """Modules of timm whose architectures some family has."""
    return [module for family in FAMILIES for module in family.timm_modules]


def family_of(architecture: str) -> Family:
    """The family of an architecture that timm knows.

    Raises:
        ArchitectureUnsupported: it belongs to none.
    """
    for family in FAMILIES:
        if is_model_in_modules(architecture, list(family.timm_modules)):
            return family
    known = "; ".join(f"{one.title}: timm's {' and '.join(one.timm_modules)} modules" for one in FAMILIES)
    raise ArchitectureUnsupported(
        f"{architecture} belongs to no family of models whose tokens can be reduced ({known})"
    )


def reducing(vit: Any) -> ReducingViT:
    """The network that reduces the tokens of one of timm's models, which :func:`make_network` has checked."""
    return family_of(vit.pretrained_cfg["architecture"]).wrap(vit)


def make_network(architecture: str, **options: Any) -> ReducingViT:
    """A network with random weights, in evaluation mode.

    Args:
        architecture: timm's name, without a tag.
        **options: for `timm.create_model`: `num_classes`, `img_size`.

    Raises:
        ArchitectureUnsupported: timm cannot make it, or its tokens cannot be reduced.
    """
    cannot = f"timm {timm.__version__} cannot make {architecture!r}"
    if not timm.is_model(architecture):
        raise ArchitectureUnsupported(f"{cannot}: it has no such architecture")
    family = family_of(architecture)
    try:
        vit = timm.create_model(architecture, pretrained=False, **options)
    except (RuntimeError, TypeError) as error:
        raise ArchitectureUnsupported(f"{cannot}: {error}") from error
    family.check(vit, architecture)
    return family.wrap(vit.eval())

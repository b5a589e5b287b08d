"""The parts that the networks of a family may consist of; another part is refused by its name."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from prunepool.errors import ArchitectureUnsupported
from prunepool.models.pooling import POOLS, pool_of

_FEWEST_BLOCKS = 4


class Parts(NamedTuple):
    """Classes of timm; a subclass of one of them may compute otherwise, so that it is not among them.

    Attributes:
        networks: whole networks.
        blocks: transformer blocks.
        attentions: attention modules.
    """

    networks: tuple[type[nn.Module], ...]
    blocks: tuple[type[nn.Module], ...]
    attentions: tuple[type[nn.Module], ...]


def check_parts(vit: nn.Module, name: str, parts: Parts) -> None:
    """Refuse a network with a part that is not among those known.

    Args:
        vit: a timm model.
        name: its name, for the message.
        parts: that are known.

    Raises:
        ArchitectureUnsupported: names the part.
    """
    model: Any = vit
    if type(vit) not in parts.networks:
        raise ArchitectureUnsupported(
            f"{name} is a {type(vit).__name__}; of its module only {_named(parts.networks)} can be reduced"
        )
    if (pool := pool_of(model)) not in POOLS:
        what = (
            f"pools its tokens by {pool!r}" if pool else "gives all tokens and no single vector (no pooling)"
        )
        raise ArchitectureUnsupported(f"{name} {what}; only {', '.join(POOLS)} can be served")
    for index, block in enumerate(model.blocks):
        for part, known in ((block, parts.blocks), (getattr(block, "attn", None), parts.attentions)):
            if type(part) not in known:
                raise ArchitectureUnsupported(
                    f"{name} is made of {type(part).__name__} (block {index}); only {_named(known)} can be reduced"
                )
    if len(model.blocks) < _FEWEST_BLOCKS:
        raise ArchitectureUnsupported(
            f"{name} has {len(model.blocks)} blocks; at least {_FEWEST_BLOCKS} are needed"
        )


def _named(known: tuple[type[nn.Module], ...]) -> str:
    return " and ".join(part.__name__ for part in known)

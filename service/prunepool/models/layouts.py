"""Names of tensors: timm's, under the prefixes of wrappers, and other libraries' that are told from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from prunepool.errors import WeightsInvalid

Value = TypeVar("Value")

#: Prefixes of every name, from DistributedDataParallel, torch.compile, Lightning and training scripts.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")

_TIMM = "timm's (cls_token, pos_embed, blocks.0.…, head.weight) are read"


def strip_prefixes(weights: Mapping[str, Value]) -> dict[str, Value]:
    """Remove prefixes that all names share because a wrapper of the module added them."""
    named = dict(weights)
    while prefix := next((p for p in _PREFIXES if named and all(key.startswith(p) for key in named)), None):
        named = {key.removeprefix(prefix): value for key, value in named.items()}
    return named


def check_layout(names: Iterable[str], source: Path) -> None:
    """Refuse names that are known to be another library's, and say what to do.

    Args:
        names: without shared prefixes.
        source: the file, for the message.

    Raises:
        WeightsInvalid: they are.
    """
    for name in names:
        if ".lora_" in name or name.startswith("base_model."):
            raise WeightsInvalid(
                f"{source}: is an adapter of PEFT ({name}); merge it into its model with merge_and_unload(), and "
                "save that model's state_dict"
            )
        if (
            name.startswith(("vit.", "deit.", "embeddings.", "encoder.layer."))
            or ".attention.attention." in name
        ):
            raise WeightsInvalid(
                f"{source}: has the names of Hugging Face's transformers ({name}); {_TIMM}: "
                "`models pull` fetches published weights under timm's names"
            )
        if name.startswith(("backbone.", "encoder.", "student.", "teacher.")):
            prefix = name.partition(".")[0]
            raise WeightsInvalid(
                f"{source}: keeps its network under {prefix}. ({name}) beside other tensors; {_TIMM}: save the "
                f"state_dict of a timm model with the same weights"
            )

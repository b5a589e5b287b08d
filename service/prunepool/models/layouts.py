"""Names of tensors: timm's, under the prefixes of wrappers, and other libraries' that are told from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from prunepool.errors import WeightsInvalid

Value = TypeVar("Value")

#: Prefixes of every name, from DistributedDataParallel, torch.compile, Lightning, transformers'
#: TimmWrapper and training scripts.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "timm_model.")

#: The tensor that every network has, and once.
_EMBEDDING = "patch_embed.proj.weight"
#: Where a module keeps the average of its network.
_AVERAGED = re.compile(r"(^|[._])(ema|averaged)([._]|$)")
#: A linear classifier beside a network without one, and what is a head of another kind.
_HEAD = re.compile(r"(head|fc|classifier)\.(weight|bias)")
_HEAD_LIKE = re.compile(r"([a-z]+_)?(head|fc|classifier)s?[._0-9]")
#: Projections that self-supervised training is done with, and nothing after it: DINO's.
_PROJECTION = re.compile(r"head\.(mlp|last_layer)\.")
#: Towers that timm's own conversion finds, with the projection that belongs to them.
_TOWER = "visual."

_TIMM = "timm's (cls_token, pos_embed, blocks.0.…, head.weight) are read"


def strip_prefixes(weights: Mapping[str, Value]) -> dict[str, Value]:
    """Remove prefixes that all names share because a wrapper of the module added them."""
    named = dict(weights)
    while prefix := next((p for p in _PREFIXES if named and all(key.startswith(p) for key in named)), None):
        named = {key.removeprefix(prefix): value for key, value in named.items()}
    return named


def network_in(weights: Mapping[str, Value], source: Path) -> tuple[dict[str, Value], tuple[str, ...]]:
    """Take the network out of what else a training module holds: losses, metrics, and copies of the network.

    Args:
        weights: without prefixes that all names share.
        source: the file, for the messages.

    Returns:
        The tensors of the network, the averaged one if there are two; and what was done, one sentence each.
    """
    places = [key.removesuffix(_EMBEDDING) for key in weights if key.endswith(_EMBEDDING)]
    if not places or any(not one.endswith(".") or _TOWER in one for one in places):
        return dict(weights), ()
    averaged = [one for one in places if _AVERAGED.search(one)]
    if len(places) > 1 and len(averaged) != 1:
        return dict(weights), ()
    place = (averaged or places)[0]
    named = {key.removeprefix(place): value for key, value in weights.items() if key.startswith(place)}
    others = sorted(key for key in weights if not key.startswith(place))
    head = {f"head.{key.rpartition('.')[2]}": key for key in others if _HEAD.fullmatch(key)}
    if head and not any(key.startswith("head.") for key in named):
        named |= {name: weights[key] for name, key in head.items()}
        others = [key for key in others if key not in head.values()]
    projected = any("last_layer" in key for key in others)
    if any(_HEAD_LIKE.match(key) for key in others if not (projected and _PROJECTION.match(key))):
        return dict(weights), ()  # a head that is not timm's: without it, it would be another model
    if not others and not head:
        return named, ()
    said = (f"the network under {place.rstrip('.')} of {source.name} was taken",)
    if others:
        count = f"{len(others)} other tensors" if len(others) > 1 else "another tensor"
        said = (f"{said[0]}, not {count} ({others[0]}{', …' if len(others) > 1 else ''})",)
    return named, said


def check_merged(names: Iterable[str], source: Path) -> None:
    """Refuse the tensors of an adapter: what they add to the weights is scaled by a number that is not among them.

    Raises:
        WeightsInvalid: there are some; says what to do.
    """
    for name in names:
        if ".lora_" in name or name.startswith("base_model."):
            raise WeightsInvalid(
                f"{source}: is an adapter of PEFT ({name}); merge it into its model with merge_and_unload(), and "
                "save that model's state_dict"
            )


def check_layout(names: Iterable[str], source: Path) -> None:
    """Refuse names that are known to be another library's, and say what to do.

    Args:
        names: without shared prefixes.
        source: the file, for the message.

    Raises:
        WeightsInvalid: they are.
    """
    names = list(names)
    check_merged(names, source)
    for name in names:
        if (
            name.startswith(("vit.", "deit.", "embeddings.", "encoder.layer."))
            or ".attention.attention." in name
        ):
            raise WeightsInvalid(
                f"{source}: has the names of Hugging Face's transformers ({name}); add the folder that it came in, "
                "with its config.json: prunepool models add DIR"
            )
        if name.startswith(("backbone.", "encoder.", "student.", "teacher.")):
            prefix = name.partition(".")[0]
            raise WeightsInvalid(
                f"{source}: keeps its network under {prefix}. ({name}) beside other tensors; {_TIMM}: save the "
                f"state_dict of a timm model with the same weights"
            )

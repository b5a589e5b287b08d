"""Weights of an architecture under older names, or of another input resolution, fitted to a network."""

from __future__ import annotations

import inspect
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from prunepool.models.convert import write_weights
from prunepool.models.description import ModelDescription
from prunepool.models.loader import new_network
from prunepool.models.mapped_weights import COUNTER, shapes_of
from prunepool.models.vit import ReducingViT
from prunepool.store import tensor_shapes

Shapes = Mapping[str, tuple[int, ...]]

_POSITIONS = "pos_embed"
_PATCHES = "patch_embed.proj.weight"
_NAMED = 3


def _network(description: ModelDescription, classes: int) -> ReducingViT:
    """The network of a description, without values."""
    with torch.device("meta"):
        return new_network(description.architecture, classes, description.input_size, description.network)


def fit_file(
    path: Path, description: ModelDescription, classes: int
) -> tuple[ModelDescription, tuple[str, ...]]:
    """Rewrite weights that have older names, or another input resolution than the one asked for.

    Returns:
        The description, of the input resolution that the weights are of; and what was done, one sentence each.

    Raises:
        ArchitectureUnsupported: the architecture's tokens cannot be reduced.
        ModelError: the file cannot be written.
    """
    network = _network(description, classes)
    shapes = tensor_shapes(path)
    own = size_of(shapes, network.vit)
    said: list[str] = []
    if own is not None and own != description.input_size:
        if description.resample:
            said.append(
                f"its position embeddings are of {own}²; they were resampled to {description.input_size}²"
            )
        else:
            said.append(f"its position embeddings are of {own}², so that this is its input size")
            description = replace(description, input_size=own)
            network = _network(description, classes)
    if not differs(shapes, network.vit):
        return description, tuple(said)
    weights = fitted(load_file(path), network.vit, description.architecture)
    if weights is None:
        return description, tuple(said)
    renamed = sorted(shapes.keys() - weights.keys())
    if renamed:
        said.append(f"timm's names were given to {len(renamed)} of its tensors ({first_of(renamed)})")
    resized = sorted(
        key for key in shapes.keys() & weights.keys() if tuple(weights[key].shape) != shapes[key]
    )
    if resized and own is None:  # positions inside attention, which say of no resolution
        size = description.input_size
        said.append(f"{len(resized)} of its tensors were resampled to {size}² ({first_of(resized)})")
    write_weights(weights, path)
    return description, tuple(said)


def size_of(shapes: Shapes, vit: Any) -> int | None:
    """The input resolution that position embeddings are of; None if they do not say.

    Args:
        shapes: of the weights, by timm's names.
        vit: the network at any input resolution.
    """
    own, wanted = shapes.get(_POSITIONS, ()), getattr(vit, _POSITIONS, None)
    if wanted is None or len(own) != 3 or own[2] != wanted.shape[2]:
        return None
    height, width = vit.patch_embed.grid_size
    patches = own[1] - (wanted.shape[1] - height * width)
    side = math.isqrt(patches) if patches > 0 else 0
    size: int = vit.patch_embed.img_size[0]
    if patches == height * width:
        return size  # also where patches do not cover the last pixels
    # In pixels, also where convolutions come before the patches.
    patch, other = size // height, vit.patch_embed.img_size[1] // width
    return side * patch if side and side * side == patches and patch == other else None


def differs(shapes: Shapes, vit: nn.Module) -> bool:
    """Whether tensors have other names or shapes than a network's."""
    return shapes != shapes_of(vit)


def drop_counters(path: Path) -> None:
    """Leave out of a file what batch norms of a hybrid have counted: it is no number of the network's.

    Raises:
        WeightsInvalid: the file is no safetensors.
        ModelError: it cannot be written.
    """
    if any(key.endswith(COUNTER) for key in tensor_shapes(path)):
        write_weights(
            {key: value for key, value in load_file(path).items() if not key.endswith(COUNTER)}, path
        )


def fitted(weights: Mapping[str, Tensor], vit: nn.Module, architecture: str) -> dict[str, Tensor] | None:
    """Weights under the names of a network and with its number of positions, as timm fits those it has published.

    Args:
        weights: by other names, or of another input resolution.
        vit: timm's network, on any device.
        architecture: its name.

    Returns:
        The weights, resampled where they have to be; None if timm does not know them either.
    """
    convert = _timms_own(architecture)
    kernel, wanted = weights.get(_PATCHES), vit.state_dict().get(_PATCHES)
    if convert is None or (
        kernel is not None and wanted is not None and kernel.shape[2:] != wanted.shape[2:]
    ):
        return None  # patches of another size are another architecture
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how timm resamples BEiT's tables
            found = convert(dict(weights), vit)
    # Whatever does not have the form that timm expects makes its function raise anything.
    except Exception:
        return None
    return {key: value for key, value in found.items() if value is not None and not key.endswith(COUNTER)}


def _timms_own(architecture: str) -> Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]] | None:
    """Find timm's function for weights of other names, if the architecture's module has one."""
    module = sys.modules[timm.model_entrypoint(architecture).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return None
    # Meta's names of layer scale, where timm's network has others.
    scales = (
        {"adapt_layer_scale": True} if "adapt_layer_scale" in inspect.signature(convert).parameters else {}
    )
    return lambda weights, vit: convert(weights, vit, **scales)


def first_of(keys: Sequence[str]) -> str:
    """The first few of many keys, for a message."""
    return ", ".join(keys[:_NAMED]) + (", …" if len(keys) > _NAMED else "")

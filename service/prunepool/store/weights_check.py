"""Whether weights are those that a manifest describes, by the header of their file alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from prunepool.errors import WeightsInvalid
from prunepool.store.manifest import Manifest

#: The classifier of a ViT, and the second one of a distilled model.
CLASSIFIERS = ("head.weight", "head_dist.weight")
#: The kernel that makes tokens of patches.
PATCHES = "patch_embed.proj.weight"
_POSITIONS = "pos_embed"
_BLOCK = re.compile(r"blocks\.(\d+)\.")
#: Class token, distillation token and registers: more than these no model has.
_MOST_PREFIX_TOKENS = 32


def check_weights(manifest: Manifest, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare what a manifest says of its network with the shapes of its tensors.

    Only what the file's header and the manifest both say is compared; whether the tensors are those of the
    architecture is seen when the model is loaded.

    Args:
        manifest: of the model.
        shapes: the shape of each tensor, by name.

    Raises:
        WeightsInvalid: they differ; names the key of the manifest, its value and that of the weights.
    """
    for name in CLASSIFIERS:
        # Without labels a head is a projection, and its outputs are an embedding.
        if name in shapes and shapes[name] and manifest.labels and shapes[name][0] != len(manifest.labels):
            _refuse(manifest, "labels", len(manifest.labels), f"{name} has {shapes[name][0]} classes")
    parameters = sum(math.prod(shape) for shape in shapes.values())
    if parameters != manifest.weights.parameters:
        _refuse(manifest, "weights.parameters", manifest.weights.parameters, f"the file has {parameters}")
    _check_input(manifest, shapes)
    if manifest.geometry is None:
        return
    depth = depth_of(shapes)
    if depth and depth != manifest.geometry.depth:
        _refuse(manifest, "geometry.depth", manifest.geometry.depth, f"the file has {depth} blocks")
    for name in CLASSIFIERS:
        if len(shapes.get(name, ())) == 2 and shapes[name][1] != manifest.geometry.features:
            _refuse(manifest, "geometry.width", manifest.geometry.width, f"{name} has {shapes[name][1]}")


def depth_of(names: Iterable[str]) -> int:
    """The number of transformer blocks that tensors of these names belong to."""
    return len({found[1] for name in names if (found := _BLOCK.match(name))})


def _check_input(manifest: Manifest, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the input resolution with the number of positions that the network knows."""
    kernel, positions = shapes.get(PATCHES, ()), shapes.get(_POSITIONS, ())
    if len(kernel) != 4 or len(positions) != 3 or not kernel[2] or not kernel[3]:
        return
    patches = (manifest.input_size // kernel[2]) * (manifest.input_size // kernel[3])
    if manifest.geometry is not None and manifest.geometry.stem_macs:
        patches = manifest.geometry.patches  # the kernel is on features of convolutions, not on pixels
    if not 0 <= positions[1] - patches <= _MOST_PREFIX_TOKENS:
        _refuse(
            manifest,
            "input_size",
            manifest.input_size,
            f"that makes {patches} patches, and {_POSITIONS} has {positions[1]} positions",
        )


def _refuse(manifest: Manifest, key: str, value: int, found: str) -> None:
    raise WeightsInvalid(f"{manifest.name}: {key} of its model.json is {value}, but {found}")

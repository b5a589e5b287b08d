"""A stored model's weights in a network that was made without any: one copy in memory, whatever the model's size.

The network is made on the meta device. Each tensor is copied out of the mapped file as float32 and takes its place;
the file is mapped anew for each few of them, so that pages that were read do not count as this process's memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from timm.models._manipulate import reinit_non_persistent_buffers
from torch import Tensor, nn

#: Bytes of a file that are mapped at a time.
_MAPPED = 64 * 2**20

#: What batch norms count while they are trained; nothing reads it when they answer.
COUNTER = "num_batches_tracked"


def read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a safetensors file as float32, each in memory of its own.

    Raises:
        SafetensorError: it is none.
        OSError: it cannot be read.
    """
    for keys in _parts(path):
        with safe_open(path, framework="pt") as file:
            for key in keys:
                yield key, file.get_tensor(key).to(torch.float32, copy=True)


def _parts(path: Path) -> list[list[str]]:
    """The names of a file's tensors, in parts of about `_MAPPED` bytes."""
    parts: list[list[str]] = [[]]
    size = 0
    with safe_open(path, framework="pt") as file:
        keys: Sequence[str] = file.keys()
        for key in keys:
            if size > _MAPPED:
                parts.append([])
                size = 0
            parts[-1].append(key)
            elements = 1
            for side in file.get_slice(key).get_shape():
                elements *= side
            size += 4 * elements
    return parts


def shapes_of(vit: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that a network's file has to hold."""
    named = vit.state_dict().items()
    return {key: tuple(value.shape) for key, value in named if not key.endswith(COUNTER)}


def fill(vit: nn.Module, weights: Path) -> None:
    """Give a network the tensors of a file; on the meta device it has none before.

    Args:
        vit: of timm; its buffers that are computed and not stored are computed.
        weights: a safetensors file; keys and shapes must match exactly.

    Raises:
        RuntimeError: they do not; names each that does not.
        SafetensorError, OSError: as :func:`read_tensors`.
    """
    tensors = dict(read_tensors(weights))
    for key, buffer in vit.named_buffers():
        if key.endswith(COUNTER):
            tensors[key] = torch.zeros_like(buffer, device="cpu")
    vit.load_state_dict(tensors, strict=True, assign=True)
    _compute_buffers(vit)


def _compute_buffers(vit: nn.Module) -> None:
    """Compute buffers that have no values yet."""
    missing = []
    for module in vit.modules():
        for key, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                module.register_buffer(key, torch.empty_like(buffer, device="cpu"), persistent=False)
                missing.append(f"{type(module).__name__}.{key}")
                assert hasattr(module, "init_non_persistent_buffers"), f"nothing computes {missing[-1]}"
    if missing:
        reinit_non_persistent_buffers(vit)

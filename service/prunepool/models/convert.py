"""Convert a file of weights to safetensors without unpickling any object."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from prunepool.errors import ModelError, WeightsInvalid
from prunepool.models import checkpoint
from prunepool.models.layouts import check_layout, network_in, strip_prefixes
from prunepool.store import tensor_shapes
from prunepool.store.folders import copy_file

DType = Literal["float64", "float32", "bfloat16", "float16", "mixed"]
_DTYPES: Mapping[torch.dtype, DType] = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
#: What a file is that is often found where weights should be, by its first bytes.
_FOREIGN = (
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, not the weights; `git lfs pull` fetches them",
    ),
    (b"<!doctype html", "a web page (HTML), not weights; the download needs another address, or a login"),
    (b"<html", "a web page (HTML), not weights; the download needs another address, or a login"),
)
_HEAD_BYTES = 200
_PRINTABLE = frozenset(string.printable.encode())
_SAFETENSORS = ".safetensors"


def to_safetensors(source: Path, target: Path) -> tuple[str, ...]:
    """Write the weights of a file as safetensors. A safetensors file without prefixed keys is copied unchanged.

    Args:
        source: `.safetensors`, or a checkpoint of `torch.save` (`.pth`, `.pt`, `.bin`, `.tar`, `.ckpt`).
        target: the file to write.

    Returns:
        Facts that the user should know about the choice of weights, one sentence each.

    Raises:
        WeightsInvalid: the source is missing, unreadable, or holds something else than named tensors of timm's
            layout.
        ModelError: the target cannot be written.
        OSError: the same, for a file that is copied unchanged.
    """
    if _check_kind(source) == _SAFETENSORS:
        names = tensor_shapes(source)
        stripped, _ = network_in(strip_prefixes(names), source)
        check_layout(stripped, source)
        if stripped.keys() == names.keys():
            copy_file(source, target)
            return ()
    weights, notices = read_weights(source)
    named, said = network_in(weights, source)
    check_layout(named, source)
    write_weights(named, target)
    return (*notices, *said)


def read_weights(source: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a file by their names without the prefixes of wrappers, whatever library named them.

    Returns:
        The tensors; and facts that the user should know about their choice.

    Raises:
        WeightsInvalid: the file is missing, unreadable, or holds something else than named tensors.
    """
    if _check_kind(source) == _SAFETENSORS:
        tensor_shapes(source)  # names what is wrong with a file that is none
        return strip_prefixes(load_file(source)), ()
    weights, notices = checkpoint.read(source)
    return strip_prefixes(weights), notices


def write_weights(named: Mapping[str, Tensor], target: Path) -> None:
    """Write tensors as safetensors.

    Raises:
        ModelError: the target cannot be written.
    """
    try:
        # Cloned: safetensors refuses tensors that share memory, as tied weights do.
        save_file({key: value.clone().contiguous() for key, value in named.items()}, target, {"format": "pt"})
    except SafetensorError as error:
        raise ModelError(f"cannot write {target.name} to the store: {error}") from error


def inspect(path: Path) -> tuple[DType, int]:
    """The dtype and number of parameters of a safetensors file, after checking that every number is finite.

    Raises:
        WeightsInvalid: the file is not safetensors, or a tensor is empty, not floating point or not finite; names
            it.
    """
    dtypes: set[torch.dtype] = set()
    parameters = 0
    try:
        with safe_open(path, framework="pt") as file:
            keys: Iterable[str] = file.keys()
            for key in keys:
                tensor: Tensor = file.get_tensor(key)
                if not tensor.numel():
                    # Its other sides are bounded by nothing in the file.
                    raise WeightsInvalid(
                        f"{path.name}: {key} has shape {list(tensor.shape)}: it holds no number"
                    )
                if tensor.dtype not in _DTYPES:
                    raise WeightsInvalid(
                        f"{path.name}: {key} is {tensor.dtype}; weights must be "
                        + ", ".join(name for name in _DTYPES.values())
                    )
                if not bool(torch.isfinite(tensor).all()):
                    bad = int((~torch.isfinite(tensor)).sum())
                    raise WeightsInvalid(
                        f"{path.name}: {key} has {bad} of {tensor.numel()} numbers that are NaN or infinite"
                    )
                dtypes.add(tensor.dtype)
                parameters += tensor.numel()
    except SafetensorError as error:
        raise WeightsInvalid(f"{path.name}: is not a safetensors file ({error})") from error
    return (_DTYPES[dtypes.pop()] if len(dtypes) == 1 else "mixed"), parameters


def _check_kind(source: Path) -> str:
    """The suffix of a file of weights.

    Raises:
        WeightsInvalid: it is missing, or no file of weights.
    """
    if not source.is_file():
        raise WeightsInvalid(f"{source}: does not exist, or is not a file")
    suffix = source.suffix.lower()
    if suffix not in (_SAFETENSORS, *checkpoint.SUFFIXES):
        raise WeightsInvalid(
            f"{source}: is a {suffix or 'file without suffix'}; .safetensors and .pth are read"
        )
    _check_content(source)
    return suffix


def _check_content(source: Path) -> None:
    """Say what a file is that is no file of weights, whatever its suffix.

    Raises:
        WeightsInvalid: it is empty, text, or a kind of file that is often found where weights should be.
    """
    try:
        with source.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise WeightsInvalid(f"{source}: cannot be read ({error.strerror})") from error
    if not head:
        raise WeightsInvalid(f"{source}: is empty (0 bytes)")
    start = head.lstrip().lower()
    for signature, name in _FOREIGN:
        if start.startswith(signature):
            raise WeightsInvalid(f"{source}: is {name}")
    if all(byte in _PRINTABLE for byte in head):
        raise WeightsInvalid(f"{source}: is a text file, not weights")

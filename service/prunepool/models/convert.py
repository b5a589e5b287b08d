"""Convert a file of weights to safetensors without unpickling any object."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from prunepool.errors import ModelError, WeightsInvalid
from prunepool.store.folders import copy_file

#: Keys under which training scripts store the weights.
_WRAPPERS = ("state_dict", "model", "model_state_dict")
#: Prefixes of every key, from DistributedDataParallel and torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
_PICKLED = (".pth", ".pt", ".bin", ".tar", ".ckpt")
DType = Literal["float64", "float32", "bfloat16", "float16", "mixed"]
_DTYPES: Mapping[torch.dtype, DType] = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


def to_safetensors(source: Path, target: Path) -> None:
    """Write the weights of a file as safetensors. A safetensors file without prefixed keys is copied unchanged.

    Args:
        source: `.safetensors`, or a checkpoint of `torch.save` (`.pth`, `.pt`, `.bin`, `.tar`, `.ckpt`).
        target: the file to write.

    Raises:
        WeightsInvalid: the source is missing, unreadable, or holds something else than named tensors.
        ModelError: the target cannot be written.
        OSError: the same, for a file that is copied unchanged.
    """
    if not source.is_file():
        raise WeightsInvalid(f"{source}: does not exist, or is not a file")
    suffix = source.suffix.lower()
    if suffix == ".safetensors":
        weights = _read_safetensors(source)
        named = strip_prefixes(weights)
        if named.keys() == weights.keys():
            copy_file(source, target)
            return
    elif suffix in _PICKLED:
        named = strip_prefixes(unwrap(_read_checkpoint(source), source))
    else:
        raise WeightsInvalid(
            f"{source}: is a {suffix or 'file without suffix'}; .safetensors and .pth are read"
        )
    try:
        # Cloned: safetensors refuses tensors that share memory, as tied weights do.
        save_file({key: value.clone().contiguous() for key, value in named.items()}, target, {"format": "pt"})
    except SafetensorError as error:
        raise ModelError(f"cannot write {target.name} to the store: {error}") from error


def unwrap(checkpoint: object, source: Path) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, taken out of a wrapper such as `{"model": …, "epoch": …}`.

    Raises:
        WeightsInvalid: it is not a mapping of names to tensors.
    """
    if isinstance(checkpoint, Mapping):
        for key in _WRAPPERS:
            if isinstance(checkpoint.get(key), Mapping):
                return unwrap(checkpoint[key], source)
    if not isinstance(checkpoint, Mapping) or not checkpoint:
        raise WeightsInvalid(
            f"{source}: holds a {type(checkpoint).__name__}, not named tensors (a state_dict)"
        )
    for key, value in checkpoint.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsInvalid(
                f"{source}: {key!r} is a {type(value).__name__}; only named tensors (a state_dict) are read"
            )
    return dict(checkpoint)


def strip_prefixes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove prefixes that all names share because a wrapper of the module added them."""
    named = dict(weights)
    while prefix := next((p for p in _PREFIXES if named and all(key.startswith(p) for key in named)), None):
        named = {key.removeprefix(prefix): value for key, value in named.items()}
    return named


def inspect(path: Path) -> tuple[DType, int]:
    """The dtype and number of parameters of a safetensors file, after checking that every number is finite.

    Raises:
        WeightsInvalid: the file is not safetensors, or a tensor is not floating point or not finite; names it.
    """
    dtypes: set[torch.dtype] = set()
    parameters = 0
    try:
        with safe_open(path, framework="pt") as file:
            keys: Iterable[str] = file.keys()
            for key in keys:
                tensor: Tensor = file.get_tensor(key)
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


def _read_safetensors(source: Path) -> dict[str, Tensor]:
    try:
        return load_file(source)
    except (SafetensorError, OSError) as error:
        raise WeightsInvalid(f"{source}: is not a safetensors file ({error})") from error


def _read_checkpoint(source: Path) -> object:
    try:
        with warnings.catch_warnings():
            # It warns about newer pickle protocols, and refuses the parts of them that it cannot read.
            warnings.simplefilter("ignore")
            return torch.load(source, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise WeightsInvalid(
            f"{source}: does not hold tensors alone (in torch.save's own pickle protocol), and nothing else "
            "is ever unpickled; save its state_dict, best as .safetensors"
        ) from error
    # Bytes that are no pickle make the restricted unpickler raise anything, for example KeyError.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".partition("\n")[0].split())
        raise WeightsInvalid(f"{source}: is not a checkpoint of torch.save ({reason})") from error

"""Read the named tensors of a checkpoint of `torch.save`.

Nothing in it is executed, and reading it takes memory in proportion to the file.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunepool.errors import WeightsInvalid

SUFFIXES = (".pth", ".pt", ".bin", ".tar", ".ckpt")
#: Keys under which training scripts store averaged weights: the ones that they report figures of.
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "model_state_dict_ema", "ema")
#: Keys under which they store the weights; `module` is DeepSpeed's.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "network", "weights", "module")
#: Self-distillation, as DINO's: the teacher is the average of the student, and the one that is used.
_TEACHER, _STUDENT = "teacher", "student"
#: What torch's own averaging adds to the weights.
_COUNTER = "n_averaged"
#: Tied weights are stored once and named several times. Tensors of more bytes than this times the file are none.
_MOST_TIES = 4


class _Setting:
    """What stands for an object of a configuration: nothing of it is kept, and no code of the file runs."""

    def __new__(cls, *args: object, **kwargs: object) -> _Setting:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _empty_dict(*args: object) -> dict[object, object]:
    return {}


#: Parts of libraries for configurations and training, which Lightning and Hydra leave in checkpoints.
_SETTINGS = re.compile(
    r"(omegaconf|yacs|ml_collections|lightning|pytorch_lightning|lightning_fabric|torchmetrics)\..+"
    r"|typing\.Any|builtins\.(list|dict|tuple|set|int|float|str|bool)"
)
_ATTRIBUTE_DICT = re.compile(r"(pytorch_)?lightning(_fabric)?\..+\.AttributeDict")
_NUMPY_SCALAR: Any = np.float64(0).__reduce__()[0]
#: What training scripts leave in a checkpoint besides tensors and plain values: their arguments, paths, and the
#: best accuracy. To make one of these runs no code of the file.
_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    (_empty_dict, "collections.defaultdict"),
    (pathlib.PurePosixPath, "pathlib.PosixPath"),
    (pathlib.PurePosixPath, "pathlib._local.PosixPath"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f8", "f4", "f2", "i8", "i4", "?")),
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
    (_NUMPY_SCALAR, "numpy._core.multiarray.scalar"),
]


def read(source: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights of a checkpoint, the averaged ones where it has some.

    Returns:
        The named tensors, and what the user should know about their choice, one sentence each.

    Raises:
        WeightsInvalid: it cannot be read, holds something else than tensors of numbers, or would grow when read.
    """
    _check_archive(source)
    named, key = unwrap(_load(source), source)
    _check_tensors(named, source)
    return named, () if key is None else (f"the averaged weights ({key}) of {source.name} were taken",)


def unwrap(checkpoint: object, source: Path) -> tuple[dict[str, Tensor], str | None]:
    """The named tensors of a checkpoint, taken out of a wrapper such as `{"model": …, "epoch": …}`.

    Returns:
        The tensors; and the key of the averaged weights, if it is those.

    Raises:
        WeightsInvalid: it is not a mapping of names to tensors.
    """
    if isinstance(checkpoint, Mapping):
        student, teacher = checkpoint.get(_STUDENT), checkpoint.get(_TEACHER)
        if isinstance(student, Mapping) and isinstance(teacher, Mapping) and len(student) == len(teacher):
            return unwrap(teacher, source)[0], _TEACHER
        for key in _AVERAGED:
            if isinstance(checkpoint.get(key), Mapping) and _holds_tensors(checkpoint[key]):
                return unwrap(checkpoint[key], source)[0], key
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
    return {key: value for key, value in checkpoint.items() if key != _COUNTER}, None


def _holds_tensors(value: Mapping[Any, Any]) -> bool:
    """Whether it is a state_dict, or wraps one."""
    inner = next((value[key] for key in _WRAPPERS if isinstance(value.get(key), Mapping)), value)
    return bool(inner) and all(isinstance(tensor, Tensor) for tensor in inner.values())


def _check_archive(source: Path) -> None:
    """Refuse an archive that is longer when read; torch.save never compresses.

    Raises:
        WeightsInvalid: it is.
    """
    if not zipfile.is_zipfile(source):
        return
    try:
        with zipfile.ZipFile(source) as archive:
            length = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return  # torch names what is wrong with it
    size = source.stat().st_size
    if length > size:
        raise WeightsInvalid(
            f"{source}: holds {length:,} bytes in a file of {size:,}; a checkpoint of torch.save is not compressed"
        )


def _check_tensors(named: Mapping[str, Tensor], source: Path) -> None:
    """Refuse tensors without numbers of their own, such as one number repeated a billion times.

    Raises:
        WeightsInvalid: names the first.
    """
    for key, value in named.items():
        if value.is_meta:
            raise WeightsInvalid(f"{source}: {key} is on the meta device: it has a shape, but no numbers")
        if value.layout is not torch.strided:
            kind = str(value.layout).removeprefix("torch.")
            raise WeightsInvalid(f"{source}: {key} is {kind}; save it dense (to_dense())")
        if value.is_quantized:
            raise WeightsInvalid(f"{source}: {key} is quantized ({value.dtype}); save it with dequantize()")
    length, size = (
        sum(value.numel() * value.element_size() for value in named.values()),
        source.stat().st_size,
    )
    if length > _MOST_TIES * size:
        raise WeightsInvalid(
            f"{source}: its tensors have {length:,} bytes, the file {size:,}; save copies, not expanded views"
        )


def _load(source: Path) -> object:
    others = _others_in(source)
    settings: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (dict if _ATTRIBUTE_DICT.fullmatch(name) else _Setting, name)
        for name in others
        if _SETTINGS.fullmatch(name)
    ]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([*_HARMLESS, *settings]):
            # It warns about newer pickle protocols, and refuses the parts of them that it cannot read.
            warnings.simplefilter("ignore")
            return torch.load(source, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        named = [name for name in others if not _SETTINGS.fullmatch(name)]
        held = f" but {named[0]} too" if named else ""
        raise WeightsInvalid(
            f"{source}: does not hold tensors alone (in torch.save's own pickle protocol){held}, and nothing else "
            "is ever unpickled; save its state_dict, best as .safetensors"
        ) from error
    # Bytes that are no pickle make the restricted unpickler raise anything, for example KeyError.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".partition("\n")[0].split())
        raise WeightsInvalid(f"{source}: is not a checkpoint of torch.save ({reason})") from error


def _others_in(source: Path) -> list[str]:
    """The classes and functions that a checkpoint names, besides those of torch and the harmless ones; sorted."""
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(source))
    # The bytes may be anything; torch.load says what is wrong with them.
    except Exception:
        return []

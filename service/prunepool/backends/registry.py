"""Which backend runs a model: chosen by the type of its device.

`cpu` and `cuda` are built in. Any other device type names a backend that an installed package registers as an
entry point, so that `prunepool serve --device toy` uses it::

    [project.entry-points."prunepool.backends"]
    toy = "my_package.toy:make"

where `make` is a :data:`MakeBackend`. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, NamedTuple

from prunepool.core.backend import Backend
from prunepool.core.formats import FormatTrial
from prunepool.store import StoredModel

#: The group of entry points that further backends are registered in, by device type.
ENTRY_POINTS = "prunepool.backends"

#: What a backend decided by measuring, as JSON values: its successors in the same place do the same, so that
#: answers do not change when one dies. A backend reads what is there and adds what it decides.
Decisions = MutableMapping[str, Any]


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """How a model is run.

    Attributes:
        device: `cpu`, `cuda`, `cuda:N`, or a type that is registered as an entry point, with or without `:N`.
        dtype: `auto`, `float32`, `bfloat16`, `float16` or `int8`.
        max_batch_size: images in the largest batch.
        ratios: reduction ratios that callers are likely to get, the most important first.
        threads: CPU threads that a model computes with; None leaves PyTorch its own number, and OpenVINO one.
        cuda_graphs: how many CUDA graphs of a model are captured at most.
        cuda_compile: whether torch.compile makes the kernels that are captured.
        cpu_openvino: whether OpenVINO runs models on a CPU.
        cpu_openvino_folder: where models converted for it are kept.
    """

    device: str
    dtype: str
    max_batch_size: int
    cuda_graphs: int
    cuda_compile: bool
    cpu_openvino: bool
    cpu_openvino_folder: Path
    ratios: tuple[float, ...] = ()
    threads: int | None = None


class LoadedBackend(NamedTuple):
    """A backend with its model loaded.

    Attributes:
        backend: not warm yet.
        device: where it computes, as callers are told.
        dtype: what it computes in, as callers are told.
        trials: what was measured of each number format, if the setting is `auto`.
        better: makes a faster backend possible beside all else, then calls back from another thread; None if there
            is nothing to make.
        runtime: what computes, as `openvino`; empty: the type of the device says it.
    """

    backend: Backend
    device: str
    dtype: str
    trials: tuple[FormatTrial, ...] = ()
    better: Callable[[Callable[[], None]], None] | None = None
    runtime: str = ""


#: Loads a stored model and makes a backend of it; called in the thread that will own the backend.
MakeBackend = Callable[[StoredModel, BackendOptions, Decisions], LoadedBackend]


def find(options: BackendOptions) -> MakeBackend:
    """What makes the backend for a device.

    Raises:
        LookupError: no backend is registered for the type of the device.
    """
    kind = device_type(options.device)
    if kind == "cpu":
        return _import("cpu_choice")
    if kind == "cuda":
        return _import("cuda_graphs")
    for entry in _registered():
        if entry.name == kind:
            make: MakeBackend = entry.load()
            return make
    raise LookupError(f"no backend is registered for the device {options.device!r}")


def is_registered(device: str) -> bool:
    """Whether an installed package registers a backend for a device."""
    return any(entry.name == device_type(device) for entry in _registered())


def device_type(device: str) -> str:
    """The type of a device: `cuda` of `cuda:1`."""
    return device.partition(":")[0]


def _registered() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=ENTRY_POINTS))


def _import(name: str) -> MakeBackend:
    make: MakeBackend = import_module(f"prunepool.backends.{name}").make
    return make

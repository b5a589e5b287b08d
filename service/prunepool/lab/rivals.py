"""Baselines: other ways to run the same dense network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from prunepool.backends import openvino_runtime
from prunepool.backends.openvino_conversion import to_openvino

Run = Callable[[], object]


def timm_eager(vit: nn.Module, images: Tensor) -> Run:
    """The network as timm makes it."""
    return lambda: vit(images)


def timm_channels_last(vit: nn.Module, images: Tensor) -> Run:
    """The same with channels-last memory."""
    own = copy.deepcopy(vit).to(memory_format=torch.channels_last)
    laid_out = images.to(memory_format=torch.channels_last)
    return lambda: own(laid_out)


def timm_compiled(vit: nn.Module, images: Tensor) -> Run:
    """torch.compile; with CUDA graphs on a GPU. Compiles now, not when timed."""
    mode = "reduce-overhead" if images.device.type == "cuda" else "default"
    compiled: Any = torch.compile(copy.deepcopy(vit), mode=mode, dynamic=False)
    for _ in range(3):
        compiled(images)
    return lambda: compiled(images)


def openvino(vit: nn.Module, images: Tensor) -> Run:
    """OpenVINO on the CPU, in the network's dtype."""
    import openvino as ov

    example = images.float()
    converted = to_openvino(torch.export.export(copy.deepcopy(vit).float(), (example,)))
    hint = ov.Type.bf16 if images.dtype == torch.bfloat16 else ov.Type.f32
    core = openvino_runtime.core()
    compiled = core.compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    numbers = example.numpy()
    return lambda: compiled(numbers)


def onnxruntime(vit: nn.Module, images: Tensor) -> Run:
    """ONNX Runtime on the CPU, float32."""
    import onnxruntime as ort

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        example = (images.float(),)
        torch.onnx.export(copy.deepcopy(vit).float(), example, path, input_names=["images"], dynamo=False)
        session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    numbers = images.float().numpy()
    return lambda: session.run(None, {"images": numbers})


Make = Callable[[nn.Module, Tensor], Run]

#: By name: the function that makes it, the package it needs, and the dtypes it supports (None: all).
RIVALS: dict[str, tuple[Make, str, tuple[torch.dtype, ...] | None]] = {
    "timm eager": (timm_eager, "timm", None),
    "timm channels-last": (timm_channels_last, "timm", None),
    "timm compiled": (timm_compiled, "timm", None),
    "openvino": (openvino, "openvino", (torch.float32, torch.bfloat16)),
    "onnxruntime": (onnxruntime, "onnxruntime", (torch.float32,)),
}


def available(name: str, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a baseline is installed and supports this dtype on this device."""
    _, package, dtypes = RIVALS[name]
    cpu_only = package in ("openvino", "onnxruntime")
    return (
        find_spec(package) is not None
        and (dtypes is None or dtype in dtypes)
        and not (cpu_only and device.type != "cpu")
    )

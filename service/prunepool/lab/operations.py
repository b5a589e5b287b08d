"""Profile a forward pass by kind of operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

#: Kinds of PyTorch operations; any other is `rest`.
_KINDS = {
    "linear": ("aten::addmm", "aten::mm", "aten::linear", "mkldnn::_linear_pointwise"),
    "attention": ("attention", "aten::_softmax"),
    "patches": (
        "aten::mkldnn_convolution",
        "aten::cudnn_convolution",
        "aten::thnn_conv2d",
        "aten::_slow_conv",
    ),
    "gelu": ("aten::gelu",),
    "norm": ("aten::native_layer_norm",),
    "add": ("aten::add",),
    "copy": ("aten::copy_", "aten::cat", "aten::clone", "aten::contiguous"),
    "reduction": (
        "aten::index_select",
        "aten::gather",
        "aten::scatter",
        "aten::topk",
        "aten::sort",
        "aten::argsort",
        "aten::bmm",
        "aten::max",
        "aten::sum",
        "aten::mul",
        "aten::where",
        "aten::linalg_vector_norm",
        "aten::log",
        "aten::var",
        "aten::div",
    ),
}


@dataclass(frozen=True, slots=True)
class Share:
    """The time of one kind of operation.

    Attributes:
        kind: of operation.
        ms: milliseconds on the device in one pass.
        share: of the whole pass, 0 to 1.
        calls: number of calls in one pass.
    """

    kind: str
    ms: float
    share: float
    calls: float


def operations(run: Callable[[], object], device: torch.device, *, passes: int = 3) -> list[Share]:
    """Profile a forward pass; the kind that takes longest comes first.

    The profiler slows operations down, short ones most: the shares show where time goes, not how fast the pass
    is.

    Args:
        run: runs one pass; already warmed up.
        device: the device it runs on.
        passes: number of passes to average over.
    """
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiler:
        for _ in range(passes):
            run()
        if cuda:
            torch.cuda.synchronize()
    times: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in profiler.key_averages():
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        times[_kind(event.key)] += spent / 1000 / passes
        calls[_kind(event.key)] += event.count
    whole = sum(times.values())
    return [
        Share(kind, ms, ms / whole if whole else 0.0, calls[kind] / passes)
        for kind, ms in times.most_common()
    ]


def _kind(operation: str) -> str:
    for kind, names in _KINDS.items():
        if any(operation.startswith(name) or (kind == "attention" and name in operation) for name in names):
            return kind
    return "rest"

"""Where the time of a forward pass goes, by kind of operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

#: What the operations of PyTorch are counted as; what is not named here is `rest`.
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
    """One kind of operation in one candidate.

    Attributes:
        kind: of operation.
        ms: that it took in one pass, on the device.
        share: of the whole pass, 0 to 1.
        calls: in one pass.
    """

    kind: str
    ms: float
    share: float
    calls: float


def operations(run: Callable[[], object], device: torch.device, *, passes: int = 3) -> list[Share]:
    """Profile a forward pass, the kind that takes longest first.

    The profiler slows operations down a little, short ones most: the shares say where to look, not how fast it is.

    Args:
        run: one pass, warmed up.
        device: where it runs.
        passes: over which the mean is taken.
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

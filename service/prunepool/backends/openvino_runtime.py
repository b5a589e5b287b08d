"""Opens converted passes with OpenVINO's CPU plugin. It needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from prunepool.backends.compiled_pass import AT_ONCE, Arrays, Streams
from prunepool.errors import ConversionInvalid

#: OpenVINO keeps what it prepares for a shape, so many of them at most.
_PREPARED_SHAPES = 1000

#: Neighbouring activations that are quantised with one scale.
_GROUP_SIZE = 64


def installed() -> bool:
    """Whether OpenVINO is installed."""
    return find_spec("openvino") is not None


def has_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16; others emulate it, slower than float32."""
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def open_streams(graph: bytes, constants: bytes, dtype: str, threads: int) -> list[Streams]:
    """Compile a converted pass for this processor.

    Args:
        graph: OpenVINO's `.xml`.
        constants: OpenVINO's `.bin`.
        dtype: what to compute in: `float32`, `bfloat16`, `float16`, or `int8`, which needs weights in int8.
        threads: to compute with.

    Returns:
        A single stream with all threads, then as many parallel ones as divide the threads evenly, if more than one.

    Raises:
        ConversionInvalid: OpenVINO is not installed, or cannot run the pass.
    """
    if not installed():
        raise ConversionInvalid('a compiled model needs OpenVINO: pip install "prunepool[openvino]"')
    import openvino as ov

    formats = {
        "float32": ov.Type.f32,
        "bfloat16": ov.Type.bf16,
        "float16": ov.Type.f16,
        "int8": ov.Type.f32,
    }
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": formats[dtype],
        "INFERENCE_NUM_THREADS": threads,
        # Several engines may share a machine, and none knows which cores the others use.
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": _PREPARED_SHAPES,
        # Where weights are in int8, activations are quantised as they come.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP_SIZE if dtype == "int8" else 0,
    }
    widest = max(width for width in range(1, AT_ONCE + 1) if threads % width == 0)
    try:
        core = ov.Core()
        model = core.read_model(graph, constants)
        return [
            _streams(core.compile_model(model, "CPU", {**settings, "NUM_STREAMS": width}), width)
            for width in dict.fromkeys((1, widest))
        ]
    except RuntimeError as error:
        raise ConversionInvalid(f"OpenVINO cannot run the compiled pass: {error}") from error


def _streams(compiled: Any, width: int) -> Streams:
    requests = [compiled.create_infer_request() for _ in range(width)]

    def infer(parts: Sequence[Arrays]) -> list[Arrays]:
        busy = requests[: len(parts)]
        for request, arrays in zip(busy, parts, strict=True):
            request.start_async(list(arrays), share_inputs=True)
        for request in busy:
            request.wait()
        # Copies: the next run overwrites the output tensors.
        return [[tensor.data.copy() for tensor in request.output_tensors] for request in busy]

    return Streams(width, infer)

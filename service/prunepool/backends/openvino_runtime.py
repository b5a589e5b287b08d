"""Opens converted passes with OpenVINO's CPU plugin. It needs no torch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from prunepool.backends.compiled_pass import Arrays, Infer
from prunepool.backends.kernel_cache import KernelCache
from prunepool.backends.openvino_files import unpack
from prunepool.errors import ConversionInvalid

#: OpenVINO keeps what it prepares for a shape, so many of them at most.
_PREPARED_SHAPES = 1000

#: Neighbouring activations that are quantised with one scale: fewer are closer to float32, and slower.
_GROUP_SIZE = 32

_made: list[Any] = []
_making = threading.Lock()


def installed() -> bool:
    """Whether OpenVINO is installed."""
    return find_spec("openvino") is not None


def core() -> Any:
    """The one `openvino.Core` of this process, which is never let go of; it may be used by several threads.

    Each Core loads a CPU plugin, which gives the thread that loads it a stack for signal handlers. When the plugin
    goes, so does the stack, but the thread may still point there: where another thread let go of the Core, or
    where it has loaded a second one meanwhile. The next signal that Python handles in that thread is a SIGSEGV.
    """
    import openvino as ov

    with _making:
        if not _made:
            _made.append(ov.Core())
    return _made[0]


def has_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16; others emulate it, slower than float32."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def open_pass(
    graph: bytes, constants: bytes, dtype: str, threads: int, kernels: KernelCache | None = None
) -> Infer:
    """Compile a converted pass for this processor.

    Args:
        graph: OpenVINO's `.xml`, compressed.
        constants: OpenVINO's `.bin`.
        dtype: what to compute in: `float32`, `bfloat16`, `float16`; with weights in int8 `int8`, or `int8+bfloat16`
            for all else in bfloat16.
        threads: to compute with.
        kernels: has what an earlier start prepared.

    Raises:
        ConversionInvalid: OpenVINO is not installed, or cannot run the pass.
    """
    if not installed():
        raise ConversionInvalid('a compiled model needs OpenVINO: pip install "prunepool[cpu]"')
    import openvino as ov

    formats = {
        "float32": ov.Type.f32,
        "bfloat16": ov.Type.bf16,
        "float16": ov.Type.f16,
        "int8": ov.Type.f32,
        "int8+bfloat16": ov.Type.bf16,
    }
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": formats[dtype],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Several engines may share a machine, and none knows which cores the others use.
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": _PREPARED_SHAPES,
        # Where weights are in int8, activations are quantised as they come.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP_SIZE if dtype.startswith("int8") else 0,
    }
    try:
        cache = kernels or KernelCache()
        compiled = cache.compile(core(), unpack(graph), constants, settings)
    except RuntimeError as error:
        raise ConversionInvalid(f"OpenVINO cannot run the compiled pass: {error}") from error
    return _Requests(compiled)


class _Requests:
    """Starts runs of a compiled pass; each has a request of its own, which the next one takes over.

    Args:
        compiled: an `openvino.CompiledModel` with one stream, in which runs compute one after the other.
    """

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._free: list[Any] = []

    def __call__(self, inputs: Arrays, when_done: Callable[[], object]) -> _Run:
        request = self._free.pop() if self._free else self._compiled.create_infer_request()
        return _Run(request, inputs, when_done, self._free.append)


class _Run:
    """The :class:`~prunepool.backends.compiled_pass.StartedRun` of a request.

    Args:
        request: an `openvino.InferRequest` that nothing uses.
        inputs: of the pass.
        when_done: called once it is done.
        give_back: takes the request when its outputs were copied.
    """

    def __init__(
        self,
        request: Any,
        inputs: Arrays,
        when_done: Callable[[], object],
        give_back: Callable[[Any], object],
    ) -> None:
        self._request = request
        self._inputs = inputs  # shared with OpenVINO, which does not keep them alive
        self._when_done = when_done
        self._give_back = give_back
        self._done = False
        request.set_callback(lambda _: self._end(), None)
        request.start_async(list(inputs), share_inputs=True)

    def done(self) -> bool:
        """Whether it has ended. A failure is not called back: OpenVINO has to be asked."""
        if not self._done:
            try:
                self._done = self._request.wait_for(0)
            except RuntimeError:
                self._done = True
        return self._done

    def outputs(self) -> Arrays:
        """Wait for the outputs of the pass.

        Raises:
            RuntimeError: OpenVINO cannot compute them.
        """
        self._request.wait()
        # Copies: the next run overwrites the output tensors.
        found = [tensor.data.copy() for tensor in self._request.output_tensors]
        self._done = True
        self._give_back(self._request)
        return found

    def _end(self) -> None:
        self._done = True
        self._when_done()

"""A CUDA device as the backend sees it: one stream that computes, one that copies, captured graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from prunepool.backends.cuda_capture import PassOutputs

#: Its streams and events carry no types.
_cuda: Any = torch.cuda
#: Runs before a capture: libraries choose their kernels and load them in the first.
_WARM_UPS = 2
#: torch captures one graph at a time in a process. Waiting for the whole device, and freeing memory, would spoil
#: the capture of another model, so both wait for it too.
_CAPTURE = threading.Lock()


class CudaEvent:
    """A :class:`~prunepool.backends.cuda_capture.DeviceEvent` on the computing stream."""

    def __init__(self, stream: Any) -> None:
        # Blocking: the waiting thread sleeps instead of taking a core from the decoders.
        self._event = _cuda.Event(blocking=True)
        self._event.record(stream)

    def done(self) -> bool:
        """Whether the device has passed it."""
        return bool(self._event.query())

    def wait(self) -> None:
        """Return when it has."""
        self._event.synchronize()


class CudaDevice:
    """The :class:`~prunepool.backends.cuda_capture.Accelerator` of one GPU; made and used by one thread.

    Args:
        device: which GPU; what is on it already is complete before anything else is computed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with _CAPTURE:
            torch.cuda.synchronize(device)
        self._compute = _cuda.Stream(device)
        self._copy = _cuda.Stream(device)
        with torch.cuda.device(device):
            # All graphs share their memory: they run one after the other on one stream.
            self._pool = torch.cuda.graph_pool_handle()

    @property
    def device(self) -> torch.device:
        """Which GPU."""
        return self._device

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within it, this thread launches on the computing stream."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._compute):
            yield

    def staging(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Pinned memory, which torch keeps for reuse once the copies from and to it are done."""
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)

    def upload(self, host: Tensor) -> Tensor:
        """Copy on a stream of its own; the computing stream waits for it."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._copy):
            there = host.to(self._device, non_blocking=True)
            arrived = _cuda.Event()
            arrived.record(self._copy)
        there.record_stream(self._compute)
        self._compute.wait_event(arrived)
        return there

    def capture(self, function: Callable[[], PassOutputs]) -> tuple[PassOutputs, Callable[[], None]]:
        """Capture a CUDA graph on the stream that it will run on.

        Other threads, which may serve other models, go on meanwhile: only what this one does is watched.

        Raises:
            torch.OutOfMemoryError: the device has no memory for it.
        """
        with _CAPTURE, self.active():
            for _ in range(_WARM_UPS):
                function()
            self._compute.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._compute, capture_error_mode="thread_local"
            ):
                outputs = function()
        return outputs, graph.replay

    def event(self) -> CudaEvent:
        """A point after everything that was launched so far."""
        return CudaEvent(self._compute)

    def used(self) -> int:
        """Bytes in use on the whole GPU, without what torch only caches."""
        with _CAPTURE, torch.cuda.device(self._device):
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()
            free, total = torch.cuda.mem_get_info(self._device)
        return total - free

    def close(self) -> None:
        """Free cached memory."""
        with _CAPTURE, torch.cuda.device(self._device):
            torch.cuda.empty_cache()

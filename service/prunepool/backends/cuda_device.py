"""A CUDA device as the backend sees it: one stream that computes, one that copies, recorded runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from prunepool.backends.cuda_capture import Computed

#: Its streams and events carry no types.
_cuda: Any = torch.cuda
#: Runs before a recording: libraries choose their kernels and load them in the first.
_WARM_UPS = 2
#: torch records one graph at a time in a process.
_RECORDING = threading.Lock()


class CudaMark:
    """An event on the computing stream."""

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
    """The :class:`~prunepool.backends.cuda_capture.Device` of one GPU; made and used by one thread.

    Args:
        place: which GPU; what is on it already is complete before anything else is computed.
    """

    def __init__(self, place: torch.device) -> None:
        self._place = place
        torch.cuda.synchronize(place)
        self._compute = _cuda.Stream(place)
        self._copy = _cuda.Stream(place)
        with torch.cuda.device(place):
            # All recorded runs share their memory: they run one after the other on one stream.
            self._pool = torch.cuda.graph_pool_handle()

    @property
    def place(self) -> torch.device:
        """Which GPU."""
        return self._place

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within it, this thread launches on the computing stream."""
        with torch.cuda.device(self._place), torch.cuda.stream(self._compute):
            yield

    def staging(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Pinned memory, which torch keeps for reuse once the copies from and to it are done."""
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)

    def upload(self, host: Tensor) -> Tensor:
        """Copy on a stream of its own; the computing stream waits for it."""
        with torch.cuda.device(self._place), torch.cuda.stream(self._copy):
            there = host.to(self._place, non_blocking=True)
            arrived = _cuda.Event()
            arrived.record(self._copy)
        there.record_stream(self._compute)
        self._compute.wait_event(arrived)
        return there

    def capture(self, function: Callable[[], Computed]) -> tuple[Computed, Callable[[], None]]:
        """Record a CUDA graph on the stream that it will run on.

        Other threads, which may serve other models, go on meanwhile: only what this one does is watched.
        """
        with _RECORDING, self.active():
            for _ in range(_WARM_UPS):
                function()
            self._compute.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._compute, capture_error_mode="thread_local"
            ):
                computed = function()
        return computed, graph.replay

    def mark(self) -> CudaMark:
        """A point after all that was launched so far."""
        return CudaMark(self._compute)

    def used(self) -> int:
        """Bytes that are taken on the whole GPU, without what torch only caches."""
        torch.cuda.synchronize(self._place)
        with torch.cuda.device(self._place):
            torch.cuda.empty_cache()
            free, total = torch.cuda.mem_get_info(self._place)
        return total - free

    def close(self) -> None:
        """Give cached memory back."""
        with torch.cuda.device(self._place):
            torch.cuda.empty_cache()

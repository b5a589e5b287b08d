"""The threads that decode images and crop them. A request waits for one until its deadline at most.

They also return the memory of a burst to the system: images of many sizes fragment the heap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from prunepool.core.threads import name_thread, started
from prunepool.core.types import Pixels
from prunepool.errors import DeadlineExceeded
from prunepool.imaging import ImageLimits, Preprocess, decode
from prunepool.machine import available_cores, trim_heap
from prunepool.serving.tensors import checked
from prunepool.serving.types import Image

#: Seconds after the first image of a period until free memory is returned to the system.
_TIDY_S = 60.0
#: On up to this many cores, one decoding thread a core.
_FEW_CORES = 4

Decode = Callable[[bytes, Preprocess, ImageLimits], Pixels]


def decode_threads(wanted: int | None, sharers: int = 1) -> int:
    """The number of decoding threads: one for every two cores, and on few cores one for each.

    If a model computes on the same cores, all its threads wait for the one whose core is decoding. Images that are
    decoded at the same time cost it that wait only once.

    Args:
        wanted: the operator's setting, or None.
        sharers: processes of this server that decode.
    """
    cores = available_cores()
    return wanted or max(1, max(cores // 2, min(cores, _FEW_CORES)) // sharers)


class DecodePool:
    """A pool of threads.

    Args:
        threads: images decoded at the same time.
        limits: which images are decoded at all.
        clock: seconds, monotonic; arrivals and deadlines are on it.
        decode: makes a model's crop of an encoded image; called in a thread of the pool.

    Raises:
        RuntimeError: the system has not so many threads to give.
    """

    def __init__(
        self, threads: int, limits: ImageLimits, clock: Callable[[], float], decode: Decode = decode
    ) -> None:
        pool = ThreadPoolExecutor(
            threads, thread_name_prefix="prunepool-decode", initializer=name_thread, initargs=("decode",)
        )
        self._pool = started(pool, threads)
        self._limits = limits
        self._clock = clock
        self._decode = decode
        self._tidying: asyncio.TimerHandle | None = None

    async def pixels(
        self, image: Image | Pixels, preprocess: Preprocess, arrival: float, deadline: float | None
    ) -> Pixels:
        """The pixels that the model takes: the crop of an encoded image, or a caller's pixels, checked.

        Args:
            image: encoded, or decoded already.
            preprocess: the model's.
            arrival: when it came.
            deadline: when it becomes worthless, or None.

        Raises:
            DeadlineExceeded: that came first.
            InvalidParameter: pixels that the model cannot take.
            RequestError: an image that cannot be decoded.
        """
        loop = asyncio.get_running_loop()
        if self._tidying is None:
            self._tidying = loop.call_later(_TIDY_S, self._tidy)
        if not isinstance(image, bytes):
            return checked(image, preprocess.size)
        decoding = loop.run_in_executor(self._pool, self._decode, image, preprocess, self._limits)
        left = None if deadline is None else max(0.0, deadline - self._clock())
        try:
            async with asyncio.timeout(left) as scope:
                return await decoding
        except TimeoutError:
            if not scope.expired():
                raise
            assert deadline is not None
            allowed = (deadline - arrival) * 1000
            raise DeadlineExceeded(
                f"the deadline of {allowed:.0f} ms came before the image was decoded"
            ) from None

    def _tidy(self) -> None:
        self._tidying = None
        self._pool.submit(trim_heap)

    def close(self) -> None:
        """Start no more decoding, and do not wait for what is being decoded."""
        if self._tidying is not None:
            self._tidying.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

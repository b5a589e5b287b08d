"""The threads that make crops of images; nobody waits for one longer than until the image's deadline.

They see to it as well that what a burst took of memory does not stay: images of many sizes leave gaps behind.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from prunepool.core.threads import name_thread
from prunepool.core.types import Pixels
from prunepool.errors import DeadlineExceeded
from prunepool.imaging import ImageLimits, Preprocess, decode
from prunepool.machine import trim_heap
from prunepool.serving.tensors import checked
from prunepool.serving.types import Image

#: Free memory goes back once in so many seconds, if there were images.
_TIDY_S = 60.0
#: Up to so many cores, each has a thread that decodes.
_FEW_CORES = 4

Decode = Callable[[bytes, Preprocess, ImageLimits], Pixels]


def decode_threads(wanted: int | None, sharers: int = 1) -> int:
    """How many images are decoded at once: a thread for every two cores, and on few cores one for each.

    Where a model computes on the same few cores, all its threads wait for the one whose core is decoding: images
    that are decoded side by side cost it that wait once.

    Args:
        wanted: by the operator.
        sharers: processes that decode, of which this is one.
    """
    cores = len(os.sched_getaffinity(0))
    return wanted or max(1, max(cores // 2, min(cores, _FEW_CORES)) // sharers)


class DecodePool:
    """A pool of threads.

    Args:
        threads: images decoded at the same time.
        limits: which images are decoded at all.
        clock: seconds, monotonic; arrivals and deadlines are on it.
        decode: makes a model's crop of an encoded image; called in a thread of the pool.
    """

    def __init__(
        self, threads: int, limits: ImageLimits, clock: Callable[[], float], decode: Decode = decode
    ) -> None:
        self._pool = ThreadPoolExecutor(
            threads, thread_name_prefix="prunepool-decode", initializer=name_thread, initargs=("decode",)
        )
        self._limits = limits
        self._clock = clock
        self._decode = decode
        self._tidying: asyncio.TimerHandle | None = None

    async def pixels(
        self, image: Image | Pixels, preprocess: Preprocess, arrival: float, deadline: float | None
    ) -> Pixels:
        """What the model takes: the crop of an encoded image, or pixels that are checked.

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
            async with asyncio.timeout(left) as patience:
                return await decoding
        except TimeoutError:
            if not patience.expired():
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
        """Decode nothing more; what is being decoded is left behind."""
        if self._tidying is not None:
            self._tidying.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

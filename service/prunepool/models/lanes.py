"""A batch in pieces, one core each: on a processor, cores that need not wait for each other do more.

One thread for each core runs whole pieces by itself, where otherwise all cores share each operation and wait
for the slowest of them some hundred times in a pass.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")

#: Images of a piece: more of them leave the caches, fewer make products too small to be fast.
_MOST_IN_PIECE = 8
_ROUNDS = 3
_LEAVE_S = 5.0


def pieces(images: int, lanes: int, most: int = _MOST_IN_PIECE) -> tuple[list[slice], slice]:
    """How a batch is cut: pieces of one size for the lanes, and a rest for all cores together.

    A piece has every so-manieth image, so that a batch that is sorted by ratio gives pieces that take equally
    long. What does not come out even is faster on all cores than on one of them while the others have nothing.

    Args:
        images: in the batch.
        lanes: how many pieces can run at the same time.
        most: images in a piece.

    Returns:
        The pieces, and the rest, either of which may be empty.
    """
    even = images - images % lanes
    if lanes == 1 or not even:
        return [], slice(0, images)
    number = lanes * -(-even // (lanes * most))
    return [slice(first, even, number) for first in range(number)], slice(even, images)


class Lanes:
    """Threads that run one piece each, on one core each; none of them keeps the process from ending.

    Args:
        count: how many; the threads torch would use, if not given.
    """

    def __init__(self, count: int | None = None) -> None:
        threads = torch.get_num_threads()
        self.count = threads if count is None else count
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        started = threading.Barrier(self.count + 1)
        self._threads = [
            threading.Thread(target=self._main, args=(started,), name=f"prunepool-lane-{i}", daemon=True)
            for i in range(self.count)
        ]
        for thread in self._threads:
            thread.start()
        started.wait()
        # What a thread sets counts for those that torch sees first afterwards, too.
        torch.set_num_threads(threads)

    def _main(self, started: threading.Barrier) -> None:
        torch.get_num_threads()  # or torch would set this thread to its default at the first operation
        torch.set_num_threads(1)
        started.wait()
        while (call := self._calls.get()) is not None:
            call()

    def run(self, work: Callable[[A], B], parts: Sequence[A]) -> list[B]:
        """The results of all parts, in order; raises what the first that failed raised, when all are over."""
        futures: list[Future[B]] = [Future() for _ in parts]
        for future, part in zip(futures, parts, strict=True):
            self._calls.put(partial(_settle, future, work, part))
        wait(futures)
        return [future.result() for future in futures]

    def close(self) -> None:
        """Let the threads end, and wait for it a little: one that outlived the interpreter could abort it."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join(_LEAVE_S)


def _settle(future: Future[B], work: Callable[[A], B], part: A) -> None:
    try:
        future.set_result(work(part))
    except BaseException as error:
        future.set_exception(error)


def faster(
    one: Callable[[], object],
    other: Callable[[], object],
    clock: Callable[[], float] = time.perf_counter,
) -> bool:
    """Whether the first of two ways is at least as fast; both take turns, and the best of each counts."""
    best = {one: float("inf"), other: float("inf")}
    for turn in range(_ROUNDS + 1):
        for way in best:
            start = clock()
            way()
            if turn:  # the first pass of each also pays for set-up
                best[way] = min(best[way], clock() - start)
    return best[one] <= best[other]

"""Processes many items with bounded concurrency and memory; results keep the order of the items."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Concurrent requests of `classify_many`: enough to fill batches, far from filling the queue.
CONCURRENCY = 16
#: Items started and not yet yielded, as a multiple of the concurrency: a slow item does not stop the others.
_WINDOW = 4


async def in_order(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Result]], concurrency: int
) -> AsyncGenerator[tuple[Item, Result], None]:
    """Process items concurrently; yield results in the order of the items.

    Args:
        items: iterated as needed.
        work: processes an item; its exception ends the whole run.
        concurrency: number of items processed at a time.

    Yields:
        Each item with its result.
    """
    gate = asyncio.Semaphore(concurrency)

    async def gated(item: Item) -> Result:
        async with gate:
            return await work(item)

    waiting: deque[tuple[Item, asyncio.Task[Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, asyncio.create_task(gated(item))))
            if len(waiting) == _WINDOW * concurrency:
                yield await _first(waiting)
        while waiting:
            yield await _first(waiting)
    finally:
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)


async def _first(waiting: deque[tuple[Item, asyncio.Task[Result]]]) -> tuple[Item, Result]:
    item, task = waiting[0]
    result = await task
    waiting.popleft()
    return item, result


def in_order_by_threads(
    items: Iterable[Item], work: Callable[[Item], Result], concurrency: int
) -> Iterator[tuple[Item, Result]]:
    """Do the same as :func:`in_order` in threads."""
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(concurrency, thread_name_prefix="prunepool-client") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) == _WINDOW * concurrency:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


@contextmanager
def advancing(progress: bool, items: object) -> Iterator[Callable[[], None]]:
    """Show a progress bar if standard error is a terminal; yield a function that advances it by one.

    Args:
        progress: whether to show a bar.
        items: the items to count; without a length, the bar has no total.
    """
    if not progress:
        yield lambda: None
        return
    from rich.console import Console

    from prunepool.client.progress import progress_bar

    total = len(items) if hasattr(items, "__len__") else None
    console = Console(stderr=True)
    with progress_bar(console, shown=console.is_terminal) as bar:
        task = bar.add_task("images", total=total)
        yield lambda: bar.advance(task)

"""Many things done a few at a time, results in order; neither all begun at once nor all kept in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Results that may wait for one before them, as a multiple of what is done at once: one that takes long does
#: not keep the others from being begun.
_WINDOW = 4


async def in_order(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Result]], concurrency: int
) -> AsyncGenerator[tuple[Item, Result], None]:
    """Work on items, so many at a time; results come in the order of the items.

    Args:
        items: taken as they are needed.
        work: done for each; what it raises ends all of it.
        concurrency: how many at a time.

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
    """The same for plain code, with a thread for each that is worked on."""
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
    """A bar on a terminal's standard error, that a call moves on by one.

    Args:
        progress: whether there shall be one.
        items: what it counts; if it has no length, the bar has no end.
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

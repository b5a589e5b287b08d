"""Runs work on large bodies in a thread, so that the event loop stays free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: Bodies up to this many bytes are parsed at once: it takes less than a millisecond, and a thread of a busy
#: process may wait longer than that for the interpreter's lock.
SMALL_BODY = 256 * 1024
#: The same for work that takes more time a byte: JSON with a tensor's numbers, and compression.
SMALL_TENSORS = 64 * 1024


async def offload(large: bool, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function, in a thread if its input is large.

    Args:
        large: whether the call takes long enough for other requests to notice.
        work: a function that needs no event loop.
        args: its arguments.
        kwargs: its keyword arguments.

    Returns:
        What the function returns.
    """
    return await asyncio.to_thread(work, *args, **kwargs) if large else work(*args, **kwargs)

"""A place in the server and the process in it, here without a process: what the parent sees of its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import pytest

from prunepool.errors import EngineUnavailable
from prunepool.server.children import Child
from prunepool.server.control_pipe import ControlPipe


class Process:
    """A process of this process: it says that it is ready, and its pipe and the process itself end when told to."""

    pid, exitcode = 0, -9
    latest: Process

    def __init__(self, target: Callable[[Any], None], args: tuple[Connection], name: str) -> None:
        self._theirs = args[0]
        self.sentinel, self._alive = os.pipe()
        Process.latest = self

    def start(self) -> None:
        connection = Connection(os.dup(self._theirs.fileno()))
        self.pipe = ControlPipe(connection, {"work": asyncio.Event().wait}, lambda: None)
        self._ready = asyncio.ensure_future(self.pipe.call("ready"))

    def end(self) -> None:
        os.close(self._alive)

    def join(self) -> None: ...

    def kill(self) -> None: ...

    def close(self) -> None:
        os.close(self.sentinel)


class Context:
    """Makes such processes."""

    Pipe, Process = staticmethod(Pipe), Process


async def test_a_process_that_hangs_up_is_not_up_when_those_who_asked_it_are_told() -> None:
    child = Child(Context(), "engine-0", print, lambda theirs, _: theirs, handlers={})  # type: ignore[arg-type]
    await child.start()
    assert child.up
    asked = asyncio.create_task(child.call("work"))
    await asyncio.sleep(0)
    Process.latest.pipe.close()  # the kernel closes it first, and tells of the process's end after that
    with pytest.raises(EngineUnavailable):
        await asked
    assert not child.up
    leaving = asyncio.create_task(child.leave("stop", 5.0))
    Process.latest.end()
    await leaving

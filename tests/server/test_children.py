"""A place in the server and the process in it, here without a process: what the parent sees of its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
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
        self.handlers: dict[str, Any] = {"work": asyncio.Event().wait}
        self.pipe = ControlPipe(connection, self.handlers, lambda: None)
        self._ready = asyncio.ensure_future(self.pipe.call("ready"))

    def end(self) -> None:
        os.close(self._alive)

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


@pytest.fixture
async def watched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts a child whose processes follow each other without a pause; it is left at the end."""
    monkeypatch.setattr("prunepool.server.backoff.FIRST_DELAY_S", 0.0)
    made: list[Child] = []

    async def start(context: Any = None, **hooks: Any) -> Child:
        spec = hooks.pop("spec", lambda theirs, _: theirs)
        made.append(Child(context or Context(), "engine-0", print, spec, handlers={}, **hooks))
        await made[-1].start()
        return made[-1]

    yield start
    for child in made:
        child.kill()
        leaving = asyncio.create_task(child.leave("stop", 5.0))
        await asyncio.sleep(0)
        if not leaving.done():
            Process.latest.end()
        await leaving


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def returned(child: Child, latest: Process) -> None:
    """Wait until another process than this one is ready."""
    async with asyncio.timeout(5.0):
        while Process.latest is latest or not child.up:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_what_fails_after_a_death_keeps_no_successor_away(
    watched: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError("its metrics cannot be removed")

    child = await watched(on_death=fail)
    for _ in range(2):
        latest = Process.latest
        latest.end()
        await returned(child, latest)
    assert "its metrics cannot be removed" in capsys.readouterr().out


async def test_a_process_that_cannot_be_had_is_asked_for_until_it_can(
    watched: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a limit on processes: whatever lets go of some, the successor comes soon after."""
    refused = [OSError(11, "Resource temporarily unavailable")] * 3

    def spec(theirs: Connection, incarnation: int) -> object:
        if incarnation and refused:
            raise refused.pop()
        return theirs

    before = descriptors()
    child = await watched(spec=spec)
    one_process = descriptors() - before
    latest = Process.latest
    latest.end()
    await returned(child, latest)
    assert not refused
    assert capsys.readouterr().out.count("Resource temporarily unavailable") == 3
    assert descriptors() - before <= one_process


async def test_a_successor_serves_only_once_it_has_what_is_wanted_now(watched: Any) -> None:
    converging, over = asyncio.Event(), asyncio.Event()

    async def converge() -> None:
        converging.set()
        await over.wait()

    child = await watched(on_return=converge)
    assert not converging.is_set()  # the first process was told everything
    latest = Process.latest
    latest.end()
    await converging.wait()
    assert not child.up
    assert not Process.latest._ready.done()
    over.set()
    await returned(child, latest)


async def test_a_return_that_goes_wrong_is_logged_and_the_process_serves(
    watched: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail() -> None:
        raise KeyError("unforeseen")

    child = await watched(on_return=fail)
    latest = Process.latest
    latest.end()
    await returned(child, latest)
    assert "unforeseen" in capsys.readouterr().out


async def test_a_process_that_does_not_hear_that_it_shall_leave_is_not_waited_for(
    watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunepool.server.children._ACKNOWLEDGED_S", 0.01)
    child = await watched()

    async def hang() -> None:
        await asyncio.Event().wait()

    Process.latest.handlers["stop"] = hang
    killed = asyncio.Event()
    monkeypatch.setattr(Process, "kill", lambda self: killed.set())
    leaving = asyncio.create_task(child.leave("stop", 3600.0))
    async with asyncio.timeout(5.0):
        await killed.wait()
    Process.latest.end()
    await leaving


async def test_a_process_that_has_hung_up_and_does_not_end_is_killed(
    watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunepool.server.children._END_LIMIT_S", 0.01)
    killed = asyncio.Event()
    monkeypatch.setattr(Process, "kill", lambda self: killed.set())
    child = await watched()
    latest = Process.latest
    latest.pipe.close()
    async with asyncio.timeout(5.0):
        await killed.wait()
    latest.end()
    await returned(child, latest)


async def test_a_process_that_does_not_get_ready_is_killed(
    watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = await watched()
    monkeypatch.setattr("prunepool.server.children._START_LIMIT_S", 0.01)
    killed = asyncio.Event()
    monkeypatch.setattr(Process, "kill", lambda self: killed.set())
    monkeypatch.setattr(Process, "start", lambda self: None)
    first = Process.latest
    first.end()
    async with asyncio.timeout(5.0):
        await killed.wait()
    assert Process.latest is not first
    assert not child.up


async def test_a_signal_between_a_death_and_its_notice_does_nothing(watched: Any) -> None:
    child = await watched()

    class Closed:
        exitcode = None

        @property
        def pid(self) -> int:
            raise ValueError("process object is closed")

    before, child._process = child._process, Closed()
    child.signal(10)
    Closed.pid = 2**22 + 1  # type: ignore[assignment, misc] - no process has this number
    child.signal(10)
    child._process = before


async def test_a_successor_that_waits_can_be_hurried(watched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    child = await watched()
    monkeypatch.setattr("prunepool.server.backoff.FIRST_DELAY_S", 3600.0)
    monkeypatch.setattr("prunepool.server.backoff.MAX_DELAY_S", 3600.0)
    latest = Process.latest
    latest.end()
    async with asyncio.timeout(5.0):
        while child._process is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await asyncio.sleep(0)
    assert Process.latest is latest
    child.hurry()
    await returned(child, latest)
